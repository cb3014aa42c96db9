"""The single file, started as users start it."""

import io
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from claude_peers.bundle.start import acquire

WHERE = "import claude_peers; print(claude_peers.__file__)"
LATE = "print('ready', flush=True); input(); from claude_peers.late import WORD; print(WORD)"
PSUTIL = "import os, psutil; print(psutil.__file__, psutil.Process().pid == os.getpid())"


def only_folder(parent: Path) -> Path:
    """Return the folder in `parent`, which must be the only one."""
    (folder,) = (path for path in parent.iterdir() if path.is_dir())
    return folder


def wrote(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


def test_two_builds_give_the_same_bytes(
    builder, code: Path, licenses: Path, psutil_layer, content: bytes, tmp_path: Path
) -> None:
    elsewhere = shutil.copytree(code, tmp_path / "elsewhere")
    pythons = [psutil_layer.python]

    again = builder.build(elsewhere, licenses, pythons=pythons, layers=[psutil_layer])

    assert again == content


def test_nothing_in_the_file_names_the_folder_it_was_built_in(content: bytes, code: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        names = file.namelist()
        naming = [name for name in names if os.fsencode(code.parent.parent) in file.read(name)]

    assert not naming


def test_the_file_can_be_executed(pyz: Path, run) -> None:
    assert pyz.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert pyz.stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_it_runs_compiled_code_on_each_python_it_was_built_for(
    version: str, find_python, builder, code: Path, licenses: Path, pyz: Path, run
) -> None:
    python = find_python(version)
    pythons = [builder.probe(python)]
    builder.write(pyz, builder.build(code, licenses, pythons=pythons, layers=[]))

    place = wrote(run(WHERE, python=python))

    assert place.endswith(f"/{pythons[0].folder}/claude_peers/__init__.pyc")


def test_it_runs_the_sources_on_a_python_it_was_not_built_for(
    builder, code: Path, licenses: Path, pyz: Path, run
) -> None:
    builder.write(pyz, builder.build(code, licenses, pythons=[], layers=[]))

    assert wrote(run(WHERE)).endswith("/src/claude_peers/__init__.py")


def test_imports_come_from_a_copy_that_only_the_user_can_write(run, pyz: Path, cache: Path) -> None:
    place = wrote(run(WHERE))

    copy = only_folder(cache) / "claude-peers.pyz"
    assert place.startswith(f"{copy}/")
    assert copy.read_bytes() == pyz.read_bytes()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (cache, copy.parent, copy)]
    assert modes == [0o700, 0o700, 0o600]


def test_a_second_start_uses_the_copy_as_it_is(run, cache: Path) -> None:
    run(WHERE)
    copy = only_folder(cache) / "claude-peers.pyz"
    before = copy.stat()

    wrote(run(WHERE))

    assert (copy.stat().st_ino, copy.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_copy_that_was_cut_short_is_made_again(run, pyz: Path, cache: Path) -> None:
    run(WHERE)
    copy = only_folder(cache) / "claude-peers.pyz"
    os.truncate(copy, 1000)

    assert wrote(run(WHERE)).startswith(str(copy))
    assert copy.read_bytes() == pyz.read_bytes()


@pytest.mark.parametrize("way", ["cp", "mv"])
@pytest.mark.fault("F42")
def test_a_running_process_imports_on_after_its_file_was_replaced(
    way: str, pyz: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"something else entirely")
    with subprocess.Popen(
        [sys.executable, str(pyz), LATE],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        subprocess.run([way, str(other), str(pyz)], check=True)
        rest, _ = process.communicate("\n", timeout=60)

    assert rest == "still here\n"
    assert pyz.read_bytes() == b"something else entirely"


def test_without_a_cache_the_file_itself_serves(run, pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    place = wrote(run(WHERE, XDG_CACHE_HOME=str(tmp_path / "file" / "below")))

    assert place.startswith(f"{pyz}/")


@pytest.mark.parametrize("mode", [0o720, 0o702])
@pytest.mark.threat("T34")
def test_a_cache_that_others_can_write_is_not_used(run, pyz: Path, cache: Path, mode: int) -> None:
    cache.mkdir(parents=True)
    cache.chmod(mode)

    assert wrote(run(WHERE)).startswith(f"{pyz}/")
    assert not list(cache.iterdir())


def test_a_cache_of_somebody_else_is_not_used(run, pyz: Path, cache: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    cache.mkdir(parents=True, mode=0o700)
    os.chown(cache, 4321, 4321)

    assert wrote(run(WHERE)).startswith(f"{pyz}/")
    assert not list(cache.iterdir())


def test_a_cache_behind_a_link_is_not_used(run, pyz: Path, cache: Path, tmp_path: Path) -> None:
    cache.parent.mkdir(parents=True)
    (tmp_path / "target").mkdir(mode=0o700)
    cache.symlink_to(tmp_path / "target")

    assert wrote(run(WHERE)).startswith(f"{pyz}/")
    assert not list((tmp_path / "target").iterdir())


@pytest.mark.threat("T34")
def test_a_copy_that_others_could_write_is_made_again(run, pyz: Path, cache: Path) -> None:
    run(WHERE)
    home = only_folder(cache)
    home.chmod(0o777)
    (home / "claude-peers.pyz").write_bytes(b"x" * pyz.stat().st_size)

    assert wrote(run(WHERE)).startswith(str(home))
    assert (home / "claude-peers.pyz").read_bytes() == pyz.read_bytes()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_modules_of_the_project_do_not_stand_in_for_ours(run, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("claude_peers", "h11", "psutil", "json", "sqlite3"):
        (project / f"{name}.py").write_text("raise SystemExit('hijacked')\n")
    (project / "theirs.py").write_text("")

    places = wrote(
        run(
            "import claude_peers, h11, psutil, json, sqlite3, theirs; "
            "print(h11.__file__, psutil.__file__, json.__file__)",
            PYTHONPATH=str(project),
        )
    )

    assert str(project) not in places


@pytest.mark.fault("F50")
def test_many_first_starts_make_one_copy_and_unpack_once(
    pyz: Path, environ: dict[str, str], cache: Path
) -> None:
    cache.mkdir(parents=True, mode=0o700)
    line = "import os, psutil, sys; print(os.stat(psutil.__file__).st_ino, os.stat(ARCHIVE).st_ino)"
    line = line.replace("ARCHIVE", "os.path.dirname(sys.path[0])")
    lock = acquire(str(cache))
    starts = [
        subprocess.Popen(
            [sys.executable, str(pyz), line], env=environ, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    os.close(lock)
    outputs = [start.communicate(timeout=60)[0] for start in starts]

    assert [start.returncode for start in starts] == [0] * 8
    assert len(set(outputs)) == 1
    assert not list(cache.rglob("*.new"))


@pytest.mark.fault("F50")
def test_what_a_killed_process_left_is_cleared_away(run, cache: Path) -> None:
    run(PSUTIL)
    home, layer = only_folder(cache), only_folder(only_folder(cache))
    (home / "claude-peers.pyz").rename(home / "claude-peers.pyz.new")
    os.truncate(home / "claude-peers.pyz.new", 1000)
    layer.rename(home / f"{layer.name}.new")

    assert wrote(run(PSUTIL)).startswith(str(layer))
    assert not list(cache.rglob("*.new"))


def test_psutil_is_unpacked_when_it_is_first_imported(run, cache: Path) -> None:
    run(WHERE)
    assert not [path for path in only_folder(cache).iterdir() if path.is_dir()]

    place, works = wrote(run(PSUTIL)).split()

    layer = only_folder(only_folder(cache))
    assert place.startswith(f"{layer}/")
    assert works == "True"
    assert stat.S_IMODE(layer.stat().st_mode) == 0o700


def edit(layer: Path) -> None:
    (native,) = layer.rglob("*.so")
    native.write_bytes(native.read_bytes()[:-1] + b"x")


def add(layer: Path) -> None:
    (layer / "sitecustomize.pyc").write_bytes(b"")


def remove(layer: Path) -> None:
    next(layer.rglob("_common.pyc")).unlink()


def link(layer: Path) -> None:
    native = next(layer.rglob("*.so"))
    native.rename(layer.parent / native.name)
    native.symlink_to(layer.parent / native.name)


def open_up(layer: Path) -> None:
    layer.chmod(0o777)


@pytest.mark.parametrize("tamper", [edit, add, remove, link, open_up])
@pytest.mark.threat("T34")
def test_a_layer_that_was_touched_is_unpacked_again(tamper, run, cache: Path) -> None:
    run(PSUTIL)
    layer = only_folder(only_folder(cache))
    names = {path.relative_to(layer) for path in layer.rglob("*")}
    tamper(layer)

    place, works = wrote(run(PSUTIL)).split()

    assert (place.startswith(f"{layer}/"), works) == (True, "True")
    assert {path.relative_to(layer) for path in layer.rglob("*")} == names
    assert not any(path.is_symlink() for path in layer.rglob("*"))
    assert stat.S_IMODE(layer.stat().st_mode) == 0o700


@pytest.mark.threat("T34")
def test_a_layer_that_was_replaced_by_a_link_is_refused(run, cache: Path) -> None:
    run(PSUTIL)
    layer = only_folder(only_folder(cache))
    layer.rename(layer.parent / "moved")
    layer.symlink_to(layer.parent / "moved")

    place, works = wrote(run(PSUTIL)).split()

    assert (place.startswith(str(cache)), works) == (False, "True")


def test_without_a_cache_a_layer_goes_with_its_process(run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    place, works = wrote(run(PSUTIL, XDG_CACHE_HOME=str(tmp_path / "file"))).split()

    assert (place.startswith(str(tmp_path / "temporary")), works) == (True, "True")
    assert not list((tmp_path / "temporary").iterdir())


def test_a_missing_layer_says_what_to_install(run) -> None:
    done = run("import mcp", flags=["-S"])

    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: mcp is not in this file for ")
    assert last.endswith("; install with `pipx install claude-peers`, which brings it.")


def test_a_missing_layer_may_be_installed_otherwise(run, tmp_path: Path) -> None:
    (tmp_path / "mcp.py").write_text("")

    line = "import mcp; print(mcp.__file__)"

    assert wrote(run(line, flags=["-S"], PYTHONPATH=str(tmp_path))) == str(tmp_path / "mcp.py")


@pytest.mark.slow
def test_the_sdk_can_be_imported_from_its_layer(
    builder, install, code: Path, licenses: Path, pyz: Path, run, cache: Path, tmp_path: Path
) -> None:
    here = builder.probe(sys.executable)
    tree = install(["mcp"], tmp_path / "sdk")
    layer = builder.Layer(name="sdk", machine=here.machine, python=here, tree=tree)
    builder.write(pyz, builder.build(code, licenses, pythons=[here], layers=[layer]))

    line = "import pydantic, mcp.server, h11; print(mcp.__file__, pydantic.__file__, h11.__file__)"
    mcp, pydantic, h11 = wrote(run(line, flags=["-S"])).split()

    layer = only_folder(only_folder(cache))
    assert mcp.startswith(f"{layer}/mcp/")
    assert pydantic.startswith(f"{layer}/pydantic/")
    assert "claude-peers.pyz/" in h11


@pytest.mark.parametrize("version", ["2.7", "3.8", "3.10"])
def test_an_old_python_says_which_one_is_needed(version: str, find_python, run) -> None:
    done = run(WHERE, python=find_python(version), PATH="/nowhere")

    assert done.returncode == 1
    assert done.stderr.startswith(f"claude-peers needs Python 3.11 or newer; this is {version} (")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("version", ["2.7", "3.8", "3.10"])
def test_an_old_python_hands_over_to_a_newer_one_that_works(
    version: str, find_python, run, tmp_path: Path
) -> None:
    (tmp_path / "python3.14").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "python3.14").chmod(0o755)
    (tmp_path / f"python3.{sys.version_info[1]}").symlink_to(sys.executable)

    done = run(
        "import sys; print(sys.version_info[1])", python=find_python(version), PATH=str(tmp_path)
    )

    assert wrote(done) == str(sys.version_info[1])
