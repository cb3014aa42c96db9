"""The broker's port: which one this user has, and what to make of whoever listens there.

It may be a broker of ours, which proves itself; an upstream one, whose client we become; another
user's, whom we leave alone on a port of their own; a stranger, who is told nothing; or a process
that is stopped. Only what is found out here decides whom the node follows.
"""

import asyncio
import logging
import os

from claude_peers.client.link import ADDRESS, Link, NotOursError, connect
from claude_peers.core.errors import NoBrokerError
from claude_peers.host import files, processes, sockets
from claude_peers.settings import Settings

log = logging.getLogger(__name__)

OTHER_PORTS = 200
"""A second user of a machine gets the default port + 1 + uid modulo so many."""
_CHOSEN = ("CLAUDE_PEERS_PORT", "AGENTMESH_PORT")


class Port:
    """The port on which one user's broker is found.

    Attributes:
        number: the port; another one once the usual turned out to be another user's.
    """

    def __init__(self, settings: Settings) -> None:
        self.number = settings.broker_port
        self._settings = settings
        self._file = os.path.join(settings.state_folder, "port")
        # A port that was asked for is kept, whoever has it.
        chosen = any(settings.environ.get(name) for name in _CHOSEN) or settings.broker_url
        self._movable = not chosen

    def prepare(self) -> bytes:
        """Return this user's secret, and find the port that is this user's.

        Raises:
            StoreError: what is recorded of them cannot be read or written.
        """
        folder = self._settings.state_folder
        files.private_folder(folder)
        self.recall()
        return files.secret(folder)

    def recall(self) -> None:
        """Use the port that an earlier process of this user moved to.

        Raises:
            StoreError: the record cannot be read.
        """
        told = files.read_private(self._file) if self._movable else None
        if told and told.isdigit():
            self.number, self._movable = int(told), False

    async def reach(self, secret: bytes) -> Link | None:
        """Return a connection to the broker, or None if nobody listens or will answer in a moment.

        Raises:
            OSError: it broke off.
            NoBrokerError: whoever listens is no broker for us; the text says who.
        """
        try:
            return await connect(self.number, secret)
        except ConnectionRefusedError:
            return None
        except TimeoutError as error:
            await self._silent(error)
            return None
        except NotOursError:
            return await self._other(secret)

    async def _other(self, secret: bytes) -> Link | None:
        """Deal with a listener that is no broker of ours."""
        uid = await asyncio.to_thread(sockets.listener_uid, self.number)
        if uid is not None and uid != processes.user_id() and self._movable:
            self._move()
            return await self.reach(secret)
        from claude_peers.client.http import BrokerHttp
        from claude_peers.client.upstream import UpstreamLink

        http = BrokerHttp(
            self.number,
            secret=None,
            trust_listener=self._settings.trust_listener,
            listener_uid=sockets.listener_uid,
            own_uid=processes.user_id(),
        )
        try:
            await asyncio.to_thread(http.open)
        except NoBrokerError as error:
            raise NoBrokerError(error.fact + await self._whose(), error.remedy) from error
        return UpstreamLink(http)

    def _move(self) -> None:
        moved = self.number + 1 + processes.user_id() % OTHER_PORTS
        log.warning("port %d is another user's: using %d", self.number, moved)
        files.write_private(self._file, b"%d" % moved)
        self.number, self._movable = moved, False

    async def _silent(self, error: TimeoutError) -> None:
        """Wake a leader that is stopped; who else listens and says nothing is named."""
        pids = await asyncio.to_thread(sockets.listener_pids, self.number)
        for pid in pids:
            process = processes.identify(pid)
            if process is not None and processes.is_stopped(pid) and self._is_led():
                log.warning("the leader (pid %d) is stopped: waking it", pid)
                processes.revive(process)
                return
        raise NoBrokerError(
            f"The listener on {ADDRESS}:{self.number} does not answer" + _named(pids),
            "Run `claude-peers status`; end that program if it hangs.",
        ) from error

    def _is_led(self) -> bool:
        return files.is_locked(os.path.join(self._settings.state_folder, "broker.lock"))

    async def _whose(self) -> str:
        return _named(await asyncio.to_thread(sockets.listener_pids, self.number))


def _named(pids: list[int]) -> str:
    return f" (pid {', '.join(map(str, pids))})" if pids else ""
