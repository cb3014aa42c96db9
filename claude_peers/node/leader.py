"""The embedded broker: takes office, serves, and hands over.

Everything a leader needs is imported here and nowhere else, so that a follower stays small; the
standby imports it ahead of time.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from filelock import FileLock

from claude_peers.broker.broker import Broker
from claude_peers.broker.machines import Doors
from claude_peers.core.errors import ClaudePeersError
from claude_peers.core.models import Process
from claude_peers.gateway.app import App
from claude_peers.gateway.mcp import Mcp
from claude_peers.gateway.server import Server
from claude_peers.host import files, leading, open_files, processes
from claude_peers.node import parts
from claude_peers.node.announcer import Announcer
from claude_peers.node.doors import RemoteDoors, listen
from claude_peers.node.watchdog import Watchdog
from claude_peers.settings import Settings
from claude_peers.stores.sqlite.store import SqliteStore
from claude_peers.transports.live import LiveConnections
from claude_peers.wire import frames

log = logging.getLogger(__name__)

GRACE = 0.040
"""Seconds for requests in flight when the leader ends."""
SWEEP_EVERY = 15.0
SWITCH_INTERVAL = 0.0005
"""Seconds between two switches of threads: with Python's 5 ms the store's thread starves."""


class Office:
    """What a leader holds: lock, database, port and epoch, in that order.

    Attributes:
        ended: set once this process leads no longer, with why.
        troubled: told why other machines cannot reach it as CLAUDE_PEERS_BIND says, if so.
    """

    def __init__(self, settings: Settings, *, port: int, secret: bytes) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.hold = 0.0
        self.epoch = 0
        self._ending: asyncio.Task[None] | None = None
        self._settings = settings
        self._port = port
        self._secret = secret
        self._unkept = ""
        self._me = processes.identify(os.getpid()) or Process(pid=os.getpid(), started="")
        self._stack = contextlib.AsyncExitStack()
        self._lock: FileLock | None = None
        self._listener: socket.socket | None = None
        self._server: Server | None = None
        self.troubled: Callable[[ClaudePeersError], None] = lambda _problem: None
        self._doors: RemoteDoors | None = None
        self._announcer: Announcer
        self._switch_interval = sys.getswitchinterval()
        self._rounds: asyncio.Task[None] | None = None
        self._watchdog: Watchdog | None = None

    @property
    def standby(self) -> int | None:
        """The pid of the named standby."""
        named = self._others()
        return named[0].pid if named else None

    async def take(self) -> bool:
        """Try to lead; False if somebody else holds the lock or the port.

        Raises:
            StoreError: the database or its folder cannot be used.
        """
        self._lock = leading.lock(self._settings.state_folder)
        if self._lock is None:
            return False
        try:
            store = await self._stack.enter_async_context(parts.store(self._settings))
            if not self._bind():
                await self.give_up()
                return False
            await self._serve(store)
        except BaseException:
            await self.give_up()
            raise
        return True

    async def give_up(self, why: str = "stopped") -> None:
        """Hand over; what is in flight is answered, what was accepted is durable.

        The connections end last: that is what the followers start to elect at, and by then
        port, database and lock are free.
        """
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._hand_over(why))
        # Whoever asks, and however often: all wait for the one hand-over, which runs to its end.
        await asyncio.shield(self._ending)

    async def _hand_over(self, why: str) -> None:
        self._stop_rounds()
        sys.setswitchinterval(self._switch_interval)
        if self._server is not None:
            await self._server.stop_accepting(within=GRACE)
        elif self._listener is not None:
            self._listener.close()
        try:
            await self._stack.aclose()
        finally:
            if self._lock is not None:
                self._lock.release()
            if self._server is not None:
                self._server.hang_up()
            self._end(why)

    def _stop_rounds(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._rounds is not None:
            self._rounds.cancel()
        if self._doors is not None:
            self._doors.close()

    # Taking office

    def _bind(self) -> bool:
        try:
            listener = listen("127.0.0.1", self._port)
        except OSError:
            return False
        self._listener = listener
        return True

    async def _serve(self, store: SqliteStore) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL)
        open_files.allow_more()
        reach = parts.Reach()
        broker = Broker(
            store,
            reach,
            clock=parts.Clock(),
            here=parts.here(),
            options=parts.options(self._settings),
        )
        reach.live = LiveConnections(store, broker.roster.get)
        reach.posts = parts.posts(broker.webhooks, self._settings, port=self._port)
        broker.step_down = self._step_down
        store.commits.fenced = self._end
        self.epoch = await broker.open(self._me)
        app = App(broker, secret=self._secret, status=self._status)
        app.mcp = Mcp(app, load=parts.mcp)
        self._server = Server(app, reach.live, uid=processes.user_id())
        self._server.attached = self._name_standby
        assert self._listener is not None  # noqa: S101 - bound just before
        await self._server.start(self._listener)
        self._stack.push_async_callback(reach.posts.stop)
        reach.posts.start()
        self._doors = RemoteDoors(self._settings, self._server, port=self._port)
        broker.machines.doors, broker.machines.opened = self._doors.told, self._doors.opened
        broker.machines.left = self._server.expel
        self._doors.begin(self.troubled)
        self._announcer = parts.announcer(self._settings)
        self._keep_files()
        self._watchdog = Watchdog(self._stuck)
        self._watchdog.start()
        self._rounds = asyncio.ensure_future(self._make_rounds(broker))
        log.info("leading in epoch %d on port %d", self.epoch, self._port)

    def _keep_files(self) -> None:
        """Make again what a cleaner has removed, before a newcomer takes this for a stranger's.

        The lock is not needed while the port is held: whoever leads next makes its own.
        """
        folder, known = self._settings.state_folder, self._unkept
        try:
            files.private_folder(folder)
            files.keep_secret(folder, self._secret)
            leading.note_port(folder, self._port)
            self._unkept = ""
        except ClaudePeersError as error:
            self._unkept = str(error)
            if known != self._unkept:  # once, not with each look
                log.warning("newcomers may not know this broker as theirs: %s", error)

    # In office

    async def _make_rounds(self, broker: Broker) -> None:
        beats = 0
        while True:
            await asyncio.sleep(frames.PING_EVERY)
            beats += 1
            if self._watchdog is not None:
                self._watchdog.beat()
            if self._server is not None:
                self._server.ping()
            broker.keep_time()
            self._keep_files()
            if beats % round(SWEEP_EVERY / frames.PING_EVERY) == 0:
                await self._make_round(broker)

    async def _make_round(self, broker: Broker) -> None:
        try:
            await broker.peers.sweep()
            await broker.tidy()
            if self._doors is not None:
                await self._doors.opened()
                await self._doors.open()  # of an address that was not there before
                self._announcer.tell(self._doors.told().addresses)
        except ClaudePeersError as error:
            log.warning("the round failed, the next one tries again: %s", error)
        except Exception:
            # Without rounds there are no pings, and the watchdog would end a leader that serves.
            log.exception("the round failed")

    def _sessions(self) -> list[Any]:
        return self._server.sessions if self._server else []

    def _others(self) -> list[Any]:
        """Return the sessions that could lead: those of other processes on this machine."""
        return [s for s in self._sessions() if not s.machine and s.pid != self._me.pid]

    def _name_standby(self) -> None:
        told, others = frames.leader(self._me, self.epoch), self._others()
        for session in self._sessions():
            if not (session.introduced or session.machine):
                session.introduced = True
                session.write(told)
        if others and not others[0].standby:
            others[0].standby = True
            others[0].write(frames.standby())

    def _status(self) -> dict[str, Any]:
        doors = self._doors.told() if self._doors else Doors()
        return {
            "pid": self._me.pid,
            "port": self._port,
            "standby": self.standby,
            "sessions": len(self._sessions()),
            "listening": list(doors.addresses),
            "listening_problem": str(doors.problem) if doors.problem else None,
        }

    def _step_down(self, hold: float) -> None:
        self.hold = hold
        self._end("asked to step down")

    def _end(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)

    def _stuck(self) -> None:
        """Runs on the watchdog's thread, as the event loop does not: frees port and lock."""
        log.error("the event loop is stuck: this process leads no longer")
        for session in self._sessions():
            with contextlib.suppress(OSError):
                session.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        for listener in self._listeners():
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
        if self._lock is not None:
            self._lock.release()
        self.ended.get_loop().call_soon_threadsafe(self._unstuck)

    def _listeners(self) -> list[socket.socket]:
        remote = self._doors.listeners.values() if self._doors else ()
        return [*([self._listener] if self._listener else []), *remote]

    def _unstuck(self) -> None:
        """Runs once the loop goes on, before it would try to accept from a dead listener."""
        if sys.platform != "win32":
            for listener in self._listeners():
                self.ended.get_loop().remove_reader(listener)
        self._end("stuck")
