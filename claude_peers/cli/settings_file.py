"""A client's settings file: changed whole or not at all, or only shown with its change."""

import argparse
import difflib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from claude_peers.cli import output
from claude_peers.core.errors import ClaudePeersError
from claude_peers.wire import hooks_file

_BINARY: int = getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
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


def change(path: str, edit: Callable[[str | None], str | None], *, dry_run: bool) -> Change:
    """Change a file, unless nothing changes or it is only a rehearsal.

    Raises:
        SettingsFileError: the file cannot be used, and was left alone.
    """
    target = os.path.realpath(path)  # a link stays one
    try:
        before = _read(target)
        after = edit(before)
        if before != after and not dry_run:
            _write(target, after)
    except (OSError, hooks_file.NotSettingsError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsFileError(path, f"{reason}") from None
    return Change(path=path, before=before, after=after)


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


class SettingsFileError(ClaudePeersError):
    """A settings file cannot be used, and was left alone."""

    code = "settings_file"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"{path} was left alone: {reason}",
            "Correct that, or put in what `claude-peers hooks print` prints by hand.",
        )
