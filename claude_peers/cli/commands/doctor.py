"""Try out what claude-peers needs, and tell what is wrong and what to do about it.

Nothing is repaired and nothing is overwritten: a folder is written to and left as it was, the
database's lock is taken and given back, the broker has to prove itself.

exit codes: 0 all is well, 1 something is not
"""

import argparse
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from claude_peers import settings
from claude_peers.cli import output, variables
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import ClaudePeersError, NoBrokerError
from claude_peers.host import files, processes, sockets
from claude_peers.settings import Settings

ROOM = 64 * 1024 * 1024
"""Bytes that should be free on the database's disk."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one trial found; all is well if there is no remedy."""

    name: str
    fact: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing has to be done."""
        return not self.remedy


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Print what each trial found; exit 1 if there is something to be done."""
    chosen = settings.load()
    if not options.json:
        variables.note_unknown(os.environ)
    found = [_tried(name, trial, chosen) for name, trial in TRIALS.items()]
    well = all(each.ok for each in found)
    if options.json:
        output.tell({"ok": well, "checks": [_view(each) for each in found]})
    else:
        for each in found:
            mark = output.style("ok  ", "green") if each.ok else output.style("FAIL", "bold", "red")
            output.say(f"{mark} {each.name}: {each.fact}")
            if not each.ok:
                output.say(f"     {each.remedy}")
    return output.OK if well else output.FAILED


def _tried(name: str, trial: Callable[[Settings], tuple[str, str]], chosen: Settings) -> Finding:
    try:
        return Finding(name, *trial(chosen))
    except ClaudePeersError as error:
        return Finding(name, error.fact, error.remedy or "Look at the log with --verbose.")


def _folder(chosen: Settings) -> tuple[str, str]:
    folder = chosen.state_folder
    files.private_folder(folder)
    trial = os.path.join(folder, f"doctor-{os.getpid()}")
    files.write_private(trial, b"can be written")
    os.unlink(trial)
    return f"{folder} is yours alone and can be written", ""


def _database(chosen: Settings) -> tuple[str, str]:
    from claude_peers.stores.sqlite.examine import examine

    condition = examine(chosen.database_path)
    return condition.fact, condition.remedy


def _disk(chosen: Settings) -> tuple[str, str]:
    folder = os.path.dirname(os.path.abspath(chosen.database_path))
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    remedy = "" if free >= ROOM else "Free some space: a full disk refuses messages."
    return f"{free // 1024**2} MiB are free for {chosen.database_path}", remedy


def _broker(chosen: Settings) -> tuple[str, str]:
    try:
        with Broker() as broker:
            if not broker.ours:
                return f"another implementation's answers on {broker.url}", ""
            told = broker.status()
            ledger = broker.ask("/ledger", {})
    except NoBrokerError as error:
        if isinstance(error.__cause__, ConnectionRefusedError):
            return "none is running; the next agent's session, or `claude-peers serve`, is it", ""
        if chosen.remote is None and (pids := _stopped(chosen.broker_port)):
            return (
                f"whoever listens on port {chosen.broker_port} is stopped (pid {pids})",
                f"Wake it with `kill -CONT {pids}`, or end it.",
            )
        raise
    return _state(told, ledger, broker.url)


def _state(told: dict[str, Any], ledger: dict[str, Any], url: str) -> tuple[str, str]:
    if not ledger["balanced"]:
        return "messages are missing", "Please report it; `claude-peers export` keeps the rest."
    if told.get("listening_problem"):
        return str(told["listening_problem"]), "Until then only this machine reaches the broker."
    leads = f"pid {told['pid']} leads" if "pid" in told else "another machine leads"
    leads = f"{leads} in epoch {told.get('epoch')} on {url}"
    return f"{leads}, has proved itself, and misses no message", ""


def _stopped(port: int) -> str:
    """Return the pids that listen there and are suspended, as words of a command line."""
    return " ".join(str(pid) for pid in sockets.listener_pids(port) if processes.is_stopped(pid))


TRIALS: dict[str, Callable[[Settings], tuple[str, str]]] = {
    "folder": _folder,
    "database": _database,
    "disk": _disk,
    "broker": _broker,
}


def _view(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.name,
        "ok": finding.ok,
        "fact": finding.fact,
        "remedy": finding.remedy or None,
    }
