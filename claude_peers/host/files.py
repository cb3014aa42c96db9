"""Files and folders that are this user's alone, whatever the umask and whoever else writes there.

Nothing is taken on trust: a symbolic link, another user's file or one that others may read is
refused, with the remedy, and its target is not touched. What exists is never opened merely to
make it private, because closing a file drops the POSIX locks that this process has on it, and a
database's locks are such. Where files have no permission bits (Windows) these are not looked at.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from claude_peers.core.errors import StoreError

_PERMISSIONS = hasattr(os, "getuid")
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_BINARY: int = getattr(os, "O_BINARY", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
_FOLDER = 0o700
_FILE = 0o600
_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_SECRET = 32
"""Bytes of the secret; twice as many characters in its file."""
_AGAIN = 1.0
"""Seconds after which a full disk may have room again."""
_PATIENCE = 20
_PAUSE = 0.01
"""How often, and for how many seconds each, an unfinished secret is waited for."""


def private_folder(path: str) -> None:
    """Make sure that `path` is a folder of ours with mode 0700; missing parents are made so too.

    Raises:
        StoreError: it is a symbolic link, another user's, or open to others for good.
    """
    path = path.rstrip(os.sep) or path
    with _explained(path):
        _make_folder(path)
        found = os.lstat(path)
        _check_owner(path, found, stat.S_ISDIR)
        if _PERMISSIONS and stat.S_IMODE(found.st_mode) != _FOLDER:
            with suppress(OSError):
                os.chmod(path, _FOLDER)
            if os.lstat(path).st_mode & _OTHERS_WRITE:
                raise StoreError(
                    f"Others may write into {path} and that cannot be changed",
                    "Choose a file system with permissions, for instance with CLAUDE_PEERS_DB.",
                )


def private_file(path: str) -> None:
    """Make sure that `path` is a file of ours with mode 0600; a missing one is created empty.

    Raises:
        StoreError: it is a symbolic link, another user's, no plain file, or open to others.
    """
    with _explained(path):
        try:
            os.close(_create(path))
        except FileExistsError:
            found = os.lstat(path)
            _check_owner(path, found, stat.S_ISREG)
            if _PERMISSIONS and stat.S_IMODE(found.st_mode) != _FILE:
                os.chmod(path, _FILE)
                _check_closed(path, os.lstat(path))


def write_private(path: str, data: bytes) -> None:
    """Replace `path` by a file with `data` and mode 0600: all of it or nothing, on disk on return.

    Raises:
        StoreError: it cannot be written.
    """
    with _explained(path), _draft(path, data) as draft:
        os.replace(draft, path)


def read_private(path: str) -> bytes | None:
    """Return the bytes of a file of ours, None if there is none.

    Raises:
        StoreError: it is a symbolic link, another user's, or others may read it.
    """
    with _explained(path):
        try:
            _check_closed(path, os.lstat(path))
            fd = os.open(path, os.O_RDONLY | _NOFOLLOW | _BINARY)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            _check_closed(path, os.fstat(fd))
            return file.read()


def secret(folder: str) -> bytes:
    """Return this user's secret, made by the first process of all that ask at once.

    Raises:
        StoreError: it is not private, damaged, or cannot be written.
    """
    path = os.path.join(folder, "secret")
    for _ in range(_PATIENCE):
        found = read_private(path)
        if found is None:
            _offer(path, os.urandom(_SECRET).hex().encode())
            continue
        if len(found) == 2 * _SECRET:
            with suppress(ValueError):
                return bytes.fromhex(found.decode("ascii"))
        time.sleep(_PAUSE)  # where links are unknown, its maker may not have finished
    raise StoreError(
        f"{path} holds no secret",
        "Delete it and start the agents again; a new one is made.",
    )


def offer_private(path: str, data: bytes) -> None:
    """Create `path` with `data` and mode 0600, unless somebody else has done so.

    Raises:
        StoreError: it cannot be written.
    """
    _offer(path, data)


def keep_secret(folder: str, known: bytes) -> None:
    """Put the secret back that processes still use, if its file was removed or made anew.

    Raises:
        StoreError: it is not private, or cannot be written.
    """
    path, data = os.path.join(folder, "secret"), known.hex().encode()
    if read_private(path) != data:
        write_private(path, data)


def is_locked(path: str) -> bool:
    """Whether another process holds the lock file `path`: a hint, and nothing is changed.

    Not for a process that holds the lock itself. False where it cannot be told without trying.
    """
    try:
        import fcntl
    except ImportError:  # pragma: no cover - Windows has no flock
        return False
    try:
        fd = os.open(path, os.O_RDONLY | _NOFOLLOW)
    except OSError:
        return False
    try:
        # Shared: two that look at the same time do not see each other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def _make_folder(path: str) -> None:
    try:
        os.mkdir(path, _FOLDER)
    except FileExistsError:
        return
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if os.path.isdir(parent):  # the system makes no folders here, as in /proc
            raise
        _make_folder(parent)
        _make_folder(path)
        return
    if _PERMISSIONS:
        os.chmod(path, _FOLDER)  # a umask may have taken even our own rights


def _create(path: str) -> int:
    """Create a file that must not exist yet, private from the first moment; return it open."""
    fd = os.open(path, _CREATE, _FILE)  # with O_EXCL no link is followed
    if _PERMISSIONS:
        os.fchmod(fd, _FILE)
    return fd


def _write(path: str, data: bytes) -> None:
    with os.fdopen(_create(path), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _draft(path: str, data: bytes) -> Iterator[str]:
    """Write `data` beside `path`; what is left of it at the end goes away."""
    draft = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        _write(draft, data)
        yield draft
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


def _offer(path: str, data: bytes) -> None:
    """Create `path` with `data` unless somebody else does so first."""
    with _explained(path), suppress(FileExistsError), _draft(path, data) as draft:
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links: readers have to be patient
            _write(path, data)


def _check_owner(path: str, found: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise StoreError(
            f"{path} is a symbolic link",
            "Remove the link, or set CLAUDE_PEERS_DB to where it points.",
        )
    if not is_kind(found.st_mode):
        wanted = "a folder" if is_kind is stat.S_ISDIR else "a file"
        raise StoreError(
            f"{path} is {_kind(found)}, where {wanted} belongs",
            "Choose another place with CLAUDE_PEERS_DB, or move it away.",
        )
    if _PERMISSIONS and found.st_uid != os.getuid():
        raise StoreError(
            f"{path} belongs to user {found.st_uid} and not to you",
            "Remove it, or choose another place with CLAUDE_PEERS_DB.",
        )


def _kind(found: os.stat_result) -> str:
    if stat.S_ISDIR(found.st_mode):
        return "a folder"
    return "a file" if stat.S_ISREG(found.st_mode) else "a device or pipe"


def _check_closed(path: str, found: os.stat_result) -> None:
    _check_owner(path, found, stat.S_ISREG)
    if _PERMISSIONS and found.st_mode & _OTHERS:
        raise StoreError(
            f"Others may read {path}",
            f"Run `chmod 600 {path}`, or delete it if others have seen it.",
        )


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn what the system says into an error that tells what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)  # passes; nothing else does by itself
        raise StoreError(
            f"{path} cannot be used: {error.strerror}",
            "Free some space on its disk."
            if full
            else "Make its folder yours and writable, or choose another with CLAUDE_PEERS_DB.",
            retry_after=_AGAIN if full else None,
        ) from error
