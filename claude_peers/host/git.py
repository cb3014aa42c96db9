"""Which repository a folder is in, read from git's own files, for starting git takes too long.

The files may be anybody's: only small plain files are read, and nothing in them is run. Where git
itself is run, for the list of recent files, it runs without network, prompts, hooks and locks.
"""

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass

_UNTOLD = "refs/heads/.invalid"  # where the branch is in a reftable, HEAD says this
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHORT = 7
_MOST = 4096
"""Bytes read of a file of git's: none of these is longer than a path."""
_TIMEOUT = 2.0
"""Seconds git may take, all in all."""
_COMMITS = 5  # as upstream: claude-peers-mcp shared/summarize.ts
_MISLEADING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")
_HARMLESS = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
_QUIET = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_PAGER": "cat",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """The work tree a folder is in.

    Attributes:
        root: its top folder, as `git rev-parse --show-toplevel` prints it.
        common_dir: the git directory that all work trees of the repository share.
        branch: the branch, the short commit if there is none, empty if it cannot be read.
        name: the name of the repository's main folder.
    """

    root: str
    common_dir: str
    branch: str
    name: str


def inspect(folder: str) -> Repository | None:
    """Return the repository that `folder` is in, None if it is in no work tree."""
    if "\0" in folder:
        return None
    root = os.path.realpath(folder)
    while not os.path.lexists(os.path.join(root, ".git")):
        parent = os.path.dirname(root)
        if parent == root or _is_git_dir(root):  # the top, or inside a repository's own files
            return None
        root = parent
    git_dir = _git_dir(root)
    return _repository(root, git_dir) if _is_git_dir(git_dir) else None


def recent_files(folder: str, most: int = 10) -> list[str]:
    """Return files with changes not yet committed, then those of the last commits.

    Never raises: without git, a repository or an answer in time there are none.
    """
    import time

    program = _program(os.environ.get("PATH", ""))  # noqa: TID251 - where a shell would look
    end = time.monotonic() + _TIMEOUT
    found: dict[str, None] = {}
    for command in (
        ("diff", "--no-ext-diff", "--ignore-submodules=dirty", "--name-only", "-z", "HEAD"),
        ("log", "--no-ext-diff", "--name-only", "-z", "--format=", "-n", str(_COMMITS)),
    ):
        if program and len(found) < most:
            output = _run((program, "-C", folder, *_HARMLESS, *command), end - time.monotonic())
            found |= dict.fromkeys(name for name in output.split("\0") if name)
    return list(found)[:most]


def _repository(root: str, git_dir: str) -> Repository:
    common = os.path.realpath(os.path.join(git_dir, _read(f"{git_dir}/commondir") or "."))
    if common == git_dir:  # the main work tree, or a submodule
        name = os.path.basename(root)
    elif os.path.basename(common).startswith("."):  # `.git`, or `.bare` amid its work trees
        name = os.path.basename(os.path.dirname(common))
    else:
        name = os.path.basename(common).removesuffix(".git")
    return Repository(
        # git prints slashes on every system, and peers compare what it prints.
        root=root.replace(os.sep, "/"),
        common_dir=common.replace(os.sep, "/"),
        branch=_branch(git_dir),
        name=name,
    )


def _git_dir(root: str) -> str:
    """Return where `.git` leads: itself, or the folder that a file of that name tells."""
    path = os.path.join(root, ".git")
    told = _read(path)
    return os.path.realpath(os.path.join(root, told.removeprefix("gitdir: ")) if told else path)


def _is_git_dir(path: str) -> bool:
    """Whether git's own files are here; a linked work tree has some of them elsewhere."""
    if not os.path.lexists(os.path.join(path, "HEAD")):
        return False
    return os.path.isfile(os.path.join(path, "commondir")) or (
        os.path.isdir(os.path.join(path, "objects")) and os.path.isdir(os.path.join(path, "refs"))
    )


def _branch(git_dir: str) -> str:
    path = os.path.join(git_dir, "HEAD")
    head = f"ref: {os.readlink(path)}" if os.path.islink(path) else _read(path)
    if _COMMIT.fullmatch(head):
        return head[:_SHORT]
    ref = head.removeprefix("ref: ").strip()
    if ref in (head, _UNTOLD):
        return ""
    name = ref.removeprefix("refs/heads/")
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read(path: str) -> str:
    """Return the line in a plain file, nothing if it is no plain file or cannot be read."""
    try:
        # A pipe that somebody left here must not hold us up.
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return ""
    try:
        plain = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.fsdecode(os.read(fd, _MOST)).rstrip("\r\n") if plain else ""
    finally:
        os.close(fd)


def _program(path: str, name: str = "git.exe" if os.name == "nt" else "git") -> str | None:
    """Return the git that `path` leads to, never one in the current folder, as Windows would."""
    for folder in path.split(os.pathsep):
        candidate = os.path.join(folder, name)
        if os.path.isabs(folder) and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def _run(command: Sequence[str], timeout: float) -> str:
    """Return what a command prints, nothing if it fails or takes too long."""
    import subprocess

    environ = {key: text for key, text in os.environ.items() if key not in _MISLEADING} | _QUIET  # noqa: TID251 - git inherits it
    try:
        done = subprocess.run(  # noqa: S603 - git by its full path, no shell
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=True,
            env=environ,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")
