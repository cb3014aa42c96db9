"""What prepares a process from the single file, function by function."""

import importlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from claude_peers.bundle import layers, start

MONTH = start.MONTH


@pytest.fixture(autouse=True)
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy in this process: the runner has threads, and a fork of it could hang."""
    if "apart" not in request.node.name:
        monkeypatch.setattr(start, "apart", lambda work: work())


@pytest.fixture
def built(content: bytes) -> str:
    """Return the build id that is written in the file."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        line = file.read("__main__.py").decode().partition('BUILD = "')[2]
    return line.partition('"')[0]


@pytest.fixture
def kept_copy(cache: Path, built: str) -> Path:
    """Return where the copy belongs."""
    return cache / built / start.FILE


@pytest.mark.parametrize("base", ["/elsewhere", "not/absolute", ""])
@pytest.mark.parametrize(("platform", "folders"), [("linux", Unix), ("darwin", MacOS)])
def test_the_cache_is_where_platformdirs_would_have_it(
    platform: str, folders, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", base)

    found = start.cache_folder(os.environ, platform)

    assert found == folders("claude-peers", appauthor=False).user_cache_dir


@pytest.mark.bug("U9")
def test_the_cache_on_windows_is_in_the_local_profile() -> None:
    found = start.cache_folder({"LOCALAPPDATA": "/local"}, "win32")

    assert found == os.path.join("/local", "claude-peers", "Cache")
    assert "AppData" in start.cache_folder({}, "win32")


@pytest.mark.parametrize(
    ("platform", "machine", "libc", "tag"),
    [
        ("linux-x86_64", "x86_64", "glibc 2.36", "linux_x86_64"),
        ("linux-aarch64", "aarch64", "", "linux_aarch64_musl"),
        ("macosx-10.9-universal2", "arm64", "", "macosx_arm64"),
        ("macosx-14.0-x86_64", "x86_64", "", "macosx_x86_64"),
        ("win-amd64", "", "", "win_amd64"),
    ],
)
def test_a_layer_is_named_by_what_its_native_code_depends_on(
    platform: str, machine: str, libc: str, tag: str
) -> None:
    assert layers.platform_tag(platform, machine, libc) == tag


def test_what_pythonpath_names_comes_last() -> None:
    path = ["/a.pyz", "/project", "/lib/python", "/site"]

    assert start.ordered(path, "/a.pyz", "/project:/absent") == ["/lib/python", "/site", "/project"]
    assert start.ordered(path, "/a.pyz", None) == path[1:]


def test_a_start_puts_the_copy_first(
    pyz: Path, kept_copy: Path, built: str, environ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", environ)
    monkeypatch.setattr(sys, "path", [str(pyz), "/lib"])

    origin, home = start.start("py311", build=built, archive=str(pyz))

    assert (origin, home) == (str(kept_copy), str(kept_copy.parent))
    assert sys.path == [f"{kept_copy}/py311", "/lib"]


def test_a_start_without_a_cache_stays_with_the_file(
    pyz: Path, built: str, environ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", environ | {"XDG_CACHE_HOME": str(pyz)})
    monkeypatch.setattr(sys, "path", [str(pyz), "/lib"])

    assert start.start("py311", build=built, archive=str(pyz)) == (str(pyz), None)
    assert sys.path == [f"{pyz}/py311", "/lib"]


def test_a_copy_is_made_once_and_again_when_others_could_write_it(
    pyz: Path, kept_copy: Path, built: str
) -> None:
    assert start.settle(str(pyz), str(kept_copy), built)
    first = kept_copy.stat().st_ino
    assert start.settle(str(pyz), str(kept_copy), built)
    assert start.keep(str(pyz), str(kept_copy), built)
    assert kept_copy.stat().st_ino == first

    kept_copy.parent.chmod(0o777)
    (kept_copy.parent / "planted").write_text("")

    assert start.settle(str(pyz), str(kept_copy), built)
    assert not (kept_copy.parent / "planted").exists()


APART = """
import os, sys
from claude_peers.bundle import start

def load():
    import zipfile
    return sys.argv[1] == "yes"

def fail():
    raise OSError("no space")

print(start.apart(load), "zipfile" in sys.modules)
if sys.argv[1] == "raises":
    print(start.apart(fail))
if sys.argv[1] == "no fork":
    del os.fork
    print(start.apart(load), "zipfile" in sys.modules)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("yes", "True False"),
        ("no", "False False"),
        ("raises", "False False False"),
        ("no fork", "False False False True"),
    ],
)
def test_work_done_apart_leaves_nothing_loaded(how: str, said: str) -> None:
    command = [sys.executable, "-I", "-c", APART, how]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)

    assert done.stdout.split() == said.split()


def test_a_file_that_was_replaced_while_starting_is_not_kept(
    pyz: Path, kept_copy: Path, built: str
) -> None:
    other = kept_copy.parents[1] / ("f" * 32) / start.FILE

    assert not start.keep(str(pyz), str(other), "f" * 32)
    assert not other.exists()
    assert start.keep(str(pyz), str(kept_copy), built)


def test_a_file_that_is_no_archive_any_more_is_not_kept(pyz: Path, kept_copy: Path, built) -> None:
    pyz.write_bytes(b"something else")

    assert not start.settle(str(pyz), str(kept_copy), built)
    assert not kept_copy.exists()


def test_a_start_waits_for_the_lock_only_so_long(
    pyz: Path, kept_copy: Path, built: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "PATIENCE", 0.02)
    cache.mkdir(parents=True, mode=0o700)
    lock = start.acquire(str(cache))

    assert not start.keep(str(pyz), str(kept_copy), built)

    os.close(lock)
    assert start.keep(str(pyz), str(kept_copy), built)


def test_a_folder_of_somebody_else_is_not_private(tmp_path: Path, monkeypatch) -> None:
    assert start.private(str(tmp_path.resolve())) == (not tmp_path.stat().st_mode & 0o022)

    monkeypatch.setattr(os, "getuid", lambda: 4321)

    assert not start.private(str(tmp_path))


def test_what_is_not_there_or_of_another_kind_is_not_private(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert not start.private(str(tmp_path / "absent"))
    assert not start.private(str(tmp_path / "file"))


def test_a_folder_that_must_not_be_replaced_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)

    with pytest.raises(PermissionError):
        start.make_private(str(tmp_path / "open"), replace=False)


def old_build(cache: Path, letter: str, age: float) -> Path:
    folder = cache / (letter * 32)
    folder.mkdir(parents=True)
    (folder / start.FILE).write_bytes(b"")
    os.utime(folder, (-age, -age))
    return folder


def test_builds_that_nobody_used_for_a_month_are_swept(cache: Path) -> None:
    old = old_build(cache, "a", MONTH + 1)
    recent = old_build(cache, "b", MONTH - 1)
    spared = old_build(cache, "c", MONTH + 1)
    (cache / "log").mkdir()
    os.utime(cache / "log", (-MONTH * 2, -MONTH * 2))

    start.sweep(str(cache), str(spared), 0.0)

    left = {path.name for path in cache.iterdir()}
    assert left == {recent.name, spared.name, "log"}
    assert not old.exists()


def test_an_old_build_that_runs_is_not_swept(cache: Path) -> None:
    old = old_build(cache, "a", MONTH + 1)
    assert start.hold(str(old))
    os.utime(old, (-MONTH * 2, -MONTH * 2))

    start.sweep(str(cache), "", 0.0)

    assert old.exists()


def test_a_link_among_the_builds_is_not_followed(cache: Path, tmp_path: Path) -> None:
    cache.mkdir(parents=True)
    target = old_build(tmp_path, "a", MONTH + 1)
    (cache / ("b" * 32)).symlink_to(target)
    os.utime(cache / ("b" * 32), (-MONTH * 2, -MONTH * 2), follow_symlinks=False)

    start.sweep(str(cache), "", 0.0)

    assert (target / start.FILE).exists()


def test_a_start_marks_its_build_as_used(cache: Path) -> None:
    old = old_build(cache, "a", MONTH + 1)

    assert start.hold(str(old))

    assert old.stat().st_mtime > 0
    assert not start.hold(str(cache / "absent"))


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch):
    """Undo what a mounted layer does to this process."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    importlib.invalidate_caches()


def test_a_layer_is_mounted_after_the_package_and_once(
    pyz: Path, cache: Path, forgotten, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"psutil": "psutil", "mcp": "sdk"}
    before = list(sys.path)

    layers.mount(names, "psutil", str(pyz), str(cache))
    layers.mount(names, "psutil", str(pyz), str(cache))

    folder = str(cache / f"psutil-{layers.machine_tag()}")
    assert sys.path == [before[0], folder, *before[1:]]
    assert names == {"mcp": "sdk"}


def test_two_threads_may_mount_the_same_layer(pyz: Path, cache: Path, forgotten) -> None:
    before = list(sys.path)

    for _ in range(2):
        layers.mount({"psutil": "psutil"}, "psutil", str(pyz), str(cache))

    assert len(sys.path) == len(before) + 1


def test_a_layer_that_is_missing_is_looked_for_elsewhere(pyz: Path, forgotten) -> None:
    before = list(sys.path)

    layers.mount({"h11": "sdk"}, "h11", str(pyz), None)

    assert sys.path == before


def test_a_layer_that_is_nowhere_is_an_import_error(pyz: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="pipx install claude-peers") as caught:
        layers.mount({"no_such_module": "sdk"}, "no_such_module", str(pyz), None)

    assert caught.value.name == "no_such_module"


def test_a_layer_that_cannot_be_kept_is_unpacked_for_this_process(
    pyz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_exit: list[Path] = []
    monkeypatch.setattr("atexit.register", lambda _, folder, **__: at_exit.append(Path(folder)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").write_text("")

    stem = f"psutil-{layers.machine_tag()}"
    folders = [layers.unpack(str(pyz), stem, home) for home in (f"{tmp_path}/file/below", None)]

    assert [folder.parent for folder in folders] == at_exit
    assert all(next(folder.rglob("*.so")) for folder in folders)


def test_what_is_left_of_a_killed_unpacking_is_removed(pyz: Path, cache: Path) -> None:
    stem = f"psutil-{layers.machine_tag()}"
    (cache / f"{stem}.new").mkdir(parents=True, mode=0o700)
    (cache / f"{stem}.new" / "half").write_text("")
    cache.chmod(0o700)

    folder = layers.unpack(str(pyz), stem, str(cache))

    assert folder == cache / stem
    assert not (cache / f"{stem}.new").exists()


def test_a_folder_counts_only_with_exactly_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "layer"
    folder.mkdir(mode=0o700)
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("text")
    expected = layers.described(folder)

    assert layers.intact(folder, expected)

    (folder / "inner" / "link").symlink_to("file")
    assert not layers.intact(folder, expected)
    assert not layers.intact(tmp_path / "absent", expected)


def test_a_folder_that_cannot_be_read_is_not_intact(tmp_path: Path, monkeypatch) -> None:
    tmp_path.chmod(0o700)

    def refuse(_: Path) -> str:
        raise PermissionError

    monkeypatch.setattr(layers, "described", refuse)

    assert not layers.intact(tmp_path, "")
