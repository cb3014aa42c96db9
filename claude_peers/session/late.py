"""Which calls a cancellation means, and answers it takes back although they were written.

A client's timer may fire while our line is on its way to it: the cancellation then comes after
the answer, and the answer is never looked at.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from claude_peers.session.handshake import usable_id

LAST = 32
"""Answers that are remembered: a cancellation comes right behind the answer, or not at all."""

Key = str | int | float


class Late:
    """The last answers that a cancellation still takes back."""

    def __init__(self) -> None:
        self._written: OrderedDict[Key, Callable[[bool], None]] = OrderedDict()

    def keep(self, key: Key, written: Callable[[bool], None]) -> None:
        """Remember an answer, and whom to tell if it is cancelled."""
        self._written[key] = written
        self._written.move_to_end(key)
        if len(self._written) > LAST:
            self._written.popitem(last=False)

    def take_back(self, key: Key) -> None:
        """Take note that the client gave a call up, whether that was answered or not."""
        if written := self._written.pop(key, None):
            written(False)  # noqa: FBT003 - the callback's one argument


def spellings(request_id: Any) -> tuple[Key, ...]:
    """Return the id as given, and a number that came as text as the number."""
    if not usable_id(request_id):
        return ()
    if isinstance(request_id, str) and request_id.isdecimal() and len(request_id) < 17:  # noqa: PLR2004 - exact in a double
        return (request_id, int(request_id))
    return (request_id,)
