"""Other machines: invited, joined, revoked; and what their peers may do."""

import os

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker.machines import Doors, MachineNotFoundError, NoListenerError, hash_of
from claude_peers.broker.operations import OPERATIONS
from claude_peers.core.errors import (
    BadRequestError,
    NameTakenError,
    NotYourPeerError,
    PeerNotFoundError,
    SecretRequiredError,
    StoreError,
)
from claude_peers.core.machines import (
    ClockSkewError,
    InviteExpiredError,
    InviteUsedError,
    MachineIdleError,
    MachineRefusedError,
    MachineRevokedError,
    UnknownInviteError,
)
from claude_peers.wire import invitation
from claude_peers.wire.invitation import Address
from claude_peers.wire.signature import Signature

pytestmark = pytest.mark.anyio

BY_PATH = {operation.path: operation for operation in OPERATIONS}
USER = Caller(knows_secret=True)
PIN = bytes(32)
TOKEN = "t" * 43


@pytest.fixture
async def rig():
    made = await make_broker()
    made.broker.machines.doors = lambda: Doors(addresses=("10.0.0.1:7899",), pin=PIN)
    made.left = []
    made.broker.machines.left = made.left.append
    return made


async def call(rig, path: str, caller=USER, **body):
    return await BY_PATH[path](rig.broker, caller, body)


async def invited(rig, name: str = "mac", **more) -> str:
    """Invite a machine; return the code."""
    answer = await call(rig, "/admin/invite", name=name, **more)
    return invitation.read(answer["invitation"]).code


async def joined(rig, name: str = "mac", token: str = TOKEN) -> str:
    """Let a machine join; return the code it used."""
    code = await invited(rig, name)
    assert await call(rig, "/join", Caller(), code=code, token_hash=hash_of(token)) == {
        "ok": True,
        "name": name,
    }
    return code


def signed(rig, token: str = TOKEN, *, at: float | None = None) -> Signature:
    when = rig.clock.wall() if at is None else at
    return Signature(token=token, at=int(when), number=1, digest="", mac="")


async def listed(rig):
    return (await call(rig, "/admin/machines"))["machines"]


# Inviting and joining


async def test_an_invite_says_where_by_what_certificate_and_for_how_long(rig):
    answer = await call(rig, "/admin/invite", name="mac", addresses=["mac.lan:1", "10.0.0.1:7899"])
    said = invitation.read(answer["invitation"])
    assert said.addresses == (Address("mac.lan", 1), Address("10.0.0.1", 7899))
    assert said.pin == PIN
    assert answer["addresses"] == ["mac.lan:1", "10.0.0.1:7899"]
    (machine,) = await listed(rig)
    assert (machine["name"], machine["state"], machine["expires_at"]) == (
        "mac",
        "invited",
        answer["expires_at"],
    )


async def test_nothing_secret_is_stored_or_listed(rig):
    code = await joined(rig)
    stored = repr(await rig.store.machines())
    shown = repr(await listed(rig))
    for secret in (code, TOKEN):
        assert secret not in stored + shown
    assert hash_of(TOKEN) in stored
    assert hash_of(TOKEN) not in shown


async def test_a_machine_joins_once_and_its_token_counts_from_then_on(rig):
    with pytest.raises(MachineRefusedError, match="No machine has joined"):
        rig.broker.machines.admit(signed(rig), joining=False)
    code = await joined(rig)
    assert rig.broker.machines.admit(signed(rig), joining=False) == "mac"
    assert await call(rig, "/join", Caller(), code=code, token_hash=hash_of(TOKEN)) == {
        "ok": True,
        "name": "mac",
    }
    with pytest.raises(InviteUsedError):
        await call(rig, "/join", Caller(), code=code, token_hash=hash_of("another"))
    (machine,) = await listed(rig)
    assert (machine["state"], machine["peers"]) == ("joined", 0)


