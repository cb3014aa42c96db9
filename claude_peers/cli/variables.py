"""Variables that nothing reads: somebody mistyped one, or expects what is not here, and wonders."""

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
_INSTEAD = {
    "AGENTMESH_FEDERATION_PEERS": (
        "brokers are not federated here. Run `claude-peers invite NAME` on one machine and "
        "`claude-peers join` on the other, which then uses the first one's broker"
    ),
}
"""Variables of agentmesh's that have no counterpart, and what to do instead."""


def note_unknown(environ: Mapping[str, str]) -> None:
    """Print a line about each variable that nothing reads."""
    settings = [each.metadata for each in fields(Settings) if each.metadata]
    known = [name for each in settings for name in (each["name"], *each["also"])]
    for name in sorted(environ):
        if name.startswith(_OURS) and not name.startswith(_TESTS) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            output.note(f"Nothing reads {one_line(name, NAME)}{meant}")
        elif name in _INSTEAD and environ[name]:
            output.note(f"Nothing reads {name}: {_INSTEAD[name]}")
