"""Sends that got no answer, so that saying one again makes no second message.

What was given up may be stored. The agent makes the same call again, because it was told to or
because its user interrupted it; then the message travels under its first key, and the broker knows
it. But the same words may also be meant anew: "go on" is said more than once. So a send is only
remembered for a while, and no longer once something that was begun later has gone the same way.
What was under way beside it says nothing: calls are made in parallel, and are given up together.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from claude_peers.client.errors import RefusedError
from claude_peers.core.errors import ClaudePeersError, DedupeConflictError
from claude_peers.core.limits import PATH
from claude_peers.core.text import one_line
from claude_peers.stores.retention import DEDUPE_WINDOW

REMEMBERED: Final = 16
"""Sends that are remembered."""
INTERRUPTED: Final = 60.0
"""Seconds in which a call that was cancelled is made again by itself, if it is."""

Said = tuple[Any, ...]
"""A request but for its key: what has to be the same to be a repeat."""


class ForAnotherError(ClaudePeersError):
    """The first attempt was for somebody else: the name has another holder by now."""

    code = "for_another"

    def __init__(self, to: str) -> None:
        super().__init__(
            f"Not sent again: your first attempt was stored for whoever was {one_line(to, PATH)} "
            "then, which is another peer now",
            "A new holder of a name is given what the former one had not read. Make the same call "
            "again to send this peer a message of its own; `claude-peers log` shows the first.",
        )


@dataclass(slots=True)
class _Attempt:
    """A send.

    Attributes:
        to: the recipient, topic or scope, as the agent calls it.
        key: the dedupe key.
        begun: when it was made first.
        given_up: when it was given up last.
        until: when saying the same is no repeat any more; 0 if it has not been given up.
    """

    to: str
    key: str
    begun: float
    given_up: float = 0.0
    until: float = 0.0


class Repeats:
    """The sends of one session that were given up, by what they said.

    Args:
        clock: seconds since some moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._attempts: dict[Said, _Attempt] = {}

    async def send(
        self, said: Said, to: str, key: str, ask: Callable[[str], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """Ask a broker to store something, under `key` or, if this is a repeat, the first one.

        Args:
            said: the request.
            to: the recipient, topic or scope in it.
            key: a key of its own.
            ask: makes the request, under a key.

        Raises:
            ForAnotherError: it is a repeat, and what it repeats was for another peer.
        """
        attempt = self._begin(said, to, key)
        repeated = attempt.until > 0.0
        try:
            answer = await ask(attempt.key)
        except asyncio.CancelledError:
            self._give_up(said, attempt, lasts=INTERRUPTED)
            raise
        except RefusedError as error:
            if repeated and error.code == DedupeConflictError.code:
                raise ForAnotherError(to) from error
            if repeated:  # else it is not stored
                self._give_up(said, attempt, lasts=DEDUPE_WINDOW)
            raise
        except ClaudePeersError:
            self._give_up(said, attempt, lasts=DEDUPE_WINDOW)
            raise
        if not answer.get("preview"):  # then nothing was sent
            self._went(attempt, {to, answer.get("to_id"), answer.get("to_name")})
        return answer

    def _begin(self, said: Said, to: str, key: str) -> _Attempt:
        now = self._clock()
        earlier = self._attempts.pop(said, None)
        return earlier if earlier and now < earlier.until else _Attempt(to, key, now)

    def _give_up(self, said: Said, attempt: _Attempt, *, lasts: float) -> None:
        attempt.given_up = self._clock()
        # The broker knows a key for so long from the first attempt on, repeats notwithstanding.
        until = min(attempt.given_up + lasts, attempt.begun + DEDUPE_WINDOW)
        attempt.until = max(attempt.until, until)
        self._attempts[said] = attempt
        while len(self._attempts) > REMEMBERED:
            del self._attempts[next(iter(self._attempts))]

    def _went(self, attempt: _Attempt, names: set[Any]) -> None:
        """Let what went the same way before an attempt was begun be meant anew."""
        self._attempts = {
            said: each
            for said, each in self._attempts.items()
            if each.to not in names or each.given_up > attempt.begun
        }
