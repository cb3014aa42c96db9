"""One session: an agent's requests in, results and pushes out, mail in between."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from claude_peers.client.client import PATIENCE, Client, never_sent
from claude_peers.core.errors import ClaudePeersError, NoBrokerError
from claude_peers.host import processes
from claude_peers.session import summary
from claude_peers.session.early import Early
from claude_peers.session.hooks import ClientHooks
from claude_peers.session.inbound import Inbound
from claude_peers.session.methods import Methods
from claude_peers.session.presence import Presence
from claude_peers.session.rpc import Dispatcher, oversized
from claude_peers.session.standing import Standing
from claude_peers.session.stdio import Input, Output
from claude_peers.settings import Settings
from claude_peers.tools import TOOLS
from claude_peers.tools.member import CALL, Member
from claude_peers.tools.registry import Shown, Tool
from claude_peers.wire.codec import dumps

log = logging.getLogger(__name__)

LOOKS, LOOK_EVERY = 10, 0.010
"""Looks at the agent's record, and seconds between them, until it tells its session for sure."""
FLUSH = 0.030
"""Seconds for the last answers to be written when the session ends."""
REPEATS = (1.0, 2.0, 5.0, 15.0, 30.0)
"""Seconds between the tries to tell a broker that cannot store it what became of mail."""


