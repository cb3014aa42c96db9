"""Wake Claude Code for mail: print its hooks, install them into a settings file, or remove them.

They wake an idle session when mail comes and show it to a busy one. Nothing else in the file
changes, and `remove` takes out what `install` put in. An entry that a version of Claude Code does
not know would void the whole file, so its version is asked (--claude-version says it by hand).

exit codes: 0 done, or nothing to do, 1 the file cannot be used or Claude Code is too old, 2 usage
"""

import argparse
import difflib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from claude_peers.cli import output
from claude_peers.core.errors import ClaudePeersError
from claude_peers.settings import Settings, load
from claude_peers.wire import hooks, hooks_file

SCOPES = {"user": "settings.json", "project": "settings.json", "local": "settings.local.json"}
WITHIN = 5.0
"""Seconds that `claude --version` may take."""
_SERVER = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_BINARY: int = getattr(os, "O_BINARY", 0)
_UNKNOWN = (
    "The version of Claude Code is unknown, so these are only the hooks that every version since "
    "2.1.80 takes: they wake an idle session. Say it with --claude-version for all of them."
)
_OLD = (
    "This version of Claude Code knows only the hooks that wake an idle session; "
    "update it to 2.1.118 or newer and install again for mail in the middle of a turn."
)
_SERVES = (
    "The hooks call the MCP server {server}, which has to be there under this name in the same "
    "scope, and not as a plugin's as well: otherwise Claude Code shows an error at each of them."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do, where, and for which Claude Code."""
    parser.add_argument(
        "action", choices=("print", "install", "remove"), help="what to do with the hooks"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the change, make none")
    parser.add_argument(
        "--scope", choices=SCOPES, default="user", help="whose settings file; default: user"
    )
    parser.add_argument(
        "--server", metavar="NAME", help="claude-peers' name among the MCP servers of Claude Code"
    )
    parser.add_argument("--claude-version", metavar="X", help="take this as Claude Code's version")


def run(options: argparse.Namespace) -> int:
    """Print, install or remove."""
    settings = load()
    path = _path(options.scope, settings)
    if options.action == "remove":
        return _remove(options, path)
    wanted = _Wanted.find(options, settings)
    if options.action == "install":
        return _install(options, path, wanted)
    if options.json:
        output.tell({"settings": wanted.settings, **wanted.told})
        return output.OK
    output.say(json.dumps(wanted.settings, indent=2, ensure_ascii=False))
    _note(wanted.notes)
    return output.OK


def _install(options: argparse.Namespace, path: str, wanted: "_Wanted") -> int:
    change = _change(
        path, lambda before: hooks_file.merge(before, wanted.settings), dry_run=options.dry_run
    )
    told = {"events": list(wanted.settings["hooks"]), **wanted.told}
    if change.told(options, told):
        return output.OK
    events = ", ".join(told["events"])
    output.say(
        f"Installed in {path}: {events}. New sessions use them."
        if change.made
        else f"{path} has them already: {events}."
    )
    _note(wanted.notes)
    return output.OK


def _remove(options: argparse.Namespace, path: str) -> int:
    change = _change(
        path,
        lambda before: None if before is None else hooks_file.without(before),
        dry_run=options.dry_run,
    )
    events = hooks_file.events(change.before) if change.before else []
    if change.told(options, {"events": events}):
        return output.OK
    gone = " Nothing else was in it, so the file is gone." if change.after is None else ""
    output.say(
        f"Removed from {path}: {', '.join(events)}.{gone}"
        if change.made
        else f"There are no hooks of claude-peers in {path}."
    )
    return output.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The hooks for this Claude Code.

    Attributes:
        settings: what goes into its settings file.
        server: the MCP server that they call.
        version: the version they are made for, None if it is unknown.
        notes: what the user should know about them.
    """

    settings: dict[str, Any]
    server: str
    version: hooks.Version | None
    notes: list[str]

    @classmethod
    def find(cls, options: argparse.Namespace, settings: Settings) -> "_Wanted":
        """Work out what the user's Claude Code can take."""
        server = options.server or settings.server_name
        if not _SERVER.fullmatch(server):
            raise output.UsageError(
                f"{server!r} is no name of an MCP server",
                "Use the name that `claude mcp list` shows.",
            )
        told = _claude_version() if options.claude_version is None else options.claude_version
        version = hooks.version(told)
        state = settings.state_folder if hasattr(os, "mkfifo") else None
        found = hooks.settings(state, server, version)
        if not found["hooks"]:
            raise TooOldError(version)
        notes = [_SERVES.format(server=server)] if version and version >= hooks.EVERYTHING else []
        if not notes:
            notes = [_OLD if version else _UNKNOWN]
        return cls(settings=found, server=server, version=version, notes=notes)

    @property
    def told(self) -> dict[str, Any]:
        """What a program is told."""
        version = ".".join(map(str, self.version)) if self.version else None
        return {"claude_version": version, "server": self.server, "notes": self.notes}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """What became of a file; None is the text of no file."""

    path: str
    before: str | None
    after: str | None

    @property
    def made(self) -> bool:
        """Whether it is another text."""
        return self.before != self.after

    def told(self, options: argparse.Namespace, also: dict[str, Any]) -> bool:
        """Tell a program, or the change itself if it was not made; return whether that is all."""
        diff = self._diff() if options.dry_run else None
        if options.json:
            seen = {"path": self.path, "scope": options.scope, "changed": self.made}
            seen |= {"action": options.action, "dry_run": options.dry_run}
            output.tell({**seen, **also} if diff is None else {**seen, **also, "diff": diff})
        elif diff:
            output.say(diff.removesuffix("\n"))
        return bool(options.json or diff)

    def _diff(self) -> str:
        """Return the change as `diff -u` shows it, so that `patch` can make it."""
        before, after = self.before or "", self.after or ""
        lines = difflib.unified_diff(
            # Not splitlines: it would split a line at more than line feeds.
            io.StringIO(before, newline="\n").readlines(),
            io.StringIO(after, newline="\n").readlines(),
            os.devnull if self.before is None else self.path,
            os.devnull if self.after is None else self.path,
        )
        end = "\n\\ No newline at end of file\n"
        return "".join(line if line.endswith("\n") else line + end for line in lines)


def _change(path: str, edit: Callable[[str | None], str | None], *, dry_run: bool) -> _Change:
    """Change a file, unless nothing changes or it is only a rehearsal."""
    target = os.path.realpath(path)  # a link stays one
    try:
        before = _read(target)
        after = edit(before)
        if before != after and not dry_run:
            _write(target, after)
    except (OSError, hooks_file.NotSettingsError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsFileError(path, f"{reason}") from None
    return _Change(path=path, before=before, after=after)


def _read(target: str) -> str | None:
    try:
        with open(target, "rb") as file:
            return file.read().decode()
    except FileNotFoundError:
        return None


def _write(target: str, text: str | None) -> None:
    """Replace a file, or take it away: all of it or nothing, with the permissions it has."""
    if text is None:
        os.unlink(target)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    mode = os.stat(target).st_mode & 0o7777 if os.path.exists(target) else None
    draft = f"{target}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
        with os.fdopen(os.open(draft, flags, 0o666 if mode is None else mode), "wb") as file:
            if mode is not None:
                os.chmod(draft, mode)  # a umask may have taken something away
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


def _path(scope: str, settings: Settings) -> str:
    folder = os.path.abspath(".claude")
    if scope == "user":
        given = settings.environ.get("CLAUDE_CONFIG_DIR")
        folder = os.path.abspath(given or os.path.expanduser("~/.claude"))
    return os.path.join(folder, SCOPES[scope])


def _claude_version() -> str:
    """Return what `claude --version` says, nothing if it fails or takes too long."""
    program = shutil.which("claude")
    if program is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - the user's own Claude Code, no shell
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WITHIN,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")


def _note(notes: list[str]) -> None:
    for note in notes:
        print(note, file=sys.stderr)


class SettingsFileError(ClaudePeersError):
    """A settings file cannot be used, and was left alone."""

    code = "settings_file"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"{path} was left alone: {reason}",
            "Correct that, or put in what `claude-peers hooks print` prints by hand.",
        )


class TooOldError(ClaudePeersError):
    """This Claude Code has no hooks that help."""

    code = "claude_too_old"

    def __init__(self, version: hooks.Version | None) -> None:
        told = ".".join(map(str, version)) if version else "of an unknown version"
        super().__init__(
            f"Claude Code {told} has no hooks that could wake it here",
            "Update it to 2.1.118 or newer (`claude update`); --claude-version says it by hand.",
        )
