"""Prepares a process that was started from the single file, before the package is imported.

`build_zipapp.py` makes the file. Its `__main__` (see `stub.py`) finds a Python that is new enough
and calls `start` below, having taken this module out of the file alone. Theory:

- An archive must not be imported from where the user keeps it: once it is replaced, by `cp` or by
  `mv`, every later import of a running process fails, and after an upgrade nobody could take over.
  So the first start copies it to `<cache>/<build id>/`, and all imports come from that copy.
- The build id is a hash over what is in the file. A copy is compared with it when it is made;
  later starts only ask the file system whether the copy is whole and nobody else may write it.
- A cache that cannot be trusted or written is not used and not mentioned: the file the user
  started serves instead.

Nothing here may import the package (which one, is decided here), or anything outside the standard
library. What a warm start does not need is imported in the function that needs it; pathlib alone
would cost every start some milliseconds.
"""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping

FILE = "claude-peers.pyz"
UNBUILT = "0" * 32  # stands in `__main__.py` for the build id while that is computed
PATIENCE = 5.0  # seconds; unpacking takes one, so whoever holds the lock longer is stopped
MONTH = 30 * 86_400  # seconds


def start(code: str, *, build: str, archive: str) -> tuple[str, str | None]:
    """Make the archive's code importable for the rest of this process's life.

    Args:
        code: the folder in the archive that fits this Python.
        build: the build id.
        archive: the file the user started.

    Returns:
        The file that imports come from, and the folder that layers may be unpacked to.
    """
    environ: Mapping[str, str] = os.environ  # noqa: TID251 - this runs before there are settings
    home = os.path.join(cache_folder(environ, sys.platform), build)
    copy = os.path.join(home, FILE)
    settled = settle(archive, copy, build)
    origin = copy if settled else archive
    sys.path[:] = [
        os.path.join(origin, code),
        *ordered(sys.path, archive, environ.get("PYTHONPATH")),
    ]
    return origin, home if settled else None


def ordered(path: Iterable[str], archive: str, pythonpath: str | None) -> list[str]:
    """Return `path` without the archive, and with what PYTHONPATH put there last.

    That variable is set for the project the agent works on. A module of that project must not
    stand in for one of the standard library here.
    """
    given = {os.path.abspath(entry) for entry in (pythonpath or "").split(os.pathsep)}
    others = [entry for entry in path if os.path.abspath(entry) != archive]
    if not pythonpath:
        return others
    return sorted(others, key=lambda entry: os.path.abspath(entry) in given)


def cache_folder(environ: Mapping[str, str], platform: str) -> str:
    """Return the folder that platformdirs calls the user's cache folder, without its import."""
    if platform == "win32":
        base = environ.get("LOCALAPPDATA") or os.path.expanduser("~\\AppData\\Local")
        return os.path.join(base, "claude-peers", "Cache")
    if os.path.isabs(base := environ.get("XDG_CACHE_HOME", "")):
        return os.path.join(base, "claude-peers")
    base = "~/Library/Caches" if platform == "darwin" else "~/.cache"
    return os.path.join(os.path.expanduser(base), "claude-peers")


def settle(archive: str, copy: str, build: str) -> bool:
    """Tell whether imports may come from `copy`, making it first where it is not there."""
    home = os.path.dirname(copy)
    if hold(home) and kept(copy, archive):
        return True
    return apart(lambda: keep(archive, copy, build)) and hold(home) and kept(copy, archive)


def apart(work: Callable[[], bool]) -> bool:
    """Do `work` in a child where the system can, so that this process keeps nothing it loaded.

    The first to start is usually the broker, and stays it: copying would cost it 3 MB for life.
    """
    if not hasattr(os, "fork"):
        return work()
    child = os.fork()
    if not child:
        done = False
        try:
            done = work()
        finally:
            os._exit(not done)
    return os.waitpid(child, 0)[1] == 0


def private(path: str, *, kind: int = stat.S_IFDIR) -> bool:
    """Tell whether `path` is a real folder (or file) of ours that nobody else may write."""
    try:
        facts = os.lstat(path)
    except OSError:
        return False
    if stat.S_IFMT(facts.st_mode) != kind:
        return False
    if sys.platform == "win32":  # pragma: no cover - the profile's access list says it there
        return True
    return facts.st_uid == os.getuid() and not facts.st_mode & 0o022


