"""Unpacks the parts of the single file that cannot be imported from a zip.

Native code needs real files, and the official SDK is too large to load for everybody. They lie in
the file as layers: one zip each for a platform and a Python, stored in the zip. The file's
`__main__` calls `mount` when a name in a layer is first imported. The layer is unpacked then, once
for all processes, and every process compares what lies there with the hashes in the archive
before it imports any of it; whatever differs is thrown away and unpacked again.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

from claude_peers.bundle.start import acquire, make_private, private


def mount(names: dict[str, str], name: str, archive: str, home: str | None) -> None:
    """Make the layer that holds `name` importable, before everything but the package itself.

    Args:
        names: the importable names and their layers; those of this layer are taken out.
        name: what is being imported.
        archive: the file to unpack from.
        home: the folder to unpack to; without one, a folder that goes with this process.

    Raises:
        ModuleNotFoundError: the file has no such layer for this machine, nor has Python.
    """
    layer = names.get(name)
    if layer is None:
        return  # another thread was faster
    try:
        add(unpack(archive, f"{layer}-{machine_tag()}", home))
    except KeyError:
        from importlib.machinery import PathFinder

        if PathFinder.find_spec(name):
            return
        raise ModuleNotFoundError(
            f"{name} is not in this file for {machine_tag()}; "
            "install with `pipx install claude-peers`, which brings it.",
            name=name,
        ) from None
    for each in [each for each, other in list(names.items()) if other == layer]:
        names.pop(each, None)


def add(folder: Path) -> None:
    """Put `folder` second on the path, after the package; its .pth files count."""
    from site import addsitedir

    if str(folder) not in sys.path:
        before = list(sys.path)
        addsitedir(str(folder))
        added = [entry for entry in sys.path if entry not in before]
        sys.path[:] = [*before[:1], *added, *before[1:]]


def unpack(archive: str, stem: str, home: str | None) -> Path:
    """Return the folder in which the layer `stem` lies, complete and as built.

    Raises:
        KeyError: the archive has no such layer.
        OSError: it cannot be written anywhere.
    """
    with ZipFile(archive) as file:
        expected = file.read(f"layers/{stem}.sha256").decode()
        try:
            if home is not None:
                return unpack_once(file, stem, Path(home), expected)
        except OSError:
            pass  # a full or strange disk: the temporary folder may lie on another
        folder = temporary_home() / stem
        extract(file, stem, folder)
        return folder


def unpack_once(file: ZipFile, stem: str, home: Path, expected: str) -> Path:
    """Return the layer's folder in `home`, which all processes share."""
    from shutil import rmtree

    folder = home / stem
    fresh = home / f"{stem}.new"  # under the lock; one that is there was left by a killed process
    make_private(str(home), replace=False)
    lock = acquire(str(home))
    try:
        if not intact(folder, expected):
            for old in (folder, fresh):
                if os.path.lexists(old):
                    rmtree(old)
            extract(file, stem, fresh)
            fresh.rename(folder)
    finally:
        os.close(lock)
    return folder


def extract(file: ZipFile, stem: str, folder: Path) -> None:
    """Write the layer's files into the new folder `folder`."""
    from io import BytesIO

    folder.mkdir(0o700)
    with ZipFile(BytesIO(file.read(f"layers/{stem}.zip"))) as layer:
        layer.extractall(folder)


def temporary_home() -> Path:
    """Return a private folder that is removed when this process ends."""
    from atexit import register
    from shutil import rmtree
    from tempfile import mkdtemp

    folder = mkdtemp(prefix="claude-peers-")
    register(rmtree, folder, ignore_errors=True)
    return Path(folder)


def intact(folder: Path, expected: str) -> bool:
    """Tell whether `folder` is ours alone and has the files as expected, unchanged, no others."""
    try:
        return private(str(folder)) and described(folder) == expected
    except OSError:
        return False


def described(folder: Path) -> str:
    """Return the manifest of what lies under `folder`."""
    from hashlib import sha256

    hashes: dict[str, str] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            hashes[name] = "not a real file"
        elif path.is_file():
            hashes[name] = sha256(path.read_bytes()).hexdigest()
    return manifest(hashes)


def manifest(hashes: Mapping[str, str]) -> str:
    """Return the text that says which files a layer has: a hash and a name in each line."""
    return "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))


def machine_tag() -> str:
    """Return the platform and Python a layer must have been built for to be loaded here."""
    import sysconfig

    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError):  # pragma: no cover - not Linux, or not glibc
        libc = ""
    machine = os.uname().machine if hasattr(os, "uname") else ""
    dialect = "py" if sys.implementation.name == "cpython" else sys.implementation.name
    threads = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    platform = platform_tag(sysconfig.get_platform(), machine, libc)
    return f"{platform}-{dialect}{sys.version_info[0]}{sys.version_info[1]}{threads}"


def platform_tag(platform: str, machine: str, libc: str) -> str:
    """Return what native code depends on, from what Python, system and C library say.

    Apple's Python names the oldest system it runs on, and may be built for two processors.
    """
    if platform.startswith("macosx"):
        return f"macosx_{machine}"
    musl = "_musl" if platform.startswith("linux") and not libc.startswith("glibc") else ""
    return platform.replace("-", "_") + musl
