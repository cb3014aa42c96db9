"""A session starts whatever happened to its database, and tells; nothing is overwritten."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import accidents
from support.machine import Machine
from support.traffic import read_all
from support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]


@pytest.mark.parametrize("accident", accidents.FOR_GOOD, ids=lambda each: each.__name__)
@pytest.mark.fault("F19", "F22")
def test_a_session_tells_what_is_wrong_with_the_database(machine: Machine, accident):
    accident(machine.database)
    before = machine.database.read_bytes()
    session = machine.session()
    assert session.list_prompts() is not None  # it answers its client all the same

    told, failed = session.call("list_peers")

    assert failed
    assert accidents.FOR_GOOD[accident] in told
    assert "CLAUDE_PEERS_DB" in told or "Upgrade" in told
    assert machine.database.read_bytes() == before


@pytest.mark.fault("F20")
def test_a_database_that_was_locked_is_used_once_it_is_free(machine: Machine):
    accidents.ours(machine.database)
    with accidents.locked(machine.database):
        session = machine.session()
        session.list_prompts()
    eventually(lambda: "peer" in session.call("list_peers")[0].lower(), what="a broker")
    assert machine.post("/ledger")["balanced"]


@pytest.mark.fault("F49")
def test_a_database_that_is_deleted_under_a_running_broker_costs_nobody_a_message(
    machine: Machine,
):
    ann, bob = machine.session(), machine.session()
    to_bob = machine.peer_id(bob)
    sent = [f"mail-kept-{number:05}" for number in range(6)]
    for number, text in enumerate(sent):
        if number == 3:
            for path in machine.database.parent.glob(machine.database.name + "*"):
                if path.is_file():
                    path.unlink()
        told, failed = ann.call("send_message", to_id=to_bob, message=text)
        assert not failed, told
    assert read_all(bob) == sent
    ledger = machine.post("/ledger")
    assert (ledger["balanced"], ledger["accepted"]) == (True, len(sent))
    assert machine.database.exists()


@pytest.fixture
def small_disk(machine: Machine) -> Iterator[Path]:
    """A disk of two megabytes; only root may make one."""
    place = machine.root / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if (
        not shutil.which("mount")
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("this user cannot mount a small disk")
    try:
        yield place
    finally:
        machine.close()
        subprocess.run(["umount", str(place)], check=True)


def fill(path: Path) -> None:
    """Write to a file until its disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)


@pytest.mark.fault("F16")
def test_a_full_disk_refuses_and_the_same_sessions_go_on_once_there_is_room(
    machine: Machine, small_disk: Path
):
    machine.environ["CLAUDE_PEERS_DB"] = str(small_disk / "peers.db")
    ann, bob = machine.session(), machine.session()
    to_bob, leader = machine.peer_id(bob), machine.wait_for_broker()
    kept, refused = [], []

    def send(text: str) -> bool:
        told, failed = ann.call("send_message", to_id=to_bob, message=text)
        (refused if failed else kept).append(told if failed else text)
        return not failed

    assert send("mail-full-00001 while there is room")
    ballast = small_disk / "ballast"
    fill(ballast)
    eventually(lambda: not send("x" * 8192), what="a refusal")
    assert "full" in refused[0] and "Free some space" in refused[0]
    ran = machine.cli("doctor", "--json")
    assert ran.returncode == 1 and "Free some" in ran.stdout

    ballast.unlink()

    eventually(lambda: send("mail-full-00002 with room again"), what="a message")
    assert read_all(bob) == [text[:15] for text in kept]
    assert machine.post("/ledger")["accepted"] == len(kept)
    assert machine.broker == leader


@pytest.mark.parametrize("home", ["read-only", "missing"])
@pytest.mark.fault("F18")
def test_without_a_home_to_write_to_a_session_answers_and_says_why(
    machine: Machine, small_disk: Path, home: str
):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    place = small_disk if home == "read-only" else small_disk / "nowhere"
    machine.environ |= {"HOME": str(place), "CLAUDE_PEERS_DB": None, "XDG_STATE_HOME": None}
    session = machine.session()
    assert session.list_prompts() is not None
    told, failed = session.call("list_peers")
    assert failed
    assert str(place) in told and "CLAUDE_PEERS_DB" in told
    ran = machine.cli("doctor")
    assert ran.returncode == 1
    assert "FAIL folder:" in ran.stdout and str(place) in ran.stdout
    assert list(small_disk.iterdir()) == []