async def test_a_code_admits_to_nothing_but_joining(rig):
    code = await invited(rig)
    assert rig.broker.machines.admit(signed(rig, code), joining=True) == "mac"
    with pytest.raises(MachineRefusedError):
        rig.broker.machines.admit(signed(rig, code), joining=False)
    with pytest.raises(UnknownInviteError):
        rig.broker.machines.admit(signed(rig, "x" * 22), joining=True)


async def test_an_invite_expires(rig):
    code = await invited(rig, ttl_ms=60_000)
    rig.clock.passed += 60
    with pytest.raises(InviteExpiredError):
        rig.broker.machines.admit(signed(rig, code), joining=True)
    with pytest.raises(InviteExpiredError):
        await call(rig, "/join", Caller(), code=code, token_hash=hash_of(TOKEN))
    assert [machine["state"] for machine in await listed(rig)] == ["expired"]


async def test_a_token_that_is_used_lives_on_and_one_that_is_not_expires(rig):
    await joined(rig)
    for _ in range(3):
        rig.clock.passed += 60 * 86_400
        assert rig.broker.machines.admit(signed(rig), joining=False) == "mac"
        await rig.settled()
    (stored,) = await rig.store.machines()
    assert stored.seen_at == rig.clock.wall()
    rig.clock.passed += 60
    rig.broker.machines.admit(signed(rig), joining=False)
    await rig.settled()
    assert await rig.store.machines() == [stored], "once a day is enough"

    rig.clock.passed += 90 * 86_400
    with pytest.raises(MachineIdleError):
        rig.broker.machines.admit(signed(rig), joining=False)
    assert [machine["state"] for machine in await listed(rig)] == ["expired"]

    await joined(rig, token="another")
    assert rig.broker.machines.admit(signed(rig, "another"), joining=False) == "mac"
    with pytest.raises(MachineRefusedError, match="No machine has joined"):
        rig.broker.machines.admit(signed(rig), joining=False)


async def test_an_invite_carries_as_many_addresses_as_a_word_can(rig):
    many = tuple(f"[fd00::{number:x}]:7899" for number in range(1, 200))
    rig.broker.machines.doors = lambda: Doors(addresses=many, pin=PIN)

    answer = await call(rig, "/admin/invite", name="mac", addresses=["mac.lan:1"])

    said = invitation.read(answer["invitation"])
    assert [str(each) for each in said.addresses] == answer["addresses"]
    assert answer["addresses"] == ["mac.lan:1", *many[: len(said.addresses) - 1]]
    assert 20 < len(said.addresses) < len(many)
    with pytest.raises(BadRequestError, match="too many"):
        await call(rig, "/admin/invite", name="mac", addresses=[*many])


async def test_a_newer_invite_takes_the_place_of_the_older(rig):
    old, new = await invited(rig), await invited(rig)
    with pytest.raises(UnknownInviteError):
        await call(rig, "/join", Caller(), code=old, token_hash=hash_of(TOKEN))
    await call(rig, "/join", Caller(), code=new, token_hash=hash_of(TOKEN))
    assert len(await listed(rig)) == 1


@pytest.mark.parametrize("name", ["Mac", "", "a b", "a@b", "x" * 65])
async def test_what_is_no_name_is_refused(rig, name):
    with pytest.raises(BadRequestError, match="is no name"):
        await invited(rig, name)


async def test_neither_a_joined_machines_name_nor_ours_is_given_again(rig):
    await joined(rig)
    for name in ("mac", rig.machine.host):
        with pytest.raises(NameTakenError):
            await invited(rig, name)


@pytest.mark.parametrize("address", ["mac", "mac:0", ":1", "a b:1"])
async def test_what_is_no_address_is_refused_and_invites_nobody(rig, address):
    with pytest.raises(BadRequestError, match="HOST:PORT"):
        await invited(rig, addresses=[address])
    assert await listed(rig) == []


@pytest.mark.parametrize("token_hash", ["", "0" * 63, "g" * 64, "A" * 64])
async def test_what_is_no_hash_joins_nothing(rig, token_hash):
    code = await invited(rig)
    with pytest.raises(BadRequestError, match="SHA-256"):
        await call(rig, "/join", Caller(), code=code, token_hash=token_hash)


