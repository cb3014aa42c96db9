"""The three ways to install it, from this folder, with pip as it is configured here."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from claude_peers import __version__

ROOT = Path(__file__).parents[2]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "build_zipapp.py")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh check-out, so that building leaves nothing behind in this one."""
    folder = tmp_path_factory.mktemp("source")
    for part in PARTS:
        shutil.copy(ROOT / part, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "claude_peers", folder / "claude_peers", ignore=ignored)
    return folder


def run(*command: str | Path, cwd: Path) -> str:
    """Return what `command` prints, run with pip's settings and a home of its own."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    for name in [name for name in environ if name.startswith(("CLAUDE", "COV"))]:
        del environ[name]
    environ |= {"HOME": str(cwd), "XDG_CACHE_HOME": str(cwd / "cache")}
    done = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pip_installs_a_command_that_works(source: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"

    run(python, "-m", "pip", "install", "--quiet", source, cwd=tmp_path)

    command = tmp_path / "venv" / "bin" / "claude-peers"
    assert __version__ in run(command, "--version", cwd=tmp_path)


def test_shiv_builds_a_file_that_works(source: Path, tmp_path: Path) -> None:
    shiv = Path(sys.executable).with_name("shiv")
    assert shiv.exists(), "install the project with its `test` extra"

    run(shiv, "-c", "claude-peers", "-o", tmp_path / "claude-peers.pyz", ".", cwd=source)

    assert __version__ in run(tmp_path / "claude-peers.pyz", "--version", cwd=tmp_path)


def test_our_own_build_makes_a_file_that_works(source: Path, tmp_path: Path) -> None:
    run(sys.executable, "build_zipapp.py", "--output", tmp_path / "claude-peers.pyz", cwd=source)

    file = tmp_path / "claude-peers.pyz"
    assert __version__ in run(sys.executable, "-S", file, "--version", cwd=tmp_path)
