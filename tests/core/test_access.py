"""Who may act for a peer, and what class a newcomer belongs to."""

from dataclasses import dataclass

import pytest

from claude_peers.core.access import check, speaks_for, trust_of
from claude_peers.core.errors import NotYourPeerError
from claude_peers.core.models import Peer, PeerId, Process, Trust

MINE = Process(pid=7, started="1")
OTHER = Process(pid=8, started="1")


@dataclass(frozen=True)
class Somebody:
    """A caller of whom this much is known."""

    token_hash: str | None = None
    process: Process | None = None
    knows_secret: bool = False

    def owns(self, process: Process) -> bool:
        return process == self.process


def peer(trust: Trust, *, process: Process | None = None, token_hash: str | None = None) -> Peer:
    return Peer(id=PeerId("a"), name="main", trust=trust, process=process, token_hash=token_hash)


TOKEN = peer(Trust.TOKEN, token_hash="h1")
PROCESS = peer(Trust.PROCESS, process=MINE, token_hash="h1")
OPEN = peer(Trust.OPEN, token_hash="h1")
ALLOWED = [
    (Somebody(token_hash="h1"), TOKEN),
    (Somebody(token_hash="h1"), PROCESS),
    (Somebody(token_hash="h1"), OPEN),
    (Somebody(process=MINE), PROCESS),
]
REFUSED = [
    (Somebody(), TOKEN),
    (Somebody(process=MINE), peer(Trust.TOKEN, process=MINE, token_hash="h1")),
    (Somebody(token_hash="h2"), TOKEN),
    (Somebody(token_hash="h2", process=MINE), PROCESS),
    (Somebody(token_hash="h2"), OPEN),
    (Somebody(process=OTHER), PROCESS),
    (Somebody(), PROCESS),
    (Somebody(), peer(Trust.PROCESS)),
    (Somebody(token_hash="h1"), peer(Trust.TOKEN)),
]


@pytest.mark.parametrize(("caller", "who"), ALLOWED)
def test_the_token_of_a_peer_and_its_process_speak_for_it(caller, who):
    assert speaks_for(caller, who)
    check(caller, who)


@pytest.mark.parametrize(("caller", "who"), REFUSED)
def test_anybody_else_does_not_and_is_refused(caller, who):
    assert not speaks_for(caller, who)
    with pytest.raises(NotYourPeerError, match="a belongs to another process"):
        check(caller, who)


@pytest.mark.parametrize("caller", [Somebody(), Somebody(process=OTHER)])
def test_a_caller_without_a_token_may_act_for_an_open_peer_but_is_not_known_to_be_it(caller):
    check(caller, OPEN)
    assert not speaks_for(caller, OPEN)


def test_a_peer_whose_process_owns_the_socket_is_of_the_process_class():
    assert trust_of(Somebody(process=MINE), MINE, required=False) is Trust.PROCESS


@pytest.mark.parametrize("process", [None, OTHER])
def test_a_peer_without_a_process_or_with_anothers_is_open(process):
    assert trust_of(Somebody(process=MINE), process, required=False) is Trust.OPEN


@pytest.mark.parametrize("process", [None, MINE])
def test_where_tokens_are_required_everybody_needs_one(process):
    assert trust_of(Somebody(process=MINE), process, required=True) is Trust.TOKEN
