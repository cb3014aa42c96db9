"""Variables that look like ours and are none: somebody mistyped one, and wonders."""

import difflib
from collections.abc import Mapping
from dataclasses import fields

from claude_peers.cli import output
from claude_peers.core.limits import NAME
from claude_peers.core.text import one_line
from claude_peers.settings import Settings

_OURS = "CLAUDE_PEERS_"
_TESTS = tuple(_OURS + name for name in ("TEST_", "NODE_MODULES", "MCP1_PYTHON"))
"""What our own tests are told by."""


def note_unknown(environ: Mapping[str, str]) -> None:
    """Print a line about each variable that nothing reads."""
    settings = [each.metadata for each in fields(Settings) if each.metadata]
    known = [name for each in settings for name in (each["name"], *each["also"])]
    for name in sorted(environ):
        if name.startswith(_OURS) and not name.startswith(_TESTS) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            output.note(f"Nothing reads {one_line(name, NAME)}{meant}")
