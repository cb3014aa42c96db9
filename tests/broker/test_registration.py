"""Who comes in as whom: by token, by process, by an identity key, or as somebody new."""

import re

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker import registration
from claude_peers.broker.registration import hash_token
from claude_peers.core.errors import NotYourPeerError, StoreError
from claude_peers.core.limits import KEYS, NAME, PATH, SUMMARY
from claude_peers.core.liveness import SILENCE
from claude_peers.core.models import Presence, Trust

pytestmark = pytest.mark.anyio

OURS = {"proof": "the right answer"}


@pytest.fixture
async def rig():
    return await make_broker()


# Newcomers


async def test_a_newcomer_gets_an_id_a_token_and_a_row(rig):
    joined = await rig.join(cwd="/r/src", git_root="/r", repo="/r/.git", tty="pts/1", summary="s")
    peer = joined.peer
    assert re.fullmatch("[a-z0-9]{8}", peer.id)
    assert re.fullmatch("[0-9a-f]{64}", joined.token)
    assert peer.token_hash == hash_token(joined.token)
    assert (peer.cwd, peer.git_root, peer.repo, peer.tty) == ("/r/src", "/r", "/r/.git", "pts/1")
    assert (peer.summary, peer.presence) == ("s", Presence.PRESENT)
    assert peer.registered_at == peer.last_seen == "2023-11-14T22:13:20.000Z"
    assert [stored.id for stored in await rig.store.peers()] == [peer.id]


async def test_two_newcomers_are_two_peers(rig):
    first, second = await rig.join(cwd="/r"), await rig.join(cwd="/r")
    assert first.peer.id != second.peer.id
    assert first.token != second.token


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"name": "Main One"}, "main-one"),
        ({"agent_name": "mesh"}, "mesh"),
        ({"name": "ours", "agent_name": "mesh"}, "ours"),
        ({"git_root": "/home/user/Repo/", "cwd": "/x"}, "repo"),
        ({"cwd": "C:\\code\\thing"}, "thing"),
    ],
)
async def test_a_peer_is_named_as_it_asks_or_after_its_folder(rig, fields, name):
    assert (await rig.join(**fields)).peer.name == name


async def test_a_peer_without_a_folder_is_named_by_its_id(rig):
    peer = (await rig.join()).peer
    assert peer.name == peer.id


async def test_a_name_that_somebody_has_gets_a_suffix(rig):
    names = [(await rig.join(name="main")).peer.name for _ in range(3)]
    assert names == ["main", "main-2", "main-3"]


async def test_nobody_is_named_like_the_id_of_another(rig):
    other = (await rig.join(name="other")).peer.id
    assert (await rig.join(name=other)).peer.name == f"{other}-2"


async def test_what_a_peer_says_of_itself_is_clipped(rig):
    long = "x" * 5000
    peer = (
        await rig.join(
            Caller(knows_secret=True),
            cwd=long,
            git_root=long,
            repo=long,
            tty=long,
            summary=long,
            hostname=long,
            client=long,
            route="two\nlines",
            keys=tuple(f"k{n}" for n in range(20)),
        )
    ).peer
    assert [len(text) for text in (peer.cwd, peer.git_root, peer.repo)] == [PATH] * 3
    assert [len(text) for text in (peer.tty, peer.host, peer.client)] == [NAME] * 3
    assert (len(peer.summary), len(peer.keys), peer.route) == (SUMMARY, KEYS, "two lines")


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        ({"client": "claude-code 2"}, "claude-code 2"),
        ({"agent_type": "codex"}, "codex"),
        ({}, ""),
    ],
)
async def test_a_peer_is_known_by_its_client_program(rig, fields, client):
    assert (await rig.join(**fields)).peer.client == client


# Trust


async def test_a_pid_that_owns_the_socket_is_that_process(rig):
    peer_id, caller = await rig.joins_as_process(41)
    peer = rig.broker.roster.get(peer_id)
    assert (peer.trust, peer.process) == (Trust.PROCESS, caller.processes[0])


async def test_a_pid_that_does_not_own_the_socket_proves_nothing(rig):
    process = rig.machine.start(41)
    peer = (await rig.join(pid=41)).peer
    assert (peer.trust, peer.process, peer.pid) == (Trust.OPEN, process, 41)


async def test_a_pid_of_nobody_is_kept_as_a_number(rig):
    peer = (await rig.join(pid=41)).peer
    assert (peer.trust, peer.process, peer.pid) == (Trust.OPEN, None, 41)


