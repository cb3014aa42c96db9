"""A session's delivery side in this process, with a clock and routes that a test moves."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from claude_peers.session import repeats
from claude_peers.session.hooks import ClientHooks
from claude_peers.session.inbound import Inbound
from claude_peers.session.routes.ways import Ways
from claude_peers.tools.member import Member
from claude_peers.tools.registry import Shown

NOW = 1_000_000.0


class Timer:
    """What `call_later` returns."""

    def __init__(self, due: float, call: Callable[[], object]) -> None:
        self.due = due
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """A loop's timers and the wall clock, which go on when a test says so."""

    def __init__(self) -> None:
        self.now = NOW
        self._timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[..., object], *given: Any) -> Timer:
        timer = Timer(self.now + delay, lambda: call(*given))
        self._timers.append(timer)
        return timer

    async def go_on(self, seconds: float) -> None:
        """Let time pass, and whatever is due then come to its end."""
        end = self.now + seconds
        while due := [each for each in self._timers if each.due <= end and not each.cancelled]:
            timer = min(due, key=lambda each: each.due)
            self._timers.remove(timer)
            self.now = max(self.now, timer.due)
            timer.call()
            await settle()
        self.now = end


class Route:
    """A route that takes what it is given, or does not.

    Attributes:
        texts: what was pushed.
        takes: whether a push succeeds.
        gate: while it is closed, a push is on its way.
    """

    def __init__(self, name: str = "rewake") -> None:
        self.name = name
        self.available = self.takes = True
        self.texts: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def push(self, text: str) -> bool:
        await self.gate.wait()
        if self.takes:
            self.texts.append(text)
        return self.takes

    def close(self) -> None:
        self.available = False

    @property
    def marks(self) -> list[str]:
        """The marks of all pushes, a line each."""
        lines = "\n".join(self.texts).splitlines()
        return [line for line in lines if line.startswith("[receipt ")]


class Doing:
    """What the agent does, as its record would tell."""

    def __init__(self, state: str = "", since: float | None = None) -> None:
        self.state = state
        self.since = since

    @property
    def idle_since(self) -> float | None:
        return self.since if self.state == "idle" else None


class Broker:
    """Takes note of what a session tells its broker."""

    peer_id = "me000000"
    name = "me"
    secondary = False

    def __init__(self) -> None:
        self.told: list[tuple[str, list[int], str]] = []

    def report(self, operation: str, body: dict[str, Any]) -> None:
        self.told.append((operation, body["message_ids"], body["via"]))

    def ids(self, operation: str) -> list[int]:
        """Return the messages that an operation was told about."""
        return [number for path, ids, _ in self.told if path == operation for number in ids]


class Rig:
    """One session's mailbox and what passes its mail on.

    Attributes:
        lines: the notifications that were written to the client.
        writes: whether a line that is written arrives; None leaves it under way.
    """

    def __init__(self, *routes: Route, mail: bool = True, **ways: Any) -> None:
        self.broker = Broker()
        self.member = Member(client=self.broker, cwd="/p")  # type: ignore[arg-type]  # it only takes notes
        self.ways = Ways(routes=list(routes), **ways)
        self.lines: list[dict[str, Any]] = []
        self.writes: bool | None = True
        self.sessions: list[str] = []
        self.inbound = Inbound(self.member, self.ways, write=self._write, report=self.broker.report)
        self.hooks = ClientHooks(
            self.member,
            self.inbound,
            report=self.broker.report,
            session=self.sessions.append,
            mail=mail,
        )
        self._count = 0
        self._elsewhere: set[int] = set()
        self._dies_at: dict[int, float] = {}

    @property
    def missing(self) -> set[int]:
        """Messages that came and are neither unread, acknowledged, read elsewhere nor expired."""
        known = self.member.unread | self._elsewhere | set(self.broker.ids("/ack-messages"))
        dead = {number for number, at in self._dies_at.items() if at <= self.member.wall()}
        return set(range(1, self._count + 1)) - known - dead

    def read_elsewhere(self, *ids: int) -> None:
        """Let another call or server show messages, which tells the broker itself."""
        self._elsewhere.update(ids)
        self.member.forget(ids)

    async def arrive(self, *texts: str, **more: Any) -> list[int]:
        """Let messages come, and whatever follows from it happen."""
        ids = []
        for text in texts:
            self._count += 1
            self.inbound.arrive(view(self._count, text, **more), {"name": "ann"})
            ids.append(self._count)
            if "expires_at" in more:
                self._dies_at[self._count] = more["expires_at"]
        await settle()
        return ids

    async def hook(self, event: str, **given: str) -> Shown:
        """Call a hook; nobody has said yet what became of its answer."""
        fields = {"session_id": "", "agent_id": "", "tool_use_id": "", "prompt": "", **given}
        text, ids = await self.hooks.told(event=event, **fields)
        self.member.in_hand.update(ids)
        return Shown(text, ids, via="hook")

    async def answered(self, event: str, **given: str) -> str:
        """Call a hook whose answer the client gets; return what it put into the context."""
        shown = await self.hook(event, **given)
        self.hooks.answered(shown, whole=True)
        return context(shown)

    def _write(self, line: bytes, written: Callable[[bool], None]) -> None:
        if self.writes is not False:
            self.lines.append(json.loads(line)["params"])
        if self.writes is not None:
            written(self.writes)


def view(number: int, text: str, **more: Any) -> dict[str, Any]:
    """Return a message as a broker pushes it."""
    told = {"uid": f"u{number}", "from_id": "abcd1234", "to_id": "me000000", "verified": True}
    return {"id": number, **told, "sent_at": "2026-01-01T00:00:00.000Z", "text": text, **more}


def context(shown: Shown) -> str:
    """Return what a hook's answer puts into the agent's context, "" if nothing."""
    told = json.loads(shown.text)
    return str(told["hookSpecificOutput"]["additionalContext"]) if told else ""


async def settle() -> None:
    """Let what has been started in the background run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def stop_time(monkeypatch: Any) -> Clock:
    """Let the running loop's timers, and the clock of pushes, follow a clock of the test's."""
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", clock.call_later)
    monkeypatch.setattr(repeats, "time", clock)
    return clock
