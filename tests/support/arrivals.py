"""What tests of other vendors' clients look at: the roster, and a peer that writes to them."""

import json
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.machine import Machine
from support.mcp import Session
from support.waiting import eventually


def peer(machine: Machine, client: str) -> dict[str, Any] | None:
    """Return the peer whose client's name begins so, as the roster shows it, if it is there."""
    with suppress(OSError):  # no broker
        there = (each for each in machine.peers() if each["agent_type"].startswith(client))
        return next(there, None)
    return None


def here(machine: Machine, client: str) -> dict[str, Any]:
    """Return the peer once it is there."""
    return eventually(lambda: peer(machine, client), what=f"{client} on the roster")


def send(session: Session, to_id: str, text: str) -> None:
    """Send as an agent does."""
    told, bad = session.call("send_message", to_id=to_id, message=text)
    assert not bad, told


def await_arrival(machine: Machine, settings: Path, client: str) -> None:
    """Let a hook at the start of the client's session wait until the client is on the roster.

    Without it the first prompt may be over before the server has registered.
    """
    script = machine.root / "await_arrival.py"
    tests = Path(__file__).parents[1]
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = {[str(tests), str(tests.parent)]!r}\n"
        "from types import SimpleNamespace\n"
        "from support import arrivals, http\n"
        f"ask = lambda: http.post({machine.port}, '/list-peers', {{'scope': 'machine'}}).json()\n"
        f"arrivals.here(SimpleNamespace(peers=ask), {client!r})\n"
        "print('{}')\n"
    )
    held = json.loads(settings.read_text())
    entry = {"type": "command", "command": shlex.join((sys.executable, str(script)))}
    held["hooks"]["SessionStart"] = [{"hooks": [entry]}]
    settings.write_text(json.dumps(held))