async def test_nobody_is_invited_where_nobody_could_come(rig):
    rig.broker.machines.doors = Doors
    with pytest.raises(NoListenerError, match=r"127\.0\.0\.1 only") as refused:
        await invited(rig)
    assert "CLAUDE_PEERS_BIND" in refused.value.remedy
    rig.broker.machines.doors = lambda: Doors(problem=StoreError("No key", "Make one."))
    with pytest.raises(StoreError, match="No key"):
        await invited(rig)
    answer = await call(rig, "/admin/machines")
    assert answer == {
        "machines": [],
        "listening": [],
        "problem": {"error": "No key", "remedy": "Make one."},
    }


@pytest.mark.parametrize("path", ["/admin/invite", "/admin/revoke", "/admin/machines"])
@pytest.mark.parametrize("caller", [Caller(), Caller(machine="mac")])
async def test_only_this_machines_user_decides_who_comes(rig, path, caller):
    with pytest.raises(SecretRequiredError):
        await call(rig, path, caller, name="mac")


async def test_a_clock_that_is_off_is_told_only_to_who_has_joined(rig):
    await joined(rig)
    at = rig.clock.wall() - 100
    with pytest.raises(ClockSkewError):
        rig.broker.machines.admit(signed(rig, at=at), joining=False)
    with pytest.raises(MachineRefusedError, match="No machine"):
        rig.broker.machines.admit(signed(rig, "x" * 43, at=at), joining=False)


async def test_what_could_not_be_stored_has_not_happened(rig):
    code = await invited(rig)
    rig.store.broken.add("save_machine")
    with pytest.raises(StoreError):
        await invited(rig, "vm")
    with pytest.raises(StoreError):
        await call(rig, "/join", Caller(), code=code, token_hash=hash_of(TOKEN))
    assert [(m["name"], m["state"]) for m in await listed(rig)] == [("mac", "invited")]
    rig.store.broken.clear()
    await call(rig, "/join", Caller(), code=code, token_hash=hash_of(TOKEN))


async def test_a_failed_write_takes_nothing_from_a_later_one(rig):
    await joined(rig)
    machines, store = rig.broker.machines, rig.store
    write = store.save_machine

    async def overtaken(machine):
        store.save_machine = write
        await machines.revoke("mac")
        raise StoreError("late", "never mind")

    await machines.revoke("mac")
    store.save_machine = overtaken
    with pytest.raises(StoreError):
        await machines.invite("mac", ttl=None)
    assert [machine["state"] for machine in await listed(rig)] == ["revoked"]


# Revoking


async def test_a_revoked_machine_is_told_so_and_its_connections_end(rig):
    await joined(rig)
    peer = await rig.join(Caller(machine="mac"), name="bob")
    assert await call(rig, "/admin/revoke", name="mac") == {"ok": True, "name": "mac", "peers": 1}
    assert rig.left == ["mac"]
    with pytest.raises(MachineRevokedError):
        rig.broker.machines.admit(signed(rig), joining=False)
    assert rig.broker.roster.get(peer.peer.id).presence == "away"
    assert (await listed(rig))[0]["state"] == "revoked"


async def test_its_mail_is_kept_and_waits_for_it(rig):
    await joined(rig)
    bob = (await rig.join(Caller(machine="mac"), name="bob")).peer.id
    await rig.send(bob, "one")
    await call(rig, "/admin/revoke", name="mac")
    await rig.settled()
    await rig.send(bob, "two")
    assert len(await rig.unread(bob)) == 2


async def test_an_invite_can_be_revoked_before_it_is_used(rig):
    code = await invited(rig)
    await call(rig, "/admin/revoke", name="mac")
    with pytest.raises(UnknownInviteError):
        await call(rig, "/join", Caller(), code=code, token_hash=hash_of(TOKEN))