def kept(copy: str, archive: str) -> bool:
    """Tell whether `copy` is there, whole, and out of everybody else's reach."""
    home = os.path.dirname(copy)
    try:
        whole = os.stat(copy).st_size == os.stat(archive).st_size
    except OSError:
        return False
    folders = (os.path.dirname(home), home)
    return whole and all(map(private, folders)) and private(copy, kind=stat.S_IFREG)


def hold(home: str) -> bool:
    """Keep `home` from being swept while this process lives, and note that it is in use."""
    if sys.platform == "win32":  # pragma: no cover - folders cannot be locked there
        return True
    import fcntl

    try:
        folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # never closed
        fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.utime(home)
    except OSError:
        return False
    return True


def keep(archive: str, copy: str, build: str) -> bool:
    """Copy `archive` to `copy`, once for all processes that want it; tell whether that worked."""
    from zipfile import BadZipFile
    from zlib import error as BadData  # noqa: N812 - zlib's own name says nothing

    home = os.path.dirname(copy)
    cache = os.path.dirname(home)
    try:
        make_private(cache, replace=False)
        lock = acquire(cache)
        try:
            make_private(home, replace=True)
            if not kept(copy, archive):
                copy_whole(archive, copy, build)
                sweep(cache, home, os.stat(copy).st_mtime)
        finally:
            os.close(lock)
    except (OSError, ValueError, BadZipFile, BadData):
        return False
    return True


def make_private(folder: str, *, replace: bool) -> None:
    """Make sure that `folder` is ours alone.

    Raises:
        OSError: it is not, and could not be replaced or must not be.
    """
    if replace and os.path.lexists(folder) and not private(folder):
        from shutil import rmtree

        rmtree(folder)
    previous = os.umask(0o077)  # for its parents, too: makedirs gives its mode to the last alone
    try:
        os.makedirs(folder, exist_ok=True)
    finally:
        os.umask(previous)
    if not private(folder):
        raise PermissionError(f"{folder} is not ours alone")


def copy_whole(archive: str, copy: str, build: str) -> None:
    """Write `copy` in one step: readers see nothing or all of it.

    Raises:
        ValueError: the archive is not the one that this process was started from.
    """
    from io import BytesIO
    from zipfile import ZipFile

    with open(archive, "rb") as file:
        content = file.read()
    with ZipFile(BytesIO(content)) as entries:
        found = build_id({name: entries.read(name) for name in entries.namelist()}, build)
    if found != build:
        raise ValueError(f"{archive} was replaced")
    temporary = f"{copy}.new"  # under the lock; one that is there was left by a killed process
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, copy)


def build_id(entries: Mapping[str, bytes], build: str = UNBUILT) -> str:
    """Return the hash of an archive's entries, apart from the id that is written in them."""
    from hashlib import sha256

    total = sha256()
    for name in sorted(entries):
        content = entries[name]
        if name == "__main__.py":
            content = content.replace(build.encode(), UNBUILT.encode())
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()[: len(UNBUILT)]


def sweep(cache: str, spared: str, now: float) -> None:
    """Remove the folders of other builds that nobody runs, or started within a month."""
    with os.scandir(cache) as folders:
        for folder in folders:
            if folder.path == spared or len(folder.name) != len(UNBUILT):
                continue
            if now - folder.stat(follow_symlinks=False).st_mtime > MONTH:
                remove_unused(folder.path)


def remove_unused(home: str) -> None:
    """Remove `home`, unless a process holds it."""
    from shutil import rmtree

    if sys.platform == "win32":  # pragma: no cover - an open file cannot be removed there
        rmtree(home, ignore_errors=True)
        return
    import fcntl

    try:
        folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        rmtree(home, ignore_errors=True)
    except OSError:
        return
    finally:
        os.close(folder)


def acquire(folder: str) -> int:
    """Return the lock on `folder`, to be released by closing it.

    Raises:
        OSError: it could not be had in time, or not at all.
    """
    from time import monotonic, sleep

    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    end = monotonic() + PATIENCE
    try:
        while not taken(lock):
            if monotonic() > end:
                raise TimeoutError(f"{folder} stays locked")
            sleep(0.01)
    except OSError:
        os.close(lock)
        raise
    return lock


def taken(lock: int) -> bool:
    """Try to take `lock`; tell whether nobody else has it."""
    try:
        if sys.platform == "win32":  # pragma: no cover - Windows
            import msvcrt

            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the second is what Windows says
        return False
    return True
