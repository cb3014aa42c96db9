"""Who may act for a peer, and what class a newcomer belongs to."""

from dataclasses import dataclass

import pytest

from claude_peers.core.access import check, check_unknown, signed_as, speaks_for, trust_of
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
    machine: str = ""

    def is_user_of(self, machine: str) -> bool:
        return self.knows_secret and machine == self.machine

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


# Other machines

REMOTE = Peer(id=PeerId("a"), name="main", trust=Trust.REMOTE, token_hash="h1", machine="mac")


def test_a_token_counts_on_the_peers_own_machine_only():
    assert speaks_for(Somebody(token_hash="h1", machine="mac"), REMOTE)
    for machine in ("", "vm"):
        caller = Somebody(token_hash="h1", machine=machine)
        assert not speaks_for(caller, REMOTE)
        with pytest.raises(NotYourPeerError):
            check(caller, REMOTE)
    with pytest.raises(NotYourPeerError):
        check(Somebody(machine="mac"), REMOTE)


def test_who_comes_from_another_machine_acts_for_no_open_peer_here():
    check(Somebody(), OPEN)
    with pytest.raises(NotYourPeerError):
        check(Somebody(machine="mac"), OPEN)


@pytest.mark.parametrize("required", [False, True])
def test_a_newcomer_from_another_machine_is_of_its_own_class(required):
    caller = Somebody(machine="mac", process=MINE)
    assert trust_of(caller, MINE, required=required) is Trust.REMOTE


def test_under_a_strange_id_another_machine_needs_its_user():
    with pytest.raises(NotYourPeerError):
        check_unknown(Somebody(machine="mac"), "cli", required=False)
    check_unknown(Somebody(machine="mac", knows_secret=True), "cli", required=False)


@pytest.mark.parametrize(("machine", "name"), [("", "cli"), ("mac", "cli@mac")])
def test_a_command_is_signed_with_its_machine(machine, name):
    assert signed_as(Somebody(machine=machine), "cli") == name
