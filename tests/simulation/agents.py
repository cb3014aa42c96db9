"""Simulated sessions: the real node, client and mailbox, and an agent that the seed lets act.

The agent's own program is modelled: it reads notifications, calls tools, and its answers are
written whole or not.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from simulation.book import Book, Letter
from simulation.world import World

from claude_peers.client.client import Client
from claude_peers.client.errors import RefusedError
from claude_peers.core import identity
from claude_peers.core.errors import ClaudePeersError
from claude_peers.node.node import Node
from claude_peers.session.inbound import Inbound
from claude_peers.session.routes.ways import Ways
from claude_peers.settings import Settings
from claude_peers.tools.member import Member
from claude_peers.tools.page import page
from claude_peers.tools.registry import Shown

PORT = 7899
TRIES = 12
"""Times an agent tries to send one message, each time under the same key."""


class Watched(Client):
    """A client that counts its connections, and may be told to send again in the wrong order."""

    connections = 0
    backwards = False

    async def attach(self, link: Any, secret: bytes) -> None:
        self.connections += 1
        if self.backwards:
            self._waiting = dict(reversed(self._waiting.items()))
        await super().attach(link, secret)


class Program:
    """A process that takes part in the election, with an agent or without."""

    def __init__(self, world: World, *, port: int = PORT) -> None:
        self.world = world
        self.process = world.start()
        self.port = port
        self.ended = False
        settings = Settings(
            port=port,
            database="/home/user/peers.db",
            mailbox_limit=0,
            rate_limit=0,
            environ={"CLAUDE_PEERS_PORT": str(port)},
        )
        self.node: Node | None = None
        self.process.spawn(self._run(settings))

    @property
    def alive(self) -> bool:
        return self.process.alive

    @property
    def leads(self) -> bool:
        return self.alive and self.node is not None and self.node.role == "leader"

    def client(self) -> Client | None:
        """Return what is attached to the broker."""
        return None

    def begin(self) -> None:
        """Start what the process does besides."""

    async def _run(self, settings: Settings) -> None:
        self.node = Node(settings, self.client())
        self.node.changed = lambda role: self.world.note(self.process.pid, role.value)
        self.begin()
        await self.node.run()

    async def end(self) -> None:
        """End as asked to: hand over, then exit."""
        if not self.ended and self.alive:
            self.ended = True
            self.world.note(self.process.pid, "SIGTERM")
            if self.node is not None:
                await self.node.stop()
            self.process.kill("exit")


class Session(Program):
    """A session of one agent, which outlives it."""

    def __init__(self, world: World, book: Book, name: str, names: list[str]) -> None:
        self.name = name
        self.channel = world.rng.random() < 0.6
        self.quiet = False
        self._sending = 0
        self._book = book
        self._others = [each for each in names if each != name]
        self._tasks: list[asyncio.Task[Any]] = []
        self._last_push = (0, 0)
        self._places: dict[str, int] = {}
        super().__init__(world)

    @property
    def attached(self) -> bool:
        """Whether it uses a broker."""
        return self.alive and self.node is not None and self._client.connected

    @property
    def known(self) -> bool:
        """Whether a broker has let it in once."""
        return self.node is not None and self._client.registered.is_set()

    @property
    def content(self) -> bool:
        """Whether it knows of no unread message, and waits for no answer."""
        return self.node is not None and not self.member.unread and not self._sending

    def client(self) -> Watched:
        pid = self.process.pid
        keys = [identity.key("resume", self.name)]
        body = {"pid": pid, "cwd": f"/{self.name}", "name": self.name, "keys": keys, "summary": ""}
        self._client = Watched(lambda: dict(body))
        self._client.backwards = self.world.mutation == "sent again backwards"
        return self._client

    def begin(self) -> None:
        client = self._client
        self.member = Member(client=client, cwd=f"/{self.name}", wall=self.world.wall)
        ways = Ways(channel=self.channel, courtesy=False)
        self.inbound = Inbound(self.member, ways, write=self._write, report=self._report)
        client.pushed, client.settled = self._pushed, self.member.forget
        client.beat = self.inbound.beat
        self._start(self._live())

    def _start(self, work: Any) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    def _report(self, operation: str, body: dict[str, Any]) -> None:
        self._start(self._tell(operation, body))

    async def _tell(self, operation: str, body: dict[str, Any]) -> None:
        try:
            await self._client.call(operation, body)
        except ClaudePeersError as error:
            self.world.note(self.process.pid, f"{operation} failed: {error.code}")
            self._book.untold(self.process.pid, body["message_ids"])

    # Reading

    def _pushed(self, message: dict[str, Any], sender: dict[str, Any] | None) -> None:
        now = (self._client.connections, message["id"])
        if now <= self._last_push:
            self.world.violated(f"{self.process.pid} was pushed {now} after {self._last_push}")
        self._last_push = now
        self.inbound.arrive(message, sender)

    def _write(self, line: bytes, written: Callable[[bool], None]) -> None:
        """Take a notification, unless the agent's end of the pipe is full."""
        whole = self.world.rng.random() < 0.95
        if whole:
            told = json.loads(line)["params"]
            meta = told["meta"]
            number = int(meta["message_id"])
            view = {"id": number, "text": told["content"], "redelivered": meta.get("redelivered")}
            self._book.show(self.name, self.process.pid, view, "pushed")
        written(whole)

    async def _check(self) -> None:
        """Call check_messages."""
        views = await self.member.take()
        shown = page(self.member, views, given=self.member.pushed)
        if isinstance(shown, Shown):
            self._shown(views, shown)

    def _shown(self, views: list[dict[str, Any]], shown: Shown) -> None:
        whole = self.world.rng.random() < 0.9
        for view in views:
            if whole and view["id"] in shown.message_ids:
                self._book.show(self.name, self.process.pid, view, "taken")
        self._report(*self.member.shown(shown.message_ids, shown.via, whole=whole))

    def _piggyback(self) -> None:
        items = dict(self.member.items)
        text, ids = self.inbound.piggyback()
        if ids:
            views = [items[number][0] for number in ids]
            self._shown(views, Shown(text, ids, via="piggyback"))

    # Acting

    async def _live(self) -> None:
        rng = self.world.rng
        await self._client.registered.wait()
        while True:
            await asyncio.sleep(rng.choice((0.02, 0.4, 1.5)) * rng.random())
            try:
                if self.quiet or rng.random() < 0.3:
                    await self._check()
                    await asyncio.sleep(0.25 if self.quiet else 0.0)
                else:
                    await self._send_some(rng.choice((1, 1, 1, 3)))
            except ClaudePeersError as error:
                self.world.note(self.process.pid, f"failed: {error.code}")

    async def _send_some(self, count: int) -> None:
        recipient = self.world.rng.choice(self._others)
        self._sending += 1
        await asyncio.gather(*(self._send(recipient) for _ in range(count)))
        self._sending -= 1
        self._piggyback()

    async def _send(self, recipient: str) -> None:
        """Send one message, and again until somebody has said yes, or it is given up."""
        place = self._places.get(recipient, 0)
        self._places[recipient] = place + 1
        text = f"{self.name}.{self.process.pid} to {recipient} {place}"
        letter = Letter(self.name, self.process.pid, recipient, place, begun=self.world.loop.now)
        self._book.letters[text] = letter
        key = self.world.rng.randbytes(8).hex()
        body = {"from_id": self._client.peer_id, "to_id": recipient, "text": text}
        for _ in range(1 if self.world.rng.random() < 0.2 else TRIES):
            letter.tries += 1
            letter.refused = False
            if await self._try(text, body | {"dedupe_key": key}):
                return
            await asyncio.sleep(0.3)

    async def _try(self, text: str, body: dict[str, Any]) -> bool:
        within = self.world.rng.choice((0.05, 2.0, 10.0))
        client = self._client
        began = client.connections
        try:
            answer = await client.call("/send-message", body, within=within)
            self._book.acknowledged(text, answer["message_id"])
            if self.world.rng.random() < 0.1:  # a client that repeats what was answered
                again = await client.call("/send-message", body)
                self._book.acknowledged(text, again["message_id"])
        except RefusedError as error:
            if client.connections != began:  # it went out more than once: one may have arrived
                self._book.unknown(text)
            self._book.refused(text, error.code)
        except ClaudePeersError:
            self._book.unknown(text)
        return self._book.letters[text].number is not None
