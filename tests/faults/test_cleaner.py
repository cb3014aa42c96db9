"""A cleaner removes what lies beside the database: it is made again, or not needed."""

import shutil
import stat
from pathlib import Path

import pytest
from support.machine import Machine
from support.waiting import eventually

from claude_peers.host import files

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]

KEPT = ("secret", "broker.port")
"""What newcomers need to know the broker by; the lock is made by whoever leads next."""


@pytest.fixture
def state(machine: Machine) -> Path:
    """Return the state folder of a machine on which a broker leads and a session follows."""
    for session in (machine.session(), machine.session()):
        session.list_prompts()
        machine.peer_id(session)
    return Path(str(machine.database).removesuffix(".db") + ".d")


def contents(folder: Path) -> dict[str, bytes]:
    """Return what is in the files that are there."""
    return {name: (folder / name).read_bytes() for name in KEPT if (folder / name).exists()}


def removed(state: Path, what: str) -> None:
    if what == "everything":
        shutil.rmtree(state)
    else:
        (state / what).unlink()


@pytest.mark.parametrize("what", ["everything", "secret", "broker.port", "broker.lock"])
@pytest.mark.fault("F49")
def test_what_a_cleaner_removes_is_made_again_or_not_needed(machine: Machine, state: Path, what):
    before = contents(state)
    leader = machine.leader()
    follower = next(each for each in machine.sessions if each is not leader)
    ids = [machine.peer_id(session) for session in (leader, follower)]

    removed(state, what)
    assert not leader.call("send_message", to_id=ids[1], message="at once")[1]
    eventually(lambda: contents(state) == before, what="the files")
    assert {stat.S_IMODE((state / name).stat().st_mode) for name in KEPT} == {0o600}
    assert stat.S_IMODE(state.stat().st_mode) == 0o700

    newcomer = machine.session()
    newcomer.list_prompts()
    known = machine.peer_id(newcomer)
    assert known in newcomer.call("whoami")[0]
    told, failed = leader.call("send_message", to_id=known, message="welcome")
    assert not failed, told
    assert newcomer.wait_for_push("welcome")
    assert machine.cli("status").returncode == 0
    assert machine.broker == leader.pid

    assert machine.cli("kill-broker").returncode == 0
    assert machine.wait_for_broker(other_than=leader.pid)
    assert not leader.call("send_message", to_id=ids[1], message="afterwards")[1]
    shown = follower.call("check_messages")[0]
    assert shown.index("at once") < shown.index("afterwards")
    assert [machine.peer_id(session) for session in (leader, follower, newcomer)] == [*ids, known]
    assert len(machine.peers()) == 3


@pytest.mark.fault("F49")
def test_a_secret_that_a_newcomer_made_meanwhile_gives_way_to_the_brokers(
    machine: Machine, state: Path
):
    before = contents(state)
    (state / "secret").write_bytes(b"0" * 64)
    eventually(lambda: contents(state) == before, what="the broker's secret")
    assert machine.cli("kill-broker").returncode == 0


@pytest.mark.parametrize("what", ["removed", "made anew", "kept"])
def test_a_secret_that_is_in_use_is_put_back(tmp_path, what):
    known = files.secret(str(tmp_path))
    if what == "removed":
        (tmp_path / "secret").unlink()
    if what == "made anew":
        (tmp_path / "secret").unlink()
        assert files.secret(str(tmp_path)) != known
    before = (tmp_path / "secret").stat().st_mtime_ns if what == "kept" else None

    files.keep_secret(str(tmp_path), known)

    assert files.secret(str(tmp_path)) == known
    assert before in (None, (tmp_path / "secret").stat().st_mtime_ns)