@pytest.mark.parametrize("hostname", [None, "localhost", "here"])
async def test_a_pid_of_this_machine_is_looked_up(rig, hostname):
    process = rig.machine.start(41)
    assert (await rig.join(pid=41, hostname=hostname)).peer.process == process


@pytest.mark.bug("P4")
@pytest.mark.fault("F35")
async def test_a_pid_of_another_machine_means_nothing_here(rig):
    rig.machine.start(41)
    peer = (await rig.join(pid=41, hostname="far")).peer
    assert (peer.process, peer.pid, peer.host) == (None, 41, "far")


@pytest.mark.parametrize(
    ("caller", "fields"),
    [(Caller(knows_secret=True), {}), (Caller(), OURS)],
    ids=["shown before", "shown now"],
)
async def test_who_proves_to_know_the_secret_is_bound_to_its_token(rig, caller, fields):
    peer = (await rig.join(caller, keys=("k",), **fields)).peer
    assert (peer.trust, peer.keys) == (Trust.TOKEN, ("k",))


async def test_who_proves_nothing_leaves_no_keys(rig):
    peer = (await rig.join(keys=("k",), proof="wrong")).peer
    assert (peer.trust, peer.keys) == (Trust.OPEN, ())


async def test_where_tokens_are_required_everybody_is_bound_to_one():
    rig = await make_broker(require_token=True)
    peer_id, _ = await rig.joins_as_process(41)
    assert rig.broker.roster.get(peer_id).trust is Trust.TOKEN


@pytest.mark.bug("P7")
async def test_who_uses_its_token_once_is_bound_to_it_for_good(rig):
    joined = await rig.join()
    bearer = Caller(token_hash=hash_token(joined.token))
    await rig.broker.peers.set_summary(bearer, joined.peer.id, "bound")
    await rig.settled()
    peer = rig.broker.roster.get(joined.peer.id)
    assert (peer.trust, peer.summary) == (Trust.TOKEN, "bound")
    assert await rig.store.peers() == [peer]
    with pytest.raises(NotYourPeerError):
        await rig.poll(joined.peer.id)


async def test_a_token_that_is_used_twice_at_once_binds_once(rig):
    joined = await rig.join()
    bearer = Caller(token_hash=hash_token(joined.token))
    saved = rig.store.calls.count("save_peer")
    await rig.broker.mail.peek(bearer, joined.peer.id)
    await rig.broker.mail.peek(bearer, joined.peer.id)
    await rig.settled()
    assert rig.store.calls.count("save_peer") == saved + 1


# Coming back


async def test_a_token_brings_the_same_peer_back_whatever_else_changed(rig):
    first = await rig.join(cwd="/r", name="main", summary="works", **OURS)
    again = await rig.join(token=first.token, cwd="/other", pid=5)
    assert (again.peer.id, again.token) == (first.peer.id, first.token)
    assert (again.peer.name, again.peer.summary) == ("main", "works")
    assert (again.peer.cwd, again.peer.pid, again.peer.trust) == ("/other", 5, Trust.TOKEN)


async def test_a_peer_that_comes_back_unchanged_is_not_written_again(rig):
    first = await rig.join(name="main", **OURS)
    saved = rig.store.calls.count("save_peer")
    rig.clock.passed = 5.0
    again = await rig.join(token=first.token, **OURS)
    assert (again.peer.id, again.changed) == (first.peer.id, False)
    assert rig.store.calls.count("save_peer") == saved
    assert rig.broker.roster.get(first.peer.id).last_seen == "2023-11-14T22:13:25.000Z"


async def test_who_ends_while_it_comes_back_is_missed_at_once_and_leaves_its_mail_to_its_successor(
    rig,
):
    process = rig.machine.start(41)
    owner = Caller(processes=(process,))
    first = await rig.join(owner, pid=41, keys=["resume:k"], **OURS)
    rig.machine.end(41)
    again = await rig.join(pid=41, token=first.token, keys=["resume:k"], **OURS)
    assert (again.peer.id, again.peer.process) == (first.peer.id, process)
    await rig.broker.peers.sweep()
    successor = await rig.join(pid=42, keys=["resume:k"], **OURS)
    assert successor.peer.id == first.peer.id


