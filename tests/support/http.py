"""HTTP as a stranger speaks it: one connection per request, or plain bytes."""

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Response:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    port: int,
    method: str,
    path: str,
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    timeout: float = 10,
) -> Response:
    """Send exactly these headers, plus Host, and Content-Length where there is a body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    given = dict(headers or {})
    names = {name.lower() for name in given}
    try:
        connection.putrequest(method, path, skip_host="host" in names, skip_accept_encoding=True)
        for name, value in given.items():
            connection.putheader(name, value)
        if "content-length" not in names and (body or method in {"POST", "PUT", "PATCH"}):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Response(answer.status, fields, answer.read())
    finally:
        connection.close()


def post(
    port: int,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = 10,
) -> Response:
    """POST JSON; bytes and str go out as they are."""
    match body:
        case bytes():
            raw = body
        case str():
            raw = body.encode()
        case _:
            raw = json.dumps({} if body is None else body).encode()
    given = {"Content-Type": "application/json"} if headers is None else headers
    return request(port, "POST", path, body=raw, headers=given, timeout=timeout)


def get(
    port: int, path: str, headers: Mapping[str, str] | None = None, *, timeout: float = 10
) -> Response:
    """GET."""
    return request(port, "GET", path, headers=headers, timeout=timeout)


def raw(port: int, data: bytes, *, timeout: float = 5, half_close: bool = False) -> bytes:
    """Send bytes and return everything that comes until the other side closes.

    Silence for `timeout` seconds ends it too, with what came so far.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        received = bytearray()
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
        except (TimeoutError, ConnectionError):
            pass  # a refusal may arrive as a reset; what came before it counts
        return bytes(received)
