"""What a request's head must look like before the HTTP parser sees it.

`h11` is lenient where two parsers could disagree about where a request ends: it takes a bare
line feed for a line's end, unfolds folded headers, accepts Transfer-Encoding next to
Content-Length and a Content-Length that says the same thing twice. Behind this check nothing
ambiguous is left: what passes has exactly one reading, and `h11` reads it the same way.
"""

import re
from dataclasses import dataclass
from typing import Final

from claude_peers.gateway.errors import Refusal

HEAD: Final = 32 * 1024
"""Bytes of a request's head, with the empty line that ends it."""
HEADERS: Final = 100

_END = b"\r\n\r\n"
_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VISIBLE = re.compile(rb"[\x21\x22\x24-\x7e]+")  # no `#`: a fragment never travels
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(r"[0-9]{1,19}")
_VERSIONS = {b"HTTP/1.0": "1.0", b"HTTP/1.1": "1.1"}
_ONCE = frozenset({"host", "content-length", "content-type", "authorization"})
_ORDINARY = "Send the request with an ordinary HTTP/1.1 client."


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request's head in its only reading.

    Attributes:
        target: as sent.
        path: the target without authority and query.
        version: 1.0 or 1.1.
        headers: by lower-case name; repeated ones are joined with a comma.
        content_length: bytes of the body, 0 if the header is absent.
        keep_alive: whether another request may follow on the connection.
    """

    method: str
    target: str
    path: str
    version: str
    headers: dict[str, str]
    content_length: int
    keep_alive: bool


def head_end(buffer: bytes | bytearray) -> int | None:
    """Return the index after the head, or None while it is incomplete.

    Raises:
        Refusal: it is too large, or already seen to be malformed.
    """
    end = buffer.find(_END, 0, HEAD)
    head = bytes(buffer[: end + len(_END) if end >= 0 else HEAD])
    if head and not _TOKEN.match(head):
        raise _refusal("not_http", "This port speaks plain HTTP, and that was something else")
    _check_line_ends(head)
    line, line_end, _ = head.partition(b"\r\n")
    if line_end:
        _request_line(line)
    if end >= 0:
        return end + len(_END)
    if len(buffer) >= HEAD:
        raise _too_large()
    return None


def check(head: bytes) -> Head:
    """Return a complete head as read.

    Raises:
        Refusal: it could be read in two ways, or in none.
    """
    if len(head) > HEAD:
        raise _too_large()
    if not head.endswith(_END):
        raise _refusal("incomplete_head", "The request's head has no end")
    _check_line_ends(head)
    first, *lines = head[: -len(_END)].split(b"\r\n")
    method, target, version = _request_line(first)
    headers = _headers(lines)
    if version == "1.1" and "host" not in headers:
        raise _refusal("host_missing", "An HTTP/1.1 request needs a Host header")
    return Head(
        method=method,
        target=target,
        path=_path(method, target, host=headers.get("host", "")),
        version=version,
        headers=headers,
        content_length=_content_length(headers),
        keep_alive=version == "1.1" and "close" not in _tokens(headers.get("connection", "")),
    )


def _check_line_ends(head: bytes) -> None:
    pairs = head.count(b"\r\n")
    waiting = head.endswith(b"\r")  # its line feed may come with the next read
    if head.count(b"\n") != pairs or head.count(b"\r") - waiting != pairs:
        raise _refusal("bare_newline", "A line of the request's head does not end in CR LF")


def _request_line(line: bytes) -> tuple[str, str, str]:
    match line.split(b" "):
        case [method, target, version] if _TOKEN.fullmatch(method) and _VISIBLE.fullmatch(target):
            if version not in _VERSIONS:
                raise _refusal("http_version", "The request is not HTTP/1.1 or HTTP/1.0")
            return method.decode(), target.decode(), _VERSIONS[version]
        case [_, _]:
            raise _refusal("http_version", "HTTP/0.9 is not spoken here")
        case _:
            raise _refusal("bad_request_line", "The request line is not METHOD TARGET VERSION")


def _headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > HEADERS:
        raise Refusal(
            431,
            "too_many_headers",
            fact=f"The request has more than {HEADERS} headers",
            remedy="Send fewer headers.",
        )
    headers: dict[str, str] = {}
    for line in lines:
        name, value = _header(line)
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            raise _refusal("repeated_header", f"The header {name} came more than once")
        else:
            headers[name] += f", {value}"
    return headers


def _header(line: bytes) -> tuple[str, str]:
    if line.startswith((b" ", b"\t")):
        raise _refusal("folded_header", "A header continues on a second line")
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name) or _CONTROL.search(value):
        raise _refusal("bad_header", "A header is not NAME: VALUE in allowed characters")
    return name.decode().lower(), value.decode("latin-1").strip(" \t")


def _path(method: str, target: str, *, host: str) -> str:
    if target.startswith("/"):
        return target.partition("?")[0]
    if target == "*" and method == "OPTIONS":
        return target
    scheme, slashes, rest = target.partition("://")
    if not slashes or scheme.lower() != "http":
        raise _refusal("bad_target", "The request's target is not a path")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    if authority.lower() != host.lower():
        raise _refusal("wrong_authority", "The request's target and its Host header disagree")
    return rest[len(authority) :].partition("?")[0] or "/"


def _content_length(headers: dict[str, str]) -> int:
    length = headers.get("content-length")
    if "transfer-encoding" in headers:
        if length is not None:
            raise _refusal(
                "ambiguous_length", "Transfer-Encoding and Content-Length exclude each other"
            )
        raise Refusal(
            411,
            "length_required",
            fact="Transfer-Encoding is not accepted here",
            remedy="Send the body in one piece, with a Content-Length header.",
        )
    if length is None:
        return 0
    if not _LENGTH.fullmatch(length):
        raise _refusal("bad_length", "Content-Length is not a single whole number")
    return int(length)


def _tokens(value: str) -> list[str]:
    return [token.strip(" \t").lower() for token in value.split(",")]


def _too_large() -> Refusal:
    return Refusal(
        431,
        "head_too_large",
        fact=f"The request's head is larger than {HEAD} bytes",
        remedy="Send fewer or shorter headers; what is long belongs into the body.",
    )


def _refusal(code: str, fact: str) -> Refusal:
    return Refusal(400, code, fact=fact, remedy=_ORDINARY)