@pytest.mark.parametrize("fields", [{"pid": 43}, {"pid": None}])
async def test_who_comes_back_as_another_process_is_not_taken_for_the_first(rig, fields):
    process = rig.machine.start(41)
    first = await rig.join(Caller(processes=(process,)), pid=41, keys=["resume:k"], **OURS)
    again = await rig.join(token=first.token, **fields, **OURS)
    assert (again.peer.id, again.peer.process) == (first.peer.id, None)


async def test_a_token_of_nobody_makes_a_newcomer_with_a_token_of_its_own(rig):
    joined = await rig.join(token="invented")
    assert joined.token != "invented"


async def test_a_departed_peer_comes_back_with_its_token(rig):
    first = await rig.join()
    await rig.broker.peers.unregister(Caller(), first.peer.id)
    again = await rig.join(token=first.token)
    assert (again.peer.id, again.peer.presence) == (first.peer.id, Presence.PRESENT)


@pytest.mark.bug("U3")
async def test_a_process_that_registers_twice_is_one_peer(rig):
    peer_id, caller = await rig.joins_as_process(41, summary="one")
    again = await rig.join(caller, pid=41, summary="two")
    assert (again.peer.id, again.peer.summary) == (peer_id, "two")
    assert len(rig.broker.roster.present()) == 1


async def test_another_process_is_not_taken_for_the_one_of_a_pid(rig):
    peer_id, _ = await rig.joins_as_process(41)
    impostor = Caller(processes=(rig.machine.start(99),))
    assert (await rig.join(impostor, pid=41)).peer.id != peer_id
    assert rig.broker.roster.get(peer_id).presence is Presence.PRESENT


async def test_a_process_that_proves_the_secret_later_keeps_its_peer_and_is_bound(rig):
    peer_id, caller = await rig.joins_as_process(41)
    joined = await rig.join(caller, pid=41, **OURS)
    assert (joined.peer.id, joined.peer.trust) == (peer_id, Trust.TOKEN)


# Successors


async def away(rig, *keys: str, name="main"):
    joined = await rig.join(keys=keys, name=name, **OURS)
    await rig.broker.peers.unregister(Caller(token_hash=hash_token(joined.token)), joined.peer.id)
    return joined


async def test_a_successor_adopts_the_mailbox_by_its_key(rig):
    before = await away(rig, "live:1", "resume:1")
    after = await rig.join(keys=("resume:1",), **OURS)
    assert (after.peer.id, after.peer.name) == (before.peer.id, "main")
    assert after.peer.registered_at == before.peer.registered_at
    assert after.token != before.token


async def test_the_strongest_key_decides(rig):
    weak, strong = await away(rig, "launch:1"), await away(rig, "live:1")
    joined = await rig.join(keys=("live:1", "launch:1"), **OURS)
    assert joined.peer.id == strong.peer.id != weak.peer.id


async def test_nobody_adopts_a_mailbox_without_the_secret(rig):
    before = await away(rig, "live:1")
    assert (await rig.join(keys=("live:1",))).peer.id != before.peer.id


async def test_nobody_adopts_a_mailbox_that_somebody_holds(rig):
    rig.machine.start(41)
    before = await rig.join(pid=41, keys=("resume:1",), name="main", **OURS)
    after = await rig.join(keys=("resume:1",), name="main", **OURS)
    assert after.peer.id != before.peer.id
    assert after.peer.name == "main-2"


async def test_a_holder_that_died_unnoticed_is_succeeded_at_once(rig):
    rig.machine.start(41)
    before = await rig.join(pid=41, keys=("resume:1",), **OURS)
    rig.machine.start(42)
    other = await rig.join(pid=42, keys=("resume:2",), **OURS)
    rig.machine.end(41)
    rig.machine.end(42)
    after = await rig.join(keys=("resume:1",), **OURS)
    assert after.peer.id == before.peer.id
    # Only whoever holds the key is looked at: after a take-over everybody registers at once.
    assert rig.broker.roster.get(other.peer.id).presence is Presence.PRESENT


async def test_a_name_taken_meanwhile_is_not_taken_back(rig):
    before = await away(rig, "live:1")
    await rig.join(name="main")
    after = await rig.join(keys=("live:1",), **OURS)
    assert (after.peer.id, after.peer.name) == (before.peer.id, "main-2")


# Unproven peers of one pid


