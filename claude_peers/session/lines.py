"""Cutting a stream of bytes into lines of bounded length."""

import re
from collections import deque
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 8 * 1024 * 1024
"""Bytes of one line; a longer one is read and thrown away."""
EDGE: Final = 512
"""Bytes that are kept of either end of a line that is thrown away."""
_ID: Final = rb'"id"\s*:\s*(?:(-?\d{1,18})|"([^"\\]{0,100})")\s*'
# Only where nothing but the envelope can be: before any other member that has a value of its own,
# as Python's clients write it, or at the very end, as TypeScript's do.
_FIRST: Final = re.compile(
    rb'\s*\{\s*(?:"(?:jsonrpc|method)"\s*:\s*"[^"\\]*"\s*,\s*)*' + _ID + b","
)
_LAST: Final = re.compile(_ID + rb'(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


@dataclass(frozen=True, slots=True)
class Discarded:
    """A line that was thrown away: its first and its last bytes."""

    head: bytes
    tail: bytes

    @property
    def request_id(self) -> int | str | None:
        """The id of the request that it was, if either end shows one for certain."""
        found = _FIRST.match(self.head) or _LAST.search(self.tail)
        if found is None:
            return None
        number, text = found.groups()
        return int(number) if number else str(text, "utf-8", "replace")


class Splitter:
    """Cuts a stream of bytes into lines.

    Args:
        longest: bytes of a line; of longer ones only the ends are kept.

    Attributes:
        lines: what is complete, without line ends.
        oversized: what is left of lines that were thrown away.
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self.lines: deque[bytes] = deque()
        self.oversized: deque[Discarded] = deque()
        self._longest = longest
        self._rest = bytearray()
        self._skipping = False
        self._head = self._tail = b""

    def feed(self, chunk: bytes) -> None:
        """Add what was read."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._add(piece)
            if self._skipping:
                self.oversized.append(Discarded(self._head, self._tail))
            else:
                self.lines.append(bytes(self._rest))
            self._rest.clear()
            self._skipping = False
        self._add(rest)

    def end(self) -> None:
        """Take what is left as a line, for nothing more will come."""
        if self._rest or self._skipping:
            self.feed(b"\n")

    def _add(self, piece: bytes) -> None:
        if self._skipping:
            self._tail = (self._tail + piece[-EDGE:])[-EDGE:]
            return
        self._rest += piece
        if len(self._rest) > self._longest:
            self._head, self._tail = bytes(self._rest[:EDGE]), bytes(self._rest[-EDGE:])
            self._rest.clear()
            self._skipping = True
