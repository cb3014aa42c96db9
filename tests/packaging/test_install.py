"""The three ways to install it, from this folder, with pip as it is configured here."""

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from support.machine import Machine
from support.node_tools import claude

from claude_peers import __version__

ROOT = Path(__file__).parents[2]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "build_zipapp.py")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("install"),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh check-out, so that building leaves nothing behind in this one."""
    folder = tmp_path_factory.mktemp("source")
    for part in PARTS:
        shutil.copy(ROOT / part, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "claude_peers", folder / "claude_peers", ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def file(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the single file, built once."""
    built = tmp_path_factory.mktemp("built") / "claude-peers.pyz"
    run(sys.executable, "build_zipapp.py", "--output", built, cwd=source)
    return built


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


def drive(*command: str | Path, cwd: Path) -> None:
    """Let a command show its version, and three sessions of it survive their broker."""
    assert run(*command, "--version", cwd=cwd) == f"claude-peers {__version__}\n"
    told = json.loads(run(*command, "demo", "--json", cwd=cwd))
    assert told["ok"], told
    assert (told["sent"], told["lost"], told["duplicates"]) == (15, 0, 0)


def test_what_pip_installs_works(source: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"

    run(python, "-m", "pip", "install", "--quiet", source, cwd=tmp_path)

    drive(tmp_path / "venv" / "bin" / "claude-peers", cwd=tmp_path)


def test_what_shiv_builds_works(source: Path, tmp_path: Path) -> None:
    shiv = Path(sys.executable).with_name("shiv")
    assert shiv.exists(), "install the project with its `test` extra"

    run(shiv, "-c", "claude-peers", "-o", tmp_path / "claude-peers.pyz", ".", cwd=source)

    drive(tmp_path / "claude-peers.pyz", cwd=tmp_path)


@pytest.mark.bug("U9")
def test_our_own_file_works(file: Path, tmp_path: Path) -> None:
    drive(sys.executable, "-S", file, cwd=tmp_path)


@pytest.mark.processes
@pytest.mark.parametrize("clients", [2, 3])
def test_real_claude_code_talks_through_our_own_file(clients: int, file: Path) -> None:
    harness = ROOT / "tests" / "e2e" / "real_client.py"
    options = (f"--claude={claude()}", "--settle=2.5", "--push-wait=1", f"-n={clients}")
    told = subprocess.run(
        [sys.executable, harness, "--json", *options, "--", sys.executable, file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stdout, told.stderr
    assert [what for holds, what in json.loads(told.stdout)["checks"] if not holds] == []
    assert told.returncode == 0


@pytest.mark.parametrize("way", ["cp", "mv"])
@pytest.mark.fault("F42")
def test_a_session_takes_over_after_the_file_was_replaced_under_it(
    way: str, file: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    used, other = tmp_path / "claude-peers.pyz", tmp_path / "other"
    shutil.copy(file, used)
    other.write_bytes(b"an upgrade that went wrong")
    monkeypatch.setenv("CLAUDE_PEERS_TEST_COMMAND", json.dumps([sys.executable, str(used)]))
    sessions = [machine.session() for _ in range(3)]
    for each in sessions:
        each.list_prompts()
        machine.peer_id(each)
    leader = machine.leader()
    sender, recipient = (each for each in sessions if each is not leader)

    subprocess.run([way, str(other), str(used)], check=True)
    leader.kill(signal.SIGKILL)
    _, failed = sender.call("send_message", to_id=machine.peer_id(recipient), message="still here")

    assert not failed
    assert machine.wait_for_broker(other_than=leader.pid) in {sender.pid, recipient.pid}
    assert "still here" in recipient.call("check_messages")[0]
    assert machine.post("/ledger", {})["balanced"]