async def test_an_unproven_peer_replaces_the_one_of_the_same_pid_under_its_name(rig):
    first = await rig.join(pid=41, cwd="/main")
    second = await rig.join(pid=41, cwd="/main")
    assert second.peer.id != first.peer.id
    assert second.peer.name == first.peer.name == "main"
    assert rig.broker.roster.get(first.peer.id).presence is Presence.DEPARTED


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"pid": 41}, {"pid": 42}),
        ({"pid": 41}, {"pid": 41, "hostname": "far"}),
        ({}, {}),
        ({"pid": 41, **OURS}, {"pid": 41}),
        ({"pid": 41}, {"pid": 41, **OURS}),
    ],
    ids=["other pid", "other machine", "no pid", "proven before", "proven now"],
)
async def test_nobody_else_is_replaced(rig, first, second):
    joined = await rig.join(**first)
    assert (await rig.join(**second)).replaced is None
    assert rig.broker.roster.get(joined.peer.id).presence is Presence.PRESENT


# Failures


async def test_a_registration_that_is_not_stored_leaves_nobody_behind(rig):
    rig.store.broken.add("save_peer")
    with pytest.raises(StoreError):
        await rig.join(pid=41)
    assert list(rig.broker.roster) == []


async def test_a_change_that_is_not_stored_is_not_shown(rig):
    joined = await rig.join(summary="before")
    rig.store.broken.add("save_peer")
    with pytest.raises(StoreError):
        await rig.broker.peers.set_summary(Caller(), joined.peer.id, "after")
    assert rig.broker.roster.get(joined.peer.id).summary == "before"


async def test_a_change_that_is_not_stored_does_not_undo_what_came_after_it(rig, monkeypatch):
    joined = await rig.join()
    peer_id = joined.peer.id

    async def beaten(_peer):
        rig.broker.roster.alive(peer_id, now=9.0, at="later")
        raise StoreError("The database failed", "Try again.")

    monkeypatch.setattr(rig.store, "save_peer", beaten)
    with pytest.raises(StoreError):
        await rig.broker.peers.set_summary(Caller(), peer_id, "after")
    assert rig.broker.roster.get(peer_id).last_seen == "later"


def test_a_token_is_stored_as_its_hash_whatever_is_in_it():
    assert registration.hash_token("\ud800") == registration.hash_token("?")


async def test_a_process_whose_first_answer_was_lost_with_its_broker_comes_in_as_itself(rig):
    caller = Caller(processes=(rig.machine.start(41),))
    first = await rig.join(caller, pid=41, **OURS)
    after = await make_broker(rig.store)
    after.machine.start(41)
    assert (await after.join(caller, pid=41, **OURS)).peer.id == first.peer.id
    assert (await after.join(Caller(), pid=41, **OURS)).peer.id != first.peer.id
    assert (await after.join(Caller(), **OURS)).peer.id != first.peer.id


async def test_a_second_session_of_one_process_is_a_peer_of_its_own(rig):
    caller = Caller(processes=(rig.machine.start(41),))
    first = await rig.join(caller, pid=41, **OURS)
    assert (await rig.join(caller, pid=41, **OURS)).peer.id != first.peer.id
    after = await make_broker(rig.store)
    after.machine.start(41)
    after.transport.linked.update(peer.id for peer in after.broker.roster)
    assert (await after.join(caller, pid=41, **OURS)).peer.id != first.peer.id


async def test_a_session_in_another_container_is_not_taken_for_who_has_its_pid_here(rig):
    process = rig.machine.start(41)
    abroad = Caller(knows_secret=True, traceable=True)
    peer = (await rig.join(abroad, pid=41, name="abroad")).peer
    assert (peer.pid, peer.process) == (41, None)
    rig.clock.passed += SILENCE + 1
    await rig.broker.peers.sweep()
    assert rig.broker.roster.get(peer.id).presence is not Presence.PRESENT
    at_home = Caller(knows_secret=True, traceable=True, processes=(process,))
    assert (await rig.join(at_home, pid=41, name="home")).peer.process == process


async def test_a_registration_whose_answer_was_lost_is_the_same_peer_when_it_is_repeated(rig):
    ours = {"pid": 41, "cwd": "/r", "name": "main"}
    user = Caller(knows_secret=True)
    first = await rig.join(user, keys=("launch:1",), **ours)
    again = await rig.join(user, keys=("launch:1",), **ours)
    assert (again.peer.id, again.peer.name) == (first.peer.id, "main")
    assert again.token != first.token
    rig.transport.linked.add(first.peer.id)
    beside = await rig.join(user, keys=("launch:1",), **ours)
    other = await rig.join(user, keys=("launch:1",), **ours | {"pid": 42})
    assert len({first.peer.id, beside.peer.id, other.peer.id}) == 3
