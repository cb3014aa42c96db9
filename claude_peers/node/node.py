"""One running node: it reaches a broker or becomes one, and starts over when it breaks.

Theory of operation: the loop in `run` knows one thing, the connection to the broker. Whether
that broker lives in another process or in this one makes no difference to it: a leader's own
session talks to it like everybody else's. When the connection ends, the named standby campaigns
at once; everybody else tries to reconnect, and campaigns only if nobody answers for a while.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from claude_peers.client.client import Client
from claude_peers.client.link import Link, LiveLink
from claude_peers.core import election
from claude_peers.core.election import Event, Role
from claude_peers.core.errors import ClaudePeersError, StoreError
from claude_peers.host import files, leading, processes
from claude_peers.node import place
from claude_peers.node.port import Port
from claude_peers.settings import Settings
from claude_peers.wire import frames

if TYPE_CHECKING:
    from claude_peers.node.abroad import Abroad
    from claude_peers.node.leader import Office

log = logging.getLogger(__name__)

STRANGER_EVERY = 1.0
"""Seconds between two looks at a port that somebody else holds, or a database that fails."""
AFTER_OFFICE = 1.0
"""Seconds a node that led leaves the lead to others."""


class Node:
    """Takes part in the election for one process.

    Args:
        settings: what the user decided.
        client: the session's client; None for a node without an agent.

    Attributes:
        role: what the node is doing.
        changed: told each role.
        problem: why it has no broker, if it has none.
        troubled: told each new problem.
    """

    def __init__(self, settings: Settings, client: Client | None = None) -> None:
        self.role = Role.CANDIDATE
        self.port = _port(settings)
        self.changed: Callable[[Role], None] = lambda _role: None
        self.troubled: Callable[[ClaudePeersError], None] = lambda _error: None
        self.problem: ClaudePeersError | None = None
        self._settings = settings
        self._client = client
        self._secret = b""
        self._office: Office | None = None
        self._link: Link | None = None
        self._stopping = asyncio.Event()
        self._standby = False
        self._campaign_at = 0.0
        self._loading: asyncio.Future[type[Office]] | None = None

    async def run(self) -> None:
        """Take part until `stop` is called."""
        attempt = 0
        while not self._stopping.is_set():
            pause = election.reconnect_delay(attempt)
            attempt += 1
            try:
                if await self._turn():
                    attempt = 0
                    continue
            except ClaudePeersError as error:
                self._cannot(error)
                pause = STRANGER_EVERY
            except OSError as error:
                log.debug("the broker did not answer: %s", error)
            except Exception:
                # A node that ended here would leave its session without mail, and without a word.
                log.exception("starting over")
                pause = STRANGER_EVERY
            await self._pause(pause)

    async def stop(self) -> None:
        """Leave the election; a leader hands over first."""
        self._stopping.set()
        if self._office is not None:
            await self._office.give_up()
        if self._link is not None:
            self._link.close()
        self.role = election.after(self.role, Event.STOP)
        self.changed(self.role)

    async def _turn(self) -> bool:
        """Follow whoever leads, for as long as it does, else campaign; False if nothing worked."""
        if not self._secret:
            self._secret = self.port.prepare()
        if self._office is not None and self._office.ended.done():
            await self._leave_office(self._office)
        link = await self.port.reach(self._secret)
        if self._stopping.is_set():
            if link is not None:
                link.close()
        elif link is not None:
            await self._follow(link)
            jitter = os.urandom(1)[0] / 256
            delay = election.campaign_delay(standby=self._standby, jitter=jitter)
            self._campaign_at = max(self._campaign_at, _now() + delay)
            if not self._standby:
                await self._let_others_go_first(jitter)
            return True
        elif self._office is None and _now() >= self._campaign_at:
            return await self._campaign()
        return False

    # Reaching a broker

    async def _follow(self, link: Link) -> None:
        """Use a broker until the connection to it ends."""
        self._link = link
        self._explain(None)
        self._standby = False
        if isinstance(link, LiveLink):
            link.on_standby = self._prepare_to_lead
        try:
            if self._client is not None:
                await self._client.attach(link, self._secret)
            else:
                link.send(0, "/watch", {"pid": os.getpid()})
            if self._office is None:
                self._become(Event.BROKER_ANSWERED)
            await self._until_it_ends(link)
        finally:
            if self._client is not None:
                self._client.detach()
            link.close()
            self._link = None
            if self.role is Role.FOLLOWER:
                self._become(Event.BROKER_LOST)

    async def _until_it_ends(self, link: Link) -> None:
        ended = asyncio.ensure_future(link.ended())
        waiting = {ended}
        office = self._office
        if office is not None:
            waiting.add(asyncio.ensure_future(_office_ended(office)))
        silence = frames.SILENCE
        try:
            while not self._stopping.is_set():
                done, _ = await asyncio.wait(
                    waiting, timeout=silence, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    break
                silence = self._look_at(link)
        finally:
            for task in waiting:
                task.cancel()
        if office is not None and office is self._office and office.ended.done():
            await self._leave_office(office)

    def _look_at(self, link: Link) -> float:
        """Wake a stopped leader; return the seconds until the next look."""
        if self._office is not None or not isinstance(link, LiveLink):
            return 10 * frames.SILENCE
        quiet = _now() - link.heard
        if quiet < frames.SILENCE:
            # Not less than a timer can tell apart: looking again at the same instant is no wait.
            return max(frames.SILENCE - quiet, 0.001)
        if link.leader is not None and processes.is_stopped(link.leader.pid):
            log.warning("the leader (pid %d) is stopped: waking it", link.leader.pid)
            processes.revive(link.leader)
        elif quiet > 3 * frames.SILENCE:
            link.give_up()
        return frames.SILENCE

    async def _let_others_go_first(self, jitter: float) -> None:
        """Wait a little, but no longer than until the agent wants something of the broker."""
        ready = [self._stopping] if self._client is None else [self._stopping, self._client.wanting]
        waiting = [asyncio.ensure_future(each.wait()) for each in ready]
        await asyncio.wait(
            waiting,
            timeout=election.first_look_delay(jitter),
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in waiting:
            task.cancel()

    # Leading

    def _prepare_to_lead(self) -> None:
        """Load what a leader needs while there is time."""
        self._standby = True
        # On a thread: loading takes longer than an agent should wait for an answer.
        self._loading = asyncio.ensure_future(asyncio.to_thread(_leader_module))

    async def _office_type(self) -> "type[Office]":
        """Load what a leader needs, or wait until `_prepare_to_lead` has."""
        loading, self._loading = self._loading, None
        # An import beside that thread's would block this loop, and with it every signal.
        return _leader_module() if loading is None else await loading

    async def _campaign(self) -> bool:
        folder = self._settings.state_folder
        if self._settings.broker_url or leading.is_held_back(folder, now=time.time()):
            return False
        if files.is_locked(os.path.join(folder, leading.LOCK)):
            await self._look_elsewhere()
            return False
        office_type = await self._office_type()
        office = office_type(self._settings, port=self.port.number, secret=self._secret)
        office.troubled = self.troubled
        if self._stopping.is_set() or not await office.take():
            return False
        if self._stopping.is_set():
            await office.give_up()
            return False
        self._office = office
        self._explain(None)
        self._become(Event.LOCK_AND_PORT_WON)
        return True

    async def _look_elsewhere(self) -> None:
        """Say so if whoever leads serves on another port; else it will answer in a moment."""
        port = leading.elsewhere(self._settings.state_folder, self.port.number)
        if port is not None:
            raise await asyncio.to_thread(leading.in_use, self._settings.database_path, port)

    async def _leave_office(self, office: "Office") -> None:
        why = office.ended.result()
        log.warning("leading no longer: %s", why)
        if office.hold:
            leading.hold_back(self._settings.state_folder, office.hold, now=time.time())
        await office.give_up(why)
        self._office = None
        self._become(Event.SUCCEEDED)
        # Somebody else should lead now; if nobody does, this node will again.
        self._campaign_at = _now() + AFTER_OFFICE

    # State

    def _become(self, event: Event) -> None:
        if self._stopping.is_set():  # what is still learned on the way out changes nothing
            return
        self.role = election.after(self.role, event)
        self.changed(self.role)

    def _cannot(self, error: ClaudePeersError) -> None:
        if isinstance(error, StoreError):
            error = place.explained(error, self._settings)
        known = self.problem
        self._explain(error)
        self._secret = b""  # read again: somebody may have put right what was wrong
        if known is None or str(known) != str(error):
            log.warning("no broker: %s", error)
            self.troubled(error)

    def _explain(self, problem: ClaudePeersError | None) -> None:
        """Let callers wait for a broker, or tell them why there is none."""
        self.problem = problem
        if self._client is not None:
            self._client.problem = problem

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass


def _port(settings: Settings) -> "Port | Abroad":
    if settings.remote is None:
        return Port(settings)
    from claude_peers.node.abroad import Abroad

    return Abroad(settings, settings.remote)


async def _office_ended(office: "Office") -> None:
    await asyncio.shield(office.ended)


def _leader_module() -> "type[Office]":
    from claude_peers.node.leader import Office

    return Office


def _now() -> float:
    return time.monotonic()
