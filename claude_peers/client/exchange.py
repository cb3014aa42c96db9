"""One HTTP/1.1 connection to this machine: an exchange at a time, bounded in time and size."""

import contextlib
import socket
import time
from dataclasses import dataclass
from typing import Any, Final

import h11

from claude_peers.wire.codec import loads

ADDRESS: Final = "127.0.0.1"
"""Never a name: `localhost` may resolve to where somebody else listens."""

CHUNK: Final = 256 * 1024
"""Bytes that are read at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's value, or its text where another type is declared.

        Raises:
            BadRequestError: it is declared as JSON and is none.
        """
        if self.headers.get("content-type", "").lower().startswith("application/json"):
            return loads(self.body)
        return self.body.decode("utf-8", "replace")


class TooLargeError(OSError):
    """An answer goes on beyond what was asked for."""


class Link:
    """One connection, made on construction; whatever goes wrong is an `OSError` or h11's.

    Raises:
        OSError: the connection or an exchange failed; `TimeoutError` once its deadline is over.
        h11.RemoteProtocolError: what answers does not speak HTTP.
    """

    def __init__(self, port: int, *, deadline: float) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._whole = True
        self._socket = self._dial(port, deadline)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def idle(self) -> bool:
        """Whether another exchange can start: the last one ended well and nothing came since."""
        try:
            self._socket.setblocking(False)  # noqa: FBT003 - the socket module's own
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return self._whole
        except OSError:
            return False
        return False

    def exchange(self, request: h11.Request, body: bytes, *, deadline: float, most: int) -> Answer:
        """Send one request and return its answer, whose body may have `most` bytes."""
        self._whole = False
        self._send(request, body, deadline=deadline)
        answer = self._receive(deadline, most)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._whole = not self._pending()
        return answer

    def signed(self, method: str, path: str, body: bytes) -> dict[str, str]:
        """Return the headers that a request needs here because of whose it is: none."""
        del method, path, body
        return {}

    def _dial(self, port: int, deadline: float) -> socket.socket:
        dialled = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            dialled.settimeout(left(deadline))
            dialled.connect((ADDRESS, port))
            _check_other(dialled, port)
        except BaseException:
            dialled.close()
            raise
        return dialled

    def _put(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _take(self, deadline: float) -> bytes:
        self._socket.settimeout(left(deadline))
        return self._socket.recv(CHUNK)

    def _send(self, request: h11.Request, body: bytes, *, deadline: float) -> None:
        events = (request, h11.Data(data=body), h11.EndOfMessage())
        parts = [self._http.send(event) or b"" for event in events]
        self._socket.settimeout(left(deadline))
        # Refused before it was all read: the reason is waiting, or reading fails likewise.
        with contextlib.suppress(ConnectionError):
            self._put(b"".join(parts))

    def _receive(self, deadline: float, most: int) -> Answer:
        head: h11.Response | None = None
        body = bytearray()
        while True:
            match self._next_event(deadline, begun=head is not None):
                case h11.Response() as head:
                    pass
                case h11.Data(data=data):
                    body += data
                    if len(body) > most:
                        raise TooLargeError
                case h11.EndOfMessage() if head is not None:
                    headers = {
                        name.decode(): value.decode("latin-1") for name, value in head.headers
                    }
                    return Answer(status=head.status_code, headers=headers, body=bytes(body))
                case _:  # an interim answer
                    pass

    def _next_event(self, deadline: float, *, begun: bool) -> Any:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if begun:
                    raise ConnectionAbortedError from error
                raise
            if event is not h11.NEED_DATA:
                return event
            data = self._take(deadline)
            if not (data or begun or self._pending()):
                raise ConnectionAbortedError
            self._http.receive_data(data)

    def _pending(self) -> bool:
        return bool(self._http.trailing_data[0])


def _check_other(dialled: socket.socket, port: int) -> None:
    if dialled.getsockname() == (ADDRESS, port):
        # TCP lets a socket connect to itself when its own port is the one it dials.
        raise ConnectionRefusedError


def left(deadline: float) -> float:
    """Return the seconds until a deadline (monotonic).

    Raises:
        TimeoutError: there are none.
    """
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