async def test_revoking_twice_is_revoking(rig):
    await joined(rig)
    await call(rig, "/admin/revoke", name="mac")
    before = await listed(rig)
    assert (await call(rig, "/admin/revoke", name="mac"))["peers"] == 0
    assert await listed(rig) == before


async def test_who_was_never_invited_cannot_be_revoked(rig):
    with pytest.raises(MachineNotFoundError, match="claude-peers machines"):
        await call(rig, "/admin/revoke", name="mac")


async def test_a_revoked_machine_may_be_invited_again_and_its_old_token_stays_refused(rig):
    await joined(rig)
    await call(rig, "/admin/revoke", name="mac")
    await joined(rig, token="u" * 43)
    assert rig.broker.machines.admit(signed(rig, "u" * 43), joining=False) == "mac"
    with pytest.raises(MachineRefusedError):
        rig.broker.machines.admit(signed(rig), joining=False)


async def test_the_next_broker_knows_who_has_joined_and_who_may_no_more(rig):
    await joined(rig)
    await joined(rig, "vm", "v" * 43)
    await call(rig, "/admin/revoke", name="vm")
    later = await make_broker(rig.store)
    assert later.broker.machines.admit(signed(rig), joining=False) == "mac"
    with pytest.raises(MachineRevokedError):
        later.broker.machines.admit(signed(rig, "v" * 43), joining=False)


# Peers on other machines

MAC, VM = Caller(machine="mac"), Caller(machine="vm")
MACS_USER = Caller(machine="mac", elsewhere=True)


def as_peer(caller: Caller, registration) -> Caller:
    return Caller(machine=caller.machine, token_hash=hash_of(registration.token))


async def test_a_peer_on_another_machine_is_bound_to_its_token_and_to_that_machine(rig):
    bob = await rig.join(MAC, name="bob", pid=os.getpid(), hostname="liar")
    assert (bob.peer.trust, bob.peer.machine, bob.peer.host) == ("remote", "mac", "mac")
    assert bob.peer.process is None
    sent = await rig.send(bob.peer.id, caller=as_peer(MAC, bob), from_id=bob.peer.id)
    assert sent.message.verified
    for other in (MAC, Caller(), USER, as_peer(VM, bob), as_peer(Caller(), bob)):
        with pytest.raises(NotYourPeerError):
            await rig.send(bob.peer.id, caller=other, from_id=bob.peer.id)


async def test_no_other_machine_acts_for_an_open_peer_of_this_one(rig):
    ann = (await rig.join(name="ann")).peer
    assert ann.trust == "open"
    with pytest.raises(NotYourPeerError):
        await rig.poll(ann.id, MAC)
    with pytest.raises(NotYourPeerError):
        await rig.send(ann.id, caller=MAC, from_id=ann.id)


async def test_a_token_of_another_machines_peer_registers_somebody_new(rig):
    bob = await rig.join(MAC, name="bob")
    again = await rig.join(MAC, token=bob.token)
    assert again.peer.id == bob.peer.id
    for other in (VM, Caller()):
        assert (await rig.join(other, token=bob.token)).peer.id != bob.peer.id


async def test_a_mailbox_is_adopted_on_its_own_machine_only(rig):
    bob = await rig.join(MAC, name="bob", keys=("resume:1",))
    await rig.broker.peers.unregister(as_peer(MAC, bob), bob.peer.id)
    assert (await rig.join(VM, keys=("resume:1",))).peer.id != bob.peer.id
    assert (await rig.join(USER, keys=("resume:1",))).peer.id != bob.peer.id
    assert (await rig.join(MAC, keys=("resume:1",))).peer.id == bob.peer.id


async def test_a_second_server_of_an_agent_is_one_on_its_own_machine_only(rig):
    await rig.join(MAC, keys=("live:1",))
    assert (await rig.join(MAC, keys=("live:1",))).secondary
    assert not (await rig.join(VM, keys=("live:1",))).secondary


async def test_mail_for_a_name_is_not_inherited_from_machine_to_machine(rig):
    ann = (await rig.join(Caller(), name="main", cwd="/p", hostname="mac")).peer
    await rig.send("main", "for ann's successor")
    await rig.broker.peers.unregister(Caller(), ann.id)
    other = (await rig.join(MAC, name="main", cwd="/p")).peer
    assert await rig.unread(other.id) == []


