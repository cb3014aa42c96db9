"""What a command prints: text for people, JSON for programs, errors with a remedy."""

import io
import json
import os
import sys
from typing import Any

from claude_peers.core.errors import ClaudePeersError

OK = 0
FAILED = 1
USAGE = 2
TIMED_OUT = 3
NO_SUCH_PEER = 4
CONFLICT = 5
NO_BROKER = 6
UNDELIVERABLE = 7

_CODES = {
    "no_broker": NO_BROKER,
    "pin_changed": NO_BROKER,
    "unknown_machine": NO_BROKER,
    "machine_revoked": NO_BROKER,
    "unknown_invite": NO_BROKER,
    "invite_used": NO_BROKER,
    "invite_expired": NO_BROKER,
    "clock_skew": NO_BROKER,
    "replayed": NO_BROKER,
    "peer_not_found": NO_SUCH_PEER,
    "peer_ambiguous": NO_SUCH_PEER,
    "message_not_found": NO_SUCH_PEER,
    "machine_not_found": NO_SUCH_PEER,
    "timed_out": TIMED_OUT,
    "dedupe_conflict": CONFLICT,
    "name_held": CONFLICT,
    "name_taken": CONFLICT,
    "file_exists": CONFLICT,
    "mailbox_full": UNDELIVERABLE,
    "rate_limited": UNDELIVERABLE,
    "loop_guard": UNDELIVERABLE,
    "hop_limit": UNDELIVERABLE,
    "not_running": UNDELIVERABLE,
    "unconfirmed": UNDELIVERABLE,
    "too_many_topics": UNDELIVERABLE,
    "retained_too_long": UNDELIVERABLE,
    "unanswered": UNDELIVERABLE,
    "bad_setting": USAGE,
    "not_joined": USAGE,
    "bad_request": USAGE,
    "not_possible": USAGE,
    "usage": USAGE,
}
_REMEDIES = {"peer_not_found": "`claude-peers peers` lists who is there."}
"""Remedies that name a tool of agents where errors are raised, and a command here."""
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class TimedOutError(ClaudePeersError):
    """What was waited for did not come in time."""

    code = "timed_out"


class UsageError(ClaudePeersError):
    """The command line is wrong."""

    code = "usage"


def prepare() -> None:
    """Let no character that a terminal's encoding lacks break a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def give_up() -> None:
    """Throw away what nobody reads any more: Python would write it at its end, and complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def exit_code(error: ClaudePeersError) -> int:
    """Return the exit code that an error has; the README lists them."""
    return _CODES.get(error.code, FAILED)


def colourful(stream: Any) -> bool:
    """Whether a stream is a terminal that wants colours."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(stream.isatty())


def style(text: str, *names: str) -> str:
    """Return `text` in bold or a colour, where stdout shows it."""
    if not colourful(sys.stdout):
        return text
    codes = ";".join(_STYLES[name] for name in names)
    return f"\x1b[{codes}m{text}\x1b[0m"


def say(text: str = "") -> None:
    """Print a line for people."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print a line for people beside the result: what to do next, what to know."""
    shown = f"\x1b[2m{text}\x1b[0m" if colourful(sys.stderr) else text
    print(shown, file=sys.stderr, flush=True)


def tell(value: Any) -> None:
    """Print a value for programs, alone on stdout, in ASCII: no encoding can spoil it."""
    print(json.dumps(value), flush=True)


def complain(error: ClaudePeersError, *, as_json: bool) -> int:
    """Print an error on stderr; return its exit code."""
    remedy = _REMEDIES.get(error.code, error.remedy)
    if as_json:
        told: dict[str, Any] = {"code": error.code, "message": error.fact, "remedy": remedy}
        if error.retry_after is not None:
            told["retry_after"] = error.retry_after
        print(json.dumps({"error": told}), file=sys.stderr)
    else:
        print(f"Failed: {error.fact}\n{remedy}", file=sys.stderr)
    return exit_code(error)
