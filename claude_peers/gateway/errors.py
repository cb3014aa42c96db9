"""The one place where errors become HTTP answers."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from claude_peers.core.errors import ClaudePeersError

SECURITY_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""On every answer. No `Server`, and never an `Access-Control-Allow-…`: no page may read us."""

REASONS: Final[Mapping[int, str]] = MappingProxyType(
    {
        101: "Switching Protocols",
        200: "OK",
        202: "Accepted",
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not Found",
        405: "Method Not Allowed",
        406: "Not Acceptable",
        408: "Request Timeout",
        409: "Conflict",
        411: "Length Required",
        413: "Content Too Large",
        415: "Unsupported Media Type",
        421: "Misdirected Request",
        426: "Upgrade Required",
        429: "Too Many Requests",
        431: "Request Header Fields Too Large",
        500: "Internal Server Error",
        501: "Not Implemented",
        503: "Service Unavailable",
    }
)

REFUSED_WITH_200: Final = frozenset({"/send-message", "/broadcast", "/verify-signature"})
"""Paths whose business refusals upstream's clients expect with status 200."""
_INTERNAL = 500


class Refusal(ClaudePeersError):  # noqa: N818 - a verdict on a request, not a fault of ours
    """A request turned away for what its head says or for whom it comes from.

    Attributes:
        headers: what the answer carries besides the usual, such as `Allow`.
    """

    def __init__(
        self,
        http_status: int,
        code: str,
        *,
        fact: str,
        remedy: str,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(fact, remedy)
        # Status and code belong to the class elsewhere; here each refusal has its own.
        vars(self).update(http_status=http_status, code=code)
        self.headers = headers


def response_for(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return status and JSON body for any error; one we did not expect tells nothing."""
    if isinstance(error, ClaudePeersError):
        return error.http_status, _told(error)
    return _INTERNAL, {"error": "internal error", "code": "internal"}


def headers_for(error: Exception) -> tuple[tuple[str, str], ...]:
    """Return the headers that go with `response_for`, without the usual ones."""
    headers = error.headers if isinstance(error, Refusal) else ()
    if isinstance(error, ClaudePeersError) and error.retry_after is not None:
        headers += (("Retry-After", str(math.ceil(error.retry_after))),)
    return headers


def business_refusal(error: ClaudePeersError) -> dict[str, Any]:
    """Return the body with which upstream's endpoints refuse, in an answer of status 200.

    Their clients test `ok`, and show any other status as a broken broker.
    """
    return {"ok": False, **_told(error)}


def reason(status: int) -> str:
    """Return the reason phrase of a status, empty if we never send it."""
    return REASONS.get(status, "")


def _told(error: ClaudePeersError) -> dict[str, Any]:
    body: dict[str, Any] = {"error": error.fact, "code": error.code, "remedy": error.remedy}
    if error.retry_after is not None:
        body["retry_after"] = round(error.retry_after, 3)
    return body
