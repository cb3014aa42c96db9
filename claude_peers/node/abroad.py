"""The broker on another machine that this user has joined, as a node reaches it.

Nobody here is elected while it is used, and nobody leads when it is away: what is asked meanwhile
waits, and is explained if that takes too long.
"""

import asyncio
import time

from claude_peers.client import joined
from claude_peers.client.http import BrokerHttp
from claude_peers.client.link import Link, NotOursError
from claude_peers.core.errors import NoBrokerError
from claude_peers.host import files, processes, sockets
from claude_peers.settings import Settings


class Abroad:
    """In the place of `node.port.Port`.

    Attributes:
        number: its port.
    """

    def __init__(self, settings: Settings, where: str) -> None:
        self.number = settings.broker_port
        self._settings = settings
        self._where = where
        self._joined: joined.Joined

    def prepare(self) -> bytes:
        """Return what the broker and this machine prove to each other.

        Raises:
            NotJoinedError: this machine has not joined it.
            StoreError: the record cannot be read.
        """
        folder = self._settings.state_folder
        files.private_folder(folder)
        self._joined = joined.find(folder, self._where, time.time)
        return self._joined.secret

    async def reach(self, secret: bytes) -> Link | None:
        """Return a connection to the broker, or None if it will answer in a moment.

        Raises:
            OSError: it broke off.
            NoBrokerError: it is not the broker that this machine was invited to.
            RefusedError: it is, and does not let this machine in.
        """
        del secret  # it is the token that `prepare` has read
        from claude_peers.client.remote_live import connect

        try:
            return await connect(self._joined)
        except ConnectionRefusedError:
            return None
        except TimeoutError as error:
            raise NoBrokerError(
                f"The broker on {self._where} does not answer",
                "See that it runs, and that the network between the two machines works.",
            ) from error
        except NotOursError:
            await asyncio.to_thread(self._ask_why)
            return None

    def _ask_why(self) -> None:
        """Let the broker say why it does not let us in.

        Raises:
            RefusedError: it does.
        """
        with BrokerHttp(
            self._joined,
            secret=self._joined.secret,
            trust_listener=False,
            listener_uid=sockets.listener_uid,
            own_uid=processes.user_id(),
        ):
            pass  # it has changed its mind
