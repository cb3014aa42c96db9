"""What the product shows of itself: on the network, in process lists, in its ids, in its parts."""

import ast
import os
import random
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.clients import LINUX
from support.inproc import Wire, running
from support.machine import Machine, command
from support.waiting import eventually
from threats.naive import naive

ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-31d0"
LOOPBACK = "0100007F"
LISTENING = "0A"


def sockets_of(pid: int, kind: str) -> list[list[str]]:
    """Return the lines of `/proc/net/<kind>` that are about a socket of this process."""
    links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    lines = Path(f"/proc/net/{kind}").read_text(encoding="ascii").splitlines()[1:]
    return [words for words in map(str.split, lines) if words[9] in inodes]


@pytest.mark.bug("P3")
@LINUX
@pytest.mark.threat("T13")
def test_by_default_a_broker_listens_on_this_machine_alone_and_announces_nothing(machine: Machine):
    node = machine.serve()
    listening = [
        words[1].partition(":")[0]
        for kind in ("tcp", "tcp6")
        for words in sockets_of(node.pid, kind)
        if words[3] == LISTENING
    ]
    assert listening == [LOOPBACK]
    assert sockets_of(node.pid, "udp") == sockets_of(node.pid, "udp6") == []


@LINUX
@pytest.mark.threat("T13")
def test_a_server_that_listens_everywhere_is_told_apart():
    code = "import socket; s = socket.create_server(('', 0)); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as naive:
        assert naive.stdout is not None
        naive.stdout.readline()
        (words,) = [each for each in sockets_of(naive.pid, "tcp") if each[3] == LISTENING]
        naive.communicate(b"\n")
    assert words[1].startswith("00000000:")


def told_of(pid: int) -> bytes:
    """Return what everybody, or at least this user's programs, may read about a process."""
    folder = Path(f"/proc/{pid}")
    return (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()


@LINUX
@pytest.mark.threat("T27")
def test_neither_texts_nor_secrets_are_in_a_command_line_or_an_environment(machine: Machine):
    session = machine.session()
    session.list_prompts()
    you = machine.peer_id(session)
    token = machine.post("/register", {})["token"]
    sending = subprocess.Popen(
        [*command(), "cli", "send", you, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=machine.environment(),
    )
    assert sending.stdin is not None
    sending.stdin.write(CANARY.encode())
    sending.stdin.flush()
    secret = (machine.home / ".claude-peers.d" / "secret").read_text()
    pids = eventually(lambda: len(machine.left()) >= 2 and machine.left())
    for told in map(told_of, pids):
        assert machine.mark.encode() in told
        for hidden in (CANARY, secret, token):
            assert hidden.encode() not in told
    sending.communicate()
    assert sending.returncode == 0
    assert session.wait_for_push(CANARY)


@LINUX
@pytest.mark.threat("T27")
def test_a_text_that_is_an_argument_can_be_read_by_everybody():
    with subprocess.Popen(
        [sys.executable, "-c", "input()", CANARY], stdin=subprocess.PIPE
    ) as naive:
        eventually(lambda: CANARY.encode() in told_of(naive.pid))  # once it has become that program
        naive.communicate(b"\n")


@LINUX
@pytest.mark.threat("T27")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secret_that_others_could_have_read_is_not_used(machine: Machine, mode):
    machine.serve()
    secret = machine.home / ".claude-peers.d" / "secret"
    secret.chmod(mode)
    ran = machine.cli("peers")
    assert ran.returncode != 0
    assert f"Others may read {secret}" in ran.stderr
    assert "chmod 600" in ran.stderr


@pytest.mark.threat("T29")
def test_a_broker_that_logs_what_it_does_logs_the_texts():
    with naive() as (port, broker), Wire(port) as wire:
        wire.ask("/send-message", {"from_id": "cli", "to_id": "x", "text": CANARY})
        assert [line for line in broker.log if CANARY in line]


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / "claude_peers").rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def imported(module: ast.Module) -> set[str]:
    """Return the top-level names a module imports, wherever in it."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.threat("T37")
def test_ids_and_tokens_come_from_the_system_and_not_from_a_seed():
    registered = []
    for _ in range(2):
        random.seed(1)
        with running() as broker, Wire(broker.port) as wire:
            registered += [wire.ask("/register", {})[1] for _ in range(50)]
    assert all(re.fullmatch("[a-z0-9]{8}", each["id"]) for each in registered)
    assert len({each["id"] for each in registered}) == len(registered)
    assert len({each["token"] for each in registered}) == len(registered)
    assert min(len(each["token"]) for each in registered) >= 43  # 256 bits in base 64
    assert not [path for path, module in modules() if "random" in imported(module)]


@pytest.mark.threat("T37")
def test_a_token_is_kept_as_a_digest_only():
    with running() as broker, Wire(broker.port) as wire:
        joined = wire.ask("/register", {})[1]
        peer = broker.do(lambda: broker.broker.roster.get(joined["id"]))
        (row,) = wire.ask("/list-peers")[1]
    assert joined["token"] not in repr(peer)
    assert joined["token"] not in str(row) and str(peer.token_hash) not in str(row)


@pytest.mark.threat("T37")
def test_secrets_are_compared_in_one_time_however_much_is_right(monkeypatch):
    from claude_peers.wire import proof

    compared = []
    monkeypatch.setattr(
        proof.hmac, "compare_digest", lambda one, other: compared.append((one, other)) or True
    )
    assert proof.same("right", "wrong")
    assert proof.proven_epoch(b"s", "n", "7 0000") == 7
    assert len(compared) == 2


def locked() -> dict[str, list[str]]:
    """Return the hashes of each package in the lock file."""
    text = (ROOT / ".ci" / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text, "whoever installs decides where from"
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    return {
        re.split("==", each)[0]: re.findall(r"--hash=sha256:([0-9a-f]{64})\b", each)
        for each in entries
    }


def behind(name: str, known: set[str]) -> set[str]:
    """Return every package that is needed on this machine where `name` is installed."""
    for text in metadata.requires(name) or ():
        needed = Requirement(text)
        other = canonicalize_name(needed.name)
        applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
        if applies and other not in known:
            known.add(other)
            behind(other, known)
    return known


@pytest.mark.threat("T38")
def test_every_package_behind_the_product_is_locked_by_its_hashes():
    """A package that a dependency begins to need is seen here before it is taken in."""
    lock = locked()
    needed = behind("claude-peers", set())
    assert len(needed) > 10
    assert needed - {*lock} == set()
    assert [name for name, hashes in lock.items() if not hashes] == []


@pytest.mark.threat("T38")
def test_the_product_imports_nothing_that_is_not_declared_with_a_floor():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [each.partition(";")[0].strip() for each in project["dependencies"]]
    names = {re.split("[<>=]", each)[0] for each in declared}
    assert names == {"mcp", "psutil", "filelock", "platformdirs", "h11", "cryptography", "wsproto"}
    assert not [each for each in declared if not re.search("[<>=]", each)]
    behind_mcp = {"anyio", "mcp_types", "pydantic"}
    known = names | behind_mcp | set(sys.stdlib_module_names) | {"claude_peers"}
    foreign = {path.name: imported(module) - known for path, module in modules()}
    assert {name: found for name, found in foreign.items() if found} == {}
