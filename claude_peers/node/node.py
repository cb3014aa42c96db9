"""One running node: it reaches a broker or becomes one, and starts over when it breaks.

Theory of operation: the loop in `run` knows one thing, the connection to the broker. Whether
that broker lives in another process or in this one makes no difference to it: a leader's own
session talks to it like everybody else's. When the connection ends, the named standby campaigns
at once; everybody else tries to reconnect, and campaigns only if nobody answers for a while.
"""

import asyncio
import logging
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from claude_peers.client.client import Client
from claude_peers.client.link import Link, LiveLink, NotOursError, connect
from claude_peers.core import election
from claude_peers.core.election import Event, Role
from claude_peers.core.errors import ClaudePeersError, NoBrokerError
from claude_peers.host import files, processes, sockets
from claude_peers.settings import Settings
from claude_peers.wire import frames

if TYPE_CHECKING:
    from claude_peers.node.leader import Office

log = logging.getLogger(__name__)

STRANGER_EVERY = 1.0
"""Seconds between two looks at a port that somebody else holds, or a database that fails."""
OTHER_PORTS = 200
"""A second user of a machine gets 7899 + 1 + uid modulo so many."""


class Node:
    """Takes part in the election for one process.

    Args:
        settings: what the user decided.
        client: the session's client; None for a node without an agent.

    Attributes:
        role: what the node is doing.
        problem: why it has no broker, if it has none.
    """

    def __init__(self, settings: Settings, client: Client | None = None) -> None:
        self.role = Role.CANDIDATE
        self.port = settings.broker_port
        self.changed: Callable[[Role], None] = lambda _role: None
        self.problem: ClaudePeersError | None = None
        self._settings = settings
        self._client = client
        self._secret = b""
        self._office: Office | None = None
        self._link: Link | None = None
        self._stopping = asyncio.Event()
        self._standby = False
        self._holdback = 0.0
        self._loading: asyncio.Future[type[Office]] | None = None

    async def run(self) -> None:
        """Take part until `stop` is called."""
        attempt = 0
        campaign_at = 0.0
        loop = asyncio.get_running_loop()
        self._prepare()
        while not self._stopping.is_set():
            pause = election.reconnect_delay(attempt)
            attempt += 1
            try:
                link = await self._reach()
                if link is not None:
                    await self._follow(link)
                    attempt, jitter = 0, random.random()  # noqa: S311 - spreads attempts, no secret
                    delay = election.campaign_delay(standby=self._standby, jitter=jitter)
                    campaign_at = max(loop.time() + delay, self._holdback)
                    continue
                if loop.time() >= campaign_at and await self._campaign():
                    continue
            except ClaudePeersError as error:
                self._cannot(error)
                pause = STRANGER_EVERY
            except (OSError, TimeoutError) as error:
                log.debug("the broker did not answer: %s", error)
            await self._pause(pause)

    async def stop(self) -> None:
        """Leave the election; a leader hands over first."""
        self._stopping.set()
        office, self._office = self._office, None
        if office is not None:
            await office.give_up()
        if self._link is not None:
            self._link.close()
        self._become(Event.STOP)

    # Reaching a broker

    def _prepare(self) -> None:
        try:
            files.private_folder(self._settings.state_folder)
            self._secret = files.secret(self._settings.state_folder)
        except ClaudePeersError as error:
            self._cannot(error)
        except OSError as error:
            self._cannot(
                NoBrokerError(
                    f"The folder {self._settings.state_folder} cannot be used: {error.strerror}",
                    "Make it yours and writable, or choose another with CLAUDE_PEERS_DB.",
                )
            )

    async def _reach(self) -> Link | None:
        """Return a connection to the broker, or None if nobody listens."""
        if not self._secret:
            self._prepare()
            if not self._secret:
                raise self.problem or NoBrokerError("There is no secret", "Look at the log.")
        try:
            return await connect(self.port, self._secret)
        except ConnectionRefusedError:
            return None
        except NotOursError as error:
            return await self._reach_other(error)

    async def _reach_other(self, error: NotOursError) -> Link:
        """Deal with a listener that is no broker of ours: upstream's, or a stranger."""
        from claude_peers.client.http import BrokerHttp
        from claude_peers.client.upstream import UpstreamLink

        uid = sockets.listener_uid(self.port)
        if uid is not None and uid != processes.user_id() and self.port == 7899:  # noqa: PLR2004 - the default, so nobody chose it
            self.port += 1 + processes.user_id() % OTHER_PORTS
            files.write_private(
                os.path.join(self._settings.state_folder, "port"), b"%d" % self.port
            )
            raise error
        http = BrokerHttp(
            self.port,
            secret=None,
            trust_listener=self._settings.trust_listener,
            listener_uid=sockets.listener_uid,
            own_uid=processes.user_id(),
        )
        await asyncio.to_thread(http.open)
        return UpstreamLink(http)

    async def _follow(self, link: Link) -> None:
        """Use a broker until the connection to it ends."""
        self._link = link
        self._standby = False
        if isinstance(link, LiveLink):
            link.on_standby = self._prepare_to_lead
        try:
            if self._client is not None:
                await self._client.attach(link, self._secret)
            else:
                link.send(0, "/watch", {"pid": os.getpid()})
            self.problem = None
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
        quiet = asyncio.get_running_loop().time() - link.heard
        if quiet < frames.SILENCE:
            return frames.SILENCE - quiet
        if link.leader is not None and processes.is_stopped(link.leader.pid):
            log.warning("the leader (pid %d) is stopped: waking it", link.leader.pid)
            processes.revive(link.leader)
        elif quiet > 3 * frames.SILENCE:
            link.close()
        return frames.SILENCE

    # Leading

    def _prepare_to_lead(self) -> None:
        """Load what a leader needs while there is time."""
        self._standby = True
        # On a thread: loading takes longer than an agent should wait for an answer.
        self._loading = asyncio.ensure_future(asyncio.to_thread(_leader_module))

    async def _campaign(self) -> bool:
        if self._settings.broker_url or self._held_back():
            return False
        if files.is_locked(os.path.join(self._settings.state_folder, "broker.lock")):
            return False
        office = _leader_module()(self._settings, port=self.port, secret=self._secret)
        if not await office.take():
            return False
        if self._stopping.is_set():
            await office.give_up()
            return False
        self._office = office
        self._become(Event.LOCK_AND_PORT_WON)
        return True

    async def _leave_office(self, office: "Office") -> None:
        why = office.ended.result()
        log.info("leading no longer: %s", why)
        if office.hold:
            self._hold_everybody(office.hold)
        self._office = None
        self._become(Event.SUCCEEDED)
        await office.give_up(why)
        # Somebody else should lead now; if nobody does, this node will again.
        self._holdback = asyncio.get_running_loop().time() + 1.0

    def _hold_everybody(self, seconds: float) -> None:
        until = f"{_wall() + seconds:.3f}".encode()
        files.write_private(os.path.join(self._settings.state_folder, "hold"), until)

    def _held_back(self) -> bool:
        held = files.read_private(os.path.join(self._settings.state_folder, "hold"))
        try:
            return held is not None and float(held) > _wall()
        except ValueError:
            return False

    # State

    def _become(self, event: Event) -> None:
        self.role = election.after(self.role, event)
        self.changed(self.role)

    def _cannot(self, error: ClaudePeersError) -> None:
        if self.problem is None or str(self.problem) != str(error):
            log.warning("no broker: %s", error)
        self.problem = error
        if self._client is not None:
            self._client.problem = error

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass


async def _office_ended(office: "Office") -> None:
    await asyncio.shield(office.ended)


def _leader_module() -> "type[Office]":
    from claude_peers.node.leader import Office

    return Office


def _wall() -> float:
    import time

    return time.time()
