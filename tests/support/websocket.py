"""WebSocket clients: agentmesh's conversation over another implementation, and single frames."""

import base64
import json
import os
import struct
from typing import Any, Self

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from support.inproc import BOUND, Wire, head


class Agent:
    """A client of agentmesh 0.4, over the `websockets` library.

    Attributes:
        id, token: who it is, once it is connected.
    """

    def __init__(self, port: int, path: str = "/ws", **options: Any) -> None:
        self._opening = connect(
            f"ws://127.0.0.1:{port}{path}", open_timeout=BOUND, close_timeout=BOUND, **options
        )
        self.socket = self._opening.__enter__()
        self.id = self.token = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opening.__exit__(None, None, None)

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def read(self) -> dict[str, Any]:
        """Return the next frame."""
        return dict(json.loads(self.socket.recv(timeout=BOUND)))

    def join(self, *, lwt: Any = None, **registration: Any) -> str:
        """Connect as somebody new; return the id."""
        will = {} if lwt is None else {"lwt": lwt}
        self.send("CONNECT", registration={"agent_type": "custom", **registration}, **will)
        return self._connected()

    def come_back(self, agent_id: str, token: str, **fields: Any) -> str:
        """Connect as somebody known."""
        self.send("CONNECT", agent_id=agent_id, token=token, **fields)
        return self._connected()

    def _connected(self) -> str:
        told = self.read()
        assert told["type"] == "CONNECTED", told
        self.id, self.token = told["agent_id"], told["token"]
        return self.id

    def message(self) -> dict[str, Any]:
        """Return the next message; nothing else may come before."""
        told = self.read()
        assert told["type"] == "MESSAGE", told
        return dict(told["message"])

    def acknowledge(self, *ids: int) -> None:
        for number in ids:
            self.send("ACK", message_id=number)

    def answered(self) -> None:
        """Return once everything sent before was served."""
        self.send("PING")
        while (told := self.read())["type"] != "PONG":
            raise AssertionError(told)

    def closed(self) -> tuple[int, str]:
        """Return code and reason once the broker has closed it."""
        with pytest.raises(ConnectionClosed) as closed:
            self.socket.recv(timeout=BOUND)
        told = closed.value.rcvd
        assert told is not None, "closed without a word"
        return told.code, told.reason

    def cut(self) -> None:
        """End the connection without a word."""
        self.socket.socket.shutdown(2)
        self.socket.close()


def upgrade(port: int, path: str = "/ws", **headers: str) -> bytes:
    """Return the request for a WebSocket; an empty header is left out."""
    given = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": base64.b64encode(b"k" * 16).decode(),
        **headers,
    }
    return head(port, "GET", path, **given)


def frame(
    payload: bytes, opcode: int = 1, *, final: bool = True, masked: bool = True, length: int = -1
) -> bytes:
    """Return one frame; `length` may tell another length than that of the payload."""
    told = len(payload) if length < 0 else length
    start = bytes([(0x80 if final else 0) | opcode])
    bit = 0x80 if masked else 0
    if told < 126:
        size = bytes([bit | told])
    elif told < 65536:
        size = struct.pack("!BH", bit | 126, told)
    else:
        size = struct.pack("!BQ", bit | 127, told)
    if not masked:
        return start + size + payload
    key = os.urandom(4)
    return start + size + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


class RawSocket(Wire):
    """A WebSocket byte by byte."""

    def open(self, path: str = "/ws") -> None:
        self.send(upgrade(self.port, path))
        status, headers, _ = self.answer(bare=True)
        assert status == 101, headers

    def frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the broker's next frame."""
        first, second = self._take(2)
        assert first & 0x80 and not second & 0x80  # whole, and not masked
        length = second
        if second == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif second == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return first & 0x0F, self._take(length)

    def text(self) -> dict[str, Any]:
        """Return the broker's next text frame."""
        opcode, payload = self.frame()
        assert opcode == 1, (opcode, payload)
        return dict(json.loads(payload))

    def closed(self) -> int:
        """Return the code of the broker's close frame."""
        opcode, payload = self.frame()
        assert opcode == 8, (opcode, payload)
        return int(struct.unpack("!H", payload[:2])[0])

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found