async def test_commands_elsewhere_sign_with_their_machine_and_see_their_messages(rig):
    ann = (await rig.join(name="ann")).peer
    with pytest.raises(NotYourPeerError):
        await rig.send("ann", caller=MAC, from_id="cli")
    sent = (await rig.send("ann", caller=MACS_USER, from_id="cli")).message
    assert (sent.from_id, sent.verified) == ("cli@mac", False)
    assert await rig.broker.fates.story(MACS_USER, sent.id)
    for other in (MAC, Caller(machine="vm", elsewhere=True), Caller()):
        with pytest.raises(Exception, match="not found"):
            await rig.broker.fates.story(other, sent.id)
    assert await rig.unread(ann.id) == [sent.id]


async def test_a_machines_user_manages_its_own_peers_and_no_others(rig):
    ann, bob = (await rig.join(name="ann")).peer, (await rig.join(MAC, name="bob")).peer
    assert (await call(rig, "/rename", MACS_USER, id="bob", name="bobby"))["id"] == bob.id
    assert (await call(rig, "/rename", id="bobby", name="bob"))["id"] == bob.id
    with pytest.raises(NotYourPeerError):
        await call(rig, "/rename", MACS_USER, id="ann", name="anna")
    with pytest.raises(PeerNotFoundError):
        await call(rig, "/rename", MAC, id="ann", name="anna")
    assert rig.broker.roster.get(ann.id).name == "ann"


async def test_a_machines_user_sends_from_its_shells_mailbox(rig):
    me = (await rig.join(MACS_USER, name="me", keys=("shell:1",))).peer.id
    assert (await rig.send(me, caller=MACS_USER, from_id=me)).message.from_id == me
    for other in (MAC, USER, Caller(machine="vm", elsewhere=True)):
        with pytest.raises(NotYourPeerError):
            await rig.send(me, caller=other, from_id=me)


async def test_a_directory_is_one_of_the_askers_machine(rig):
    ann = (await rig.join(name="ann", cwd="/p")).peer
    bob = (await rig.join(MAC, name="bob", cwd="/p")).peer
    for caller, found in ((Caller(), ann), (MAC, bob)):
        shown = await call(rig, "/list-peers", caller, scope="directory", cwd="/p")
        assert [peer["id"] for peer in shown] == [found.id]
        assert rig.broker._context.resolve("/p", caller).id == found.id
    everybody = await call(rig, "/list-peers", MAC, scope="machine")
    assert [peer["id"] for peer in everybody] == [ann.id, bob.id]
    assert [peer["cwd"] for peer in everybody] == ["p", "/p"]


@pytest.mark.parametrize(("share", "seen"), [("full", "/p"), ("", "p"), ("less", "p")])
async def test_a_peer_decides_what_other_machines_see_of_it(rig, share, seen):
    await rig.join(name="ann", cwd="/p", share=share)
    (shown,) = await call(rig, "/list-peers", MAC)
    assert shown["cwd"] == seen


async def test_the_brokers_user_decides_for_the_peers_of_its_machine():
    rig = await make_broker(share=True)
    await rig.join(name="ann", cwd="/p")
    await rig.join(VM, name="bob", cwd="/p")
    assert [peer["cwd"] for peer in await call(rig, "/list-peers", MAC)] == ["/p", "p"]


async def test_a_network_that_fails_for_a_moment_takes_no_peer_away(rig):
    bob = (await rig.join(MAC, name="bob")).peer.id
    rig.transport.linked.add(bob)
    rig.clock.passed += 3600
    rig.transport.linked.clear()
    rig.broker.connection_ended(bob)
    await rig.settled()
    assert rig.broker.roster.get(bob).presence == "present"
    rig.clock.passed += 61
    await rig.broker.peers.sweep()
    assert rig.broker.roster.get(bob).presence == "away"
