"""One session: an agent's requests in, results and pushes out, mail in between."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from claude_peers.client.client import PATIENCE, Client
from claude_peers.core.errors import ClaudePeersError, NoBrokerError
from claude_peers.host import git, processes
from claude_peers.session import agent as agents
from claude_peers.session import summary
from claude_peers.session.early import Early
from claude_peers.session.methods import Methods
from claude_peers.session.presence import Presence
from claude_peers.session.rpc import Dispatcher, oversized
from claude_peers.session.stdio import Input, Output
from claude_peers.settings import Settings
from claude_peers.tools import TOOLS
from claude_peers.tools.member import Member
from claude_peers.tools.registry import Shown, Tool
from claude_peers.wire import channel
from claude_peers.wire.codec import dumps

log = logging.getLogger(__name__)

FLUSH = 0.030
"""Seconds for the last answers to be written when the session ends."""


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
        self.client.pushed = self._pushed
        self.ended = asyncio.Event()
        self._settings = settings
        self._begin = begin
        self._problem = problem
        self._cwd = os.getcwd()
        self._agent: agents.Agent | None = None
        self._proven = False
        self._member = Member(client=self.client, cwd=self._cwd, server_name=settings.server_name)
        self._tasks: set[asyncio.Task[None]] = set()
        self.methods = Methods(TOOLS, self._call, on_event=self._event, on_shown=self._shown)
        self._presence = Presence(
            self._begun,
            client=lambda: str(self.methods.client.get("name", "")),
            matched=lambda: self._find_agent().matched,
            command_lines=lambda: [
                processes.command_line(pid) for pid in processes.ancestors(os.getpid(), 2)
            ],
        )
        self._output: Output | None = None

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
            oversized=lambda: _done(output.write(dumps(oversized()))),
            paused=lambda: bool(face.paused),
            initial=early.rest,
        )
        self._resume = lines.resume
        lines.start()
        await self.ended.wait()
        lines.close()
        self._presence.stop()
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
        self._find_agent()
        self._begin()
        if self._settings.summary != "off" and self._problem is None:
            if summary.asks_out(self._settings):
                sys.stderr.write(summary.ANNOUNCEMENT)
            self._in_background(self._summarise())

    def _find_agent(self) -> agents.Agent:
        if self._agent is None or not self._agent.matched:
            self._agent = agents.find(self.methods.client, self._settings.environ)
        return self._agent

    def _registration(self) -> dict[str, Any]:
        """Return the body of `/register` (`client.client` adds token and proof)."""
        agent = self._find_agent()
        repository = git.inspect(self._cwd)
        self._proven = self._settings.push == "channel" or (
            self._settings.push == "auto"
            and agents.channel_proven(agent, self._settings.server_name, self._settings.environ)
        )
        member = self._member
        member.git_root = repository.root if repository else None
        member.repo = repository.common_dir if repository else None
        member.route = "channel" if self._proven else ""
        return {
            "pid": os.getpid(),
            "cwd": self._cwd,
            "git_root": member.git_root,
            "repo": member.repo,
            "tty": processes.terminal(os.getpid()),
            "summary": "",
            "name": self.client.name or self._settings.name or summary.default_name(self._cwd),
            "client": agent.client,
            "route": member.route,
            "keys": agents.keys(agent, self._cwd),
        }

    async def _summarise(self) -> None:
        await self.client.registered.wait()
        text = await summary.make(self._settings, self._cwd)
        if text and not self._member.summarised:
            await self._member.call("/set-summary", **self._member.me, summary=text)

    # Tools

    async def _call(self, tool: Tool, given: dict[str, Any], meta: dict[str, Any]) -> str | Shown:
        del meta  # the client's own id of the call; needed once hooks mark sub-agents
        await self._ready()
        result = await tool.run(self._member, **given)
        if isinstance(result, Shown):
            return result
        return result + self._unread_line()

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
        raise NoBrokerError(
            f"No broker could be reached within {PATIENCE:g} s",
            "Try again; `claude-peers status` tells what is on the port.",
        )

    def _unread_line(self) -> str:
        count = len(self._member.unread - self._member.in_hand)
        if not count:
            return ""
        return f"\n\n{count} unread message(s) from other agents: call check_messages."

    def _shown(self, ids: tuple[int, ...], whole: bool) -> None:  # noqa: FBT001 - the callback's
        operation, body = self._member.shown(ids, whole=whole)
        self._in_background(self._report(operation, body))

    # Pushes

    def _pushed(self, message: dict[str, Any], sender: dict[str, Any] | None) -> None:
        """Pass a message on: over a proven route, or as a courtesy that counts for nothing."""
        if not self._member.first_time(message["uid"]):
            return
        number = message["id"]
        self._member.unread.add(number)
        if self._settings.push == "off" or self._output is None:
            return
        line = dumps(channel.notification(message, sender))
        self._output.write(line, lambda whole: self._written(number, whole), droppable=True)

    def _written(self, number: int, whole: bool) -> None:  # noqa: FBT001 - the callback's
        if whole and self._proven:
            self._member.pushed.add(number)
            body = {**self._member.me, "message_ids": [number]}
            self._in_background(self._report("/pushed-messages", body))

    async def _report(self, operation: str, body: dict[str, Any]) -> None:
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
