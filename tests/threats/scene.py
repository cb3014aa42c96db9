"""A victim and an attacker at one broker, and what the victim sees afterwards."""

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from support.clients import Client
from support.inproc import BOUND, Wire
from threats.requests import Attack


@dataclass(frozen=True, slots=True)
class Sight:
    """What a victim sees of itself: its row in the roster, and its unread mail."""

    summary: str | None
    mail: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back; a version of HTTP without status counts as a success."""

    status: int
    head: str
    body: str

    @property
    def told(self) -> dict[str, str]:
        return dict(json.loads(self.body))


UNHARMED = Sight("mine", ("hello",))


class Scene:
    """One process that has registered and has a message, and somebody else.

    Attributes:
        victim: the process.
        id: of the victim.
        token: of the attacker, who is a peer too.
    """

    def __init__(self, port: int, victim: Client) -> None:
        self.port = port
        self.victim = victim
        self.id = victim.register()["id"]
        sent = {"from_id": "friend", "to_id": self.id, "text": "hello"}
        assert victim.ask("/send-message", sent)[1]["ok"]
        with Wire(port) as wire:
            self.token = wire.ask("/register", {"summary": "mallory"})[1]["token"]

    def seen(self) -> Sight:
        """Return what the victim sees."""
        rows = [row for row in self.victim.ask("/list-peers", {})[1] if row["id"] == self.id]
        mail = self.victim.ask("/peek-messages", {"id": self.id})[1]["messages"]
        summary = rows[0]["summary"] if rows else None
        return Sight(summary, tuple(message["text"] for message in mail))

    def strike(self, attack: Attack) -> Answer:
        """Send an attack and return the answer."""
        sent = attack.sent(port=self.port, victim=self.id, pid=self.victim.pid, token=self.token)
        with socket.create_connection((attack.address, self.port), timeout=BOUND) as connection:
            connection.sendall(sent)
            return _read(connection)


@contextlib.contextmanager
def scene(port: int) -> Iterator[Scene]:
    """Set the scene at a broker."""
    with Client(port) as victim:
        yield Scene(port, victim)


def _read(connection: socket.socket) -> Answer:
    """Read one answer, however long the other side keeps the connection."""
    received = b""
    while not _is_whole(received) and (data := connection.recv(65536)):
        received += data
    if not received.startswith(b"HTTP/"):
        assert received, "the connection was closed without a word"
        return Answer(200, "", received.decode())
    head, _, body = received.decode().partition("\r\n\r\n")
    return Answer(int(head.split()[1]), head.lower(), body)


def _is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    lines = head.lower().split(b"\r\n")
    length = next((each for each in lines if each.startswith(b"content-length:")), b":0")
    return len(body) >= int(length.partition(b":")[2])
