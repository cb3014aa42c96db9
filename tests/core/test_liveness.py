"""Which peers are gone, and what becomes of them."""

import pytest

from claude_peers.core.liveness import SILENCE, gone, presence_after
from claude_peers.core.models import Peer, PeerId, Presence, Process


def peer(*, process: Process | None = None, boot: str = "boot", **fields) -> Peer:
    return Peer(id=PeerId("a"), name="main", process=process, boot=boot, **fields)


def is_gone(who: Peer, *, alive: bool = True, linked: bool = False, silent: float = 0.0) -> bool:
    judged = gone(
        [who],
        boot="boot",
        alive=lambda _: alive,
        linked=lambda _: linked,
        silent_for=lambda _: silent,
    )
    assert judged in ([], [who])
    return bool(judged)


HERE = peer(process=Process(pid=7, started="1"))
ELSEWHERE = peer()


def test_a_peer_whose_process_runs_is_not_gone_however_silent():
    assert not is_gone(HERE, silent=10 * SILENCE)


def test_a_peer_whose_process_has_ended_is_gone():
    assert is_gone(HERE, alive=False)


def test_a_process_of_before_the_last_reboot_is_gone_whoever_has_its_pid_now():
    assert is_gone(peer(process=Process(pid=7, started="1"), boot="earlier"), alive=True)


@pytest.mark.bug("P5")
def test_a_peer_without_a_known_process_is_gone_after_its_silence():
    assert not is_gone(ELSEWHERE, silent=SILENCE)
    assert is_gone(ELSEWHERE, silent=SILENCE + 0.001)


@pytest.mark.bug("B4-16")
@pytest.mark.parametrize("who", [HERE, ELSEWHERE])
def test_a_live_connection_is_proof_enough(who):
    assert not is_gone(who, alive=False, linked=True, silent=10 * SILENCE)


@pytest.mark.parametrize("presence", [Presence.AWAY, Presence.DEPARTED])
def test_a_peer_that_is_not_present_is_not_judged_again(presence):
    assert not is_gone(peer(presence=presence), silent=10 * SILENCE)


def test_each_peer_is_judged_by_its_own_facts():
    peers = [
        Peer(id=PeerId(str(n)), name="p", process=Process(pid=n, started="1"), boot="boot")
        for n in range(4)
    ]
    lost = gone(
        peers,
        boot="boot",
        alive=lambda process: process.pid % 2 == 0,
        linked=lambda _: False,
        silent_for=lambda _: 0.0,
    )
    assert [each.id for each in lost] == ["1", "3"]


def test_a_lost_peer_with_a_key_waits_for_its_successor():
    assert presence_after(peer(keys=("resume:1",)), left=False) is Presence.AWAY


def test_a_peer_with_a_key_that_left_waits_for_its_successor():
    assert presence_after(peer(keys=("resume:1",)), left=True) is Presence.AWAY


def test_a_peer_that_was_only_silent_may_be_heard_again():
    assert presence_after(peer(), left=False) is Presence.AWAY


def test_a_peer_without_a_key_that_left_or_died_has_departed():
    dead = peer(process=Process(pid=1, started="1"))
    assert presence_after(dead, left=False) is Presence.DEPARTED
    assert presence_after(peer(), left=True) is Presence.DEPARTED