class Session:
    """Serves one agent over stdio.

    Args:
        settings: what the user decided.
        begin: called once when this is known to be a real session, not a health check.
        problem: why nothing can work; every tool then says so.

    Attributes:
        client: the way to the broker; whoever runs the node attaches it.
        ended: set when the agent has closed its end.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        begin: Callable[[], None],
        problem: ClaudePeersError | None = None,
    ) -> None:
        self.client = Client(self._registration)
        self.ended = asyncio.Event()
        self._settings = settings
        self._begin = begin
        self._problem = problem
        self._output: Output | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._member = Member(client=self.client, cwd=os.getcwd(), server_name=settings.server_name)
        self.methods = Methods(TOOLS, self._call, on_event=self._event, on_shown=self._shown)
        self._standing = Standing(
            settings, self._member, client=lambda: self.methods.client, report=self._report
        )
        self._inbound = Inbound(
            self._member, self._standing.ways, write=self._notify, report=self._report
        )
        self._hooks = ClientHooks(
            self._member,
            self._inbound,
            report=self._report,
            session=self._standing.session,
            mail=settings.push in ("auto", "hook"),
        )
        if settings.push != "off":
            self._member.hooks = self._hooks
        self.client.pushed = self._inbound.arrive
        self.client.settled = self._member.forget
        self.client.joined = self._standing.joined
        self.client.beat = self._beat
        self._presence = Presence(
            self._begun,
            client=lambda: str(self.methods.client.get("name", "")),
            matched=lambda: self._standing.agent.matched,
            command_lines=lambda: [
                processes.command_line(pid) for pid in processes.ancestors(os.getpid(), 2)
            ],
        )

    async def run(self, early: Early, wire: tuple[int, int]) -> None:
        """Serve until the agent closes its end.

        Args:
            early: what the first stage left.
            wire: the descriptors to read and write, from `session.stdio.take_over`.
        """
        fd_in, fd_out = wire
        self._output = output = Output(fd_out)
        if early.params is not None:
            self.methods.greet(early.params)
        face = self._face(output)
        lines = Input(
            fd_in,
            face.feed,
            ended=self.ended.set,
            oversized=lambda line: _done(output.write(dumps(oversized(line.request_id)))),
            paused=lambda: bool(face.paused),
            initial=early.rest,
        )
        self._resume = lines.resume
        lines.start()
        await self.ended.wait()
        lines.close()
        self._presence.stop()
        self._inbound.close()
        await face.close(FLUSH)
        await output.drain(FLUSH)

    def _face(self, output: Output) -> Any:
        if self._settings.face == "sdk":
            from claude_peers.session.sdk import Face

            face = Face(self.methods, write=output.write, resume=self._on_resume)
            self._in_background(self._serve_sdk(face))
            return face
        return Dispatcher(
            self.methods.requests,
            self.methods.notifications,
            write=output.write,
            batches=lambda: self.methods.batches,
            resume=self._on_resume,
        )

    async def _serve_sdk(self, face: Any) -> None:
        try:
            await face.serve()
        except ClaudePeersError as error:
            sys.stderr.write(f"claude-peers: {error}\n")
        finally:
            self.ended.set()  # without a face there is nothing left to do

    def _on_resume(self) -> None:
        self._resume()

    # Being there

    def _event(self, what: str) -> None:
        self._presence.event(what)

    def _begun(self) -> None:
        self._in_background(self._begin_as_known())
        if self._settings.summary != "off" and self._problem is None:
            if summary.asks_out(self._settings):
                # Nobody may read stderr any more; `doctor` tells the same.
                with contextlib.suppress(OSError):
                    sys.stderr.write(summary.ANNOUNCEMENT)
            self._in_background(self._summarise())

    async def _begin_as_known(self) -> None:
        """Begin once the agent's session is known for sure, or soon in any case."""
        for _ in range(LOOKS):
            if self._standing.look():
                break
            await asyncio.sleep(LOOK_EVERY)
        self._begin()

    def _beat(self) -> None:
        self._standing.beat()
        self._inbound.beat()

    def _registration(self) -> dict[str, Any]:
        return self._standing.registration()

    async def _summarise(self) -> None:
        await self.client.registered.wait()
        text = await summary.make(self._settings, self._member.cwd)
        if text and not self._member.summarised:
            await self._member.call("/set-summary", **self._member.me, summary=text)

    # Tools

    async def _call(self, tool: Tool, given: dict[str, Any], meta: dict[str, Any]) -> str | Shown:
        if not tool.listed:  # the client's own call: it is answered at once, whatever is wrong
            return await tool.run(self._member, **given)
        call = self._hooks.call(meta)
        CALL.set(call)
        if not call.sub_agent:
            self._hooks.went_on()
        self._inbound.acted()
        await self._ready()
        result = await tool.run(self._member, **given)
        if isinstance(result, Shown) or call.sub_agent:
            return result
        text, ids = self._inbound.piggyback()
        return Shown(result + text, ids, via="piggyback") if ids else result + text

    async def _ready(self) -> None:
        if self._problem is not None:
            raise self._problem
        if self.client.registered.is_set():
            return
        waiting = asyncio.ensure_future(self.client.registered.wait())
        try:
            for _ in range(round(PATIENCE / 0.25)):
                if self.client.problem is not None:
                    raise self.client.problem
                if (await asyncio.wait([waiting], timeout=0.25))[0]:
                    return
        finally:
            waiting.cancel()
        raise never_sent(PATIENCE)

    def _shown(self, shown: Shown, whole: bool) -> None:  # noqa: FBT001 - the callback's
        if shown.via == "hook":
            self._hooks.answered(shown, whole=whole)
        else:
            self._report(*self._member.shown(shown.message_ids, shown.via, whole=whole))

    def _notify(self, line: bytes, written: Callable[[bool], None]) -> None:
        if self._output is not None:
            self._output.write(line, written, droppable=True)

    def _report(self, operation: str, body: dict[str, Any]) -> None:
        self._in_background(self._tell(operation, body))

    async def _tell(self, operation: str, body: dict[str, Any]) -> None:
        """Tell the broker what became of mail, until it has stored that.

        Untold, it would offer the same text to the agent once more, and not know that it does.
        """
        for pause in REPEATS:
            try:
                await self.client.call(operation, body)
            except ClaudePeersError as error:
                if error.retry_after is None and not isinstance(error, NoBrokerError):
                    raise
                log.warning("%s is told again in %g s: %s", operation, pause, error)
                await asyncio.sleep(pause)
            else:
                return
        await self.client.call(operation, body)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("background work failed: %s", error)


def _done(_taken: bool) -> None:  # noqa: FBT001 - a result nobody needs
    return None
