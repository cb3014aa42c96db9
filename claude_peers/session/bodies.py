"""The body of a request to `/mcp`: which messages it has, by the version of the protocol it names.

The oldest versions have arrays of messages, the SDK has none: it is given one message after the
other. What it would refuse in the words of its libraries is refused here, in ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from claude_peers.core.errors import BadRequestError
from claude_peers.core.limits import NAME
from claude_peers.core.text import one_line
from claude_peers.session.generations import Sdk
from claude_peers.session.handshake import BATCHING, PROTOCOL_VERSIONS, usable_id
from claude_peers.session.rpc import INVALID_REQUEST, PARSE_ERROR, refusal
from claude_peers.wire.codec import dumps, loads

VERSION: Final = "mcp-protocol-version"
"""The header that names it."""
UNTOLD: Final = "2025-03-26"
"""The version of a request that names none, as later ones say (Streamable HTTP, 2025-06-18)."""
MOST: Final = 64
"""Messages in one array: the whole machine's broker answers them."""
UNSUPPORTED_VERSION: Final = -32022
"""JSON-RPC code, as in version 2026-07-28."""

NO_MESSAGE: Final = (
    'This is no JSON-RPC message: it needs "jsonrpc": "2.0" and a "method"; "params", if there are '
    'any, are an object, and an "id" is a text or a number. Correct it and send it again.'
)


class BodyError(Exception):
    """A body that is not answered.

    Attributes:
        answer: what its sender is told, a JSON-RPC error.
    """

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["error"]["message"])
        self.answer = answer


def read(headers: Mapping[str, str], body: bytes, sdk: Sdk) -> list[bytes | BodyError] | None:
    """Return the messages of an array, each as JSON or as why it is none; None for one message.

    Args:
        headers: by lower-case name.
        body: as sent.
        sdk: what is to answer.

    Raises:
        BodyError: the version or the body cannot be used.
    """
    version = headers.get(VERSION, UNTOLD)
    try:
        told = loads(body)
    except BadRequestError as error:
        raise BodyError(refusal(PARSE_ERROR, str(error))) from error
    _check_version(version, told, (*PROTOCOL_VERSIONS, *sdk.modern))
    if not isinstance(told, list):
        if fault := _fault(told, sdk):
            raise fault
        return None
    if version not in BATCHING:
        fact = f"Version {version} of MCP has no arrays of messages"
        raise BodyError(refusal(INVALID_REQUEST, f"{fact}. Send each message by itself."))
    if not 0 < len(told) <= MOST:
        fact = f"An array has 1 to {MOST} messages, this one has {len(told)}"
        raise BodyError(refusal(INVALID_REQUEST, f"{fact}. Send them in several requests."))
    return [_fault(each, sdk) or dumps(each) for each in told]


def _check_version(version: str, told: Any, spoken: Sequence[str]) -> None:
    if version in spoken:
        return
    fact = f"This server does not speak version {one_line(version, NAME)} of MCP"
    remedy = f"Send MCP-Protocol-Version with one of these: {', '.join(spoken)}."
    asked = told.get("id") if isinstance(told, dict) else None
    answer = refusal(UNSUPPORTED_VERSION, f"{fact}. {remedy}", asked if usable_id(asked) else None)
    answer["error"]["data"] = {"supported": list(spoken), "requested": version}
    raise BodyError(answer)


def _fault(message: Any, sdk: Sdk) -> BodyError | None:
    """Return why a value is no message, None if it is one."""
    try:
        sdk.parse(dumps(message))
        # The SDK takes a request whose id it cannot read for a notification, and answers nothing.
        known = message.get("id") is None or usable_id(message["id"])
    except ValueError:
        known = False
    return None if known else BodyError(refusal(INVALID_REQUEST, NO_MESSAGE))
