"""Cutting a stream of bytes into lines of bounded length."""

from collections import deque
from typing import Final

LONGEST: Final = 8 * 1024 * 1024
"""Bytes of one line; a longer one is read and thrown away."""


class Splitter:
    """Cuts a stream of bytes into lines.

    Args:
        longest: bytes of a line; longer ones are counted, not kept.

    Attributes:
        lines: what is complete, without line ends.
        oversized: how many lines were thrown away.
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self.lines: deque[bytes] = deque()
        self.oversized = 0
        self._longest = longest
        self._rest = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> None:
        """Add what was read."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._add(piece)
            if not self._skipping:
                self.lines.append(bytes(self._rest))
            self._rest.clear()
            self._skipping = False
        self._add(rest)

    def end(self) -> None:
        """Take what is left as a line, for nothing more will come."""
        if self._rest:
            self.feed(b"\n")

    def _add(self, piece: bytes) -> None:
        if self._skipping:
            return
        self._rest += piece
        if len(self._rest) > self._longest:
            self._rest.clear()
            self._skipping = True
            self.oversized += 1
