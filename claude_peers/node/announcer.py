"""Tells the local network of a broker that listens for other machines, where the user wants it."""

import logging
from collections.abc import Sequence

from claude_peers.host import lan
from claude_peers.wire import announcement

log = logging.getLogger(__name__)

EVERY = 2
"""Rounds of the leader from one announcement to the next: 30 s, as in agentmesh."""


class Announcer:
    """Announces one broker.

    Args:
        target: where to; None announces nothing.
        host: what this machine is called.
        fleet_id: the broker's fleet.
    """

    def __init__(self, target: tuple[str, int] | None, *, host: str, fleet_id: str | None) -> None:
        self._target = target
        self._host = host
        self._fleet_id = fleet_id
        self._rounds = 0
        self._trouble = ""

    def tell(self, addresses: Sequence[str]) -> None:
        """Announce the broker with each second call, from the first on that it listens.

        Args:
            addresses: where it listens for other machines, `HOST:PORT`; nowhere is not announced.
        """
        if self._target is None or not addresses:
            return
        due, self._rounds = self._rounds % EVERY == 0, self._rounds + 1
        if not due:
            return
        told = announcement.encode(host=self._host, addresses=addresses, fleet_id=self._fleet_id)
        try:
            lan.send(told, self._target)
            self._trouble = ""
        except OSError as error:
            if str(error) != self._trouble:  # once, not with each round
                log.warning("the broker could not be announced: %s", error)
            self._trouble = str(error)
