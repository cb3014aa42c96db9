"""What agentmesh's clients ask for: fleets and devices, qualities, signatures, dead letters."""

import hashlib
import hmac

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker.operations import OPERATIONS
from claude_peers.broker.operations.registry import Answer
from claude_peers.core.delivery import DELIVERIES
from claude_peers.core.errors import (
    BadRequestError,
    NoFleetSecretError,
    PeerNotFoundError,
    RateLimitedError,
    SecretRequiredError,
)
from claude_peers.core.limits import Limits
from claude_peers.core.profile import CAPABILITIES

pytestmark = pytest.mark.anyio

BY_PATH = {operation.path: operation for operation in OPERATIONS}
USER = Caller(knows_secret=True)
ROW = {"qos", "expires_at", "ack_deadline", "retry_count", "max_retries", "signature"}


@pytest.fixture
async def rig():
    return await make_broker()


async def call(rig, path, caller=None, *, whole=True, **body):
    answer = await BY_PATH[path](rig.broker, caller or Caller(), body)
    if isinstance(answer, Answer):
        answer.written(whole)
        await rig.settled()
        return answer.body
    return answer


async def joined(rig, name="", **body):
    told = {"agent_type": "custom", "agent_name": name, **body}
    return (await call(rig, "/register", **told))["id"]


async def listed(rig, **wanted):
    return [each["agent_name"] for each in await call(rig, "/list-peers", **wanted)]


async def poll(rig, peer_id, **more):
    return (await call(rig, "/poll-messages", id=peer_id, **more))["messages"]


# Registering, and being found


async def test_what_a_peer_tells_about_itself_is_shown_and_outlives_the_broker(rig):
    peer_id = await joined(
        rig,
        "FA one",
        fleet_id="prod",
        device_id="edge-1",
        capabilities=["gpu", "web"],
        hostname="f",
    )
    again = await make_broker(rig.store)
    (shown,) = await call(again, "/list-peers")
    assert shown["id"] == peer_id
    assert (shown["agent_name"], shown["name"], shown["hostname"]) == ("FA one", "fa-one", "f")
    assert (shown["fleet_id"], shown["device_id"]) == ("prod", "edge-1")
    assert shown["capabilities"] == ["gpu", "web"]
    assert (shown["transport"], shown["online"]) == ({"type": "poll"}, False)
    assert (shown["broker_url"], shown["lwt_topic"]) == (None, None)


async def test_a_will_and_a_connection_are_shown(rig):
    peer_id = await joined(rig, "a", lwt={"topic": "gone", "message": "a"})
    rig.transport.linked.add(peer_id)
    (shown,) = await call(rig, "/list-peers")
    assert (shown["lwt_topic"], shown["online"]) == ("gone", True)


async def test_words_are_bounded_and_cannot_leave_their_line(rig):
    many = [f"c{number}" for number in range(CAPABILITIES + 1)]
    await joined(rig, "a\n<system>", fleet_id="x" * 1000, capabilities=["", "one\ntwo", *many])
    (shown,) = await call(rig, "/list-peers")
    assert shown["agent_name"] == "a &lt;system>"
    assert len(shown["fleet_id"]) == 64
    assert shown["capabilities"][0] == "one two"
    assert len(shown["capabilities"]) == CAPABILITIES


async def test_who_names_no_fleet_is_in_the_brokers():
    rig = await make_broker(fleet_id="gold")
    await joined(rig, "a")
    await joined(rig, "b", fleet_id="own")
    assert [each["fleet_id"] for each in await call(rig, "/list-peers")] == ["gold", "own"]


async def test_a_list_is_narrowed_by_each_filter_and_by_all(rig):
    first = await joined(rig, "a", fleet_id="f", device_id="d", capabilities=["x", "y"])
    await joined(rig, "b", fleet_id="f", capabilities=["x"])
    await joined(rig, "c", device_id="d", agent_type="hermes")
    rig.transport.linked.add(first)
    assert await listed(rig, fleet_id="f") == ["a", "b"]
    assert await listed(rig, scope="fleet", fleet_id="f") == ["a", "b"]
    assert await listed(rig, scope="device", device_id="d") == ["a", "c"]
    assert await listed(rig, agent_type="hermes") == ["c"]
    assert await listed(rig, capabilities=["x"]) == ["a", "b"]
    assert await listed(rig, capabilities=["y", "x"]) == ["a"]
    assert await listed(rig, online_only=True) == ["a"]
    assert await listed(rig, fleet_id="f", agent_type="hermes") == []


async def test_an_agentmesh_peer_that_tells_no_type_is_claude_code_and_others_are_not(rig):
    await joined(rig, "a", agent_type=None)
    await call(rig, "/register", cwd="/r")
    kinds = [each["agent_type"] for each in await call(rig, "/list-peers")]
    assert kinds == ["claude-code", ""]
    assert await listed(rig, agent_type="claude-code") == ["a"]


async def test_a_fleet_and_a_device_are_scopes_of_a_broadcast(rig):
    fleet = [await joined(rig, name, fleet_id="f") for name in ("a", "b")]
    device = await joined(rig, "c", device_id="d")
    told = await call(rig, "/broadcast", from_id=fleet[0], scope="@fleet:f", text="x")
    assert told["delivered_to"] == fleet[1:]
    told = await call(rig, "/broadcast", from_id="cli", scope="@device:d", text="x")
    assert told["delivered_to"] == [device]
    for scope in ("@fleet:", "@fleet:nobody", "@planet:f"):
        told = await call(rig, "/broadcast", from_id="cli", scope=scope, text="x")
        assert told["delivered_to"] == []


async def test_an_empty_workspace_is_the_senders_own(rig):
    there = [await joined(rig, name, cwd="/w/one", git_root="/w/one") for name in ("a", "b")]
    await joined(rig, "c", cwd="/w/two")
    await joined(rig, "d")
    told = await call(rig, "/broadcast", from_id=there[0], workspace="", text="x")
    assert (told["ok"], told["sent_to"], told["delivered_to"]) == (True, 1, there[1:])
    told = await call(rig, "/broadcast", from_id="cli", workspace="", text="x")
    assert told["sent_to"] == 0


# Qualities and times


@pytest.mark.parametrize(
    ("asked", "usual", "granted"),
    [(None, None, 1), (None, 0, 0), (0, 1, 0), (1, 0, 1), (2, None, 2), (7, None, 1), (-1, 0, 1)],
)
async def test_a_message_has_the_quality_that_was_asked_for(rig, asked, usual, granted):
    peer_id = await joined(rig, "a", default_qos=usual)
    await call(rig, "/send-message", from_id="cli", to_id=peer_id, text="x", qos=asked)
    await call(rig, "/subscribe", id=peer_id, topic="t")
    await call(rig, "/broadcast", from_id="cli", topic="t", text="x", qos=asked)
    assert [each["qos"] for each in await poll(rig, peer_id)] == [granted] * 2


async def test_quality_0_is_done_once_it_was_handed_out_and_1_once_acknowledged(rig):
    peer_id = await joined(rig, "a")
    for qos in (0, 1):
        await call(rig, "/send-message", from_id="cli", to_id=peer_id, text=f"{qos}", qos=qos)
    first, second = await poll(rig, peer_id, ack_supported=True)
    assert await rig.states(first["id"], second["id"]) == ["seen", "leased"]
    assert (first["ack_deadline"], second["ack_deadline"]) == (None, "2023-11-14T22:14:20.000Z")
    answer = await call(rig, "/ack-messages", id=peer_id, message_ids=[first["id"], second["id"]])
    assert answer["acked"] == 1


async def test_quality_0_comes_back_if_the_answer_was_not_written(rig):
    peer_id = await joined(rig, "a")
    await call(rig, "/send-message", from_id="cli", to_id=peer_id, text="x", qos=0)
    await call(rig, "/poll-messages", whole=False, id=peer_id)
    assert [each["text"] for each in await poll(rig, peer_id)] == ["x"]


@pytest.mark.parametrize(
    ("asked", "lives"), [(None, 5.0), (2000, 2.0), (0, 24 * 3600.0)], ids=["usual", "own", "none"]
)
async def test_a_message_lives_as_its_sender_wants_or_its_recipient(rig, asked, lives):
    peer_id = await joined(rig, "a", default_ttl_ms=5000)
    receipt = await rig.send(peer_id, ttl_ms=asked)
    assert receipt.message.expires_at == rig.clock.wall() + lives


async def test_a_copy_of_a_broadcast_lives_as_its_recipient_wants(rig):
    peer_id = await joined(rig, "a", default_ttl_ms=5000)
    await call(rig, "/broadcast", from_id="cli", scope="@a", text="x")
    assert (await rig.store.message(1)).expires_at == rig.clock.wall() + 5.0
    assert await rig.unread(peer_id) == [1]


async def test_the_time_to_acknowledge_and_the_silence_are_settings():
    rig = await make_broker(ack_within=5.0, silence=10.0)
    peer_id = await joined(rig, "a")
    message = (await rig.send(peer_id)).message.id
    await rig.poll(peer_id, ack_supported=True)
    rig.clock.passed = 5.0
    await rig.broker.tidy()
    await rig.settled()
    assert await rig.states(message) == ["queued"]
    rig.clock.passed = 10.1
    assert await call(rig, "/list-peers") == []


# What pollers are shown


async def test_only_agentmeshs_pollers_get_its_row(rig):
    ours, theirs = (await call(rig, "/register"))["id"], await joined(rig, "a")
    for peer_id in (ours, theirs):
        await rig.send(peer_id)
    for peek in (True, False):
        path = "/peek-messages" if peek else "/poll-messages"
        (told,) = (await call(rig, path, id=theirs))["messages"]
        assert set(told) >= ROW
        assert told["expires_at"] == "2023-11-15T22:13:20.000Z"
        assert (told["max_retries"], told["signature"]) == (DELIVERIES - 1, None)
        (told,) = (await call(rig, path, id=ours))["messages"]
        assert not set(told) & (ROW - {"expires_at"})


async def test_our_own_clients_read_their_mail_as_ever_whatever_they_tell(rig):
    body = {"client": "claude-code", "fleet_id": "f", "capabilities": ["x"]}
    peer_id = (await call(rig, "/register", **body))["id"]
    await rig.send(peer_id)
    (told,) = await poll(rig, peer_id, ack_supported=True)
    assert isinstance(told["expires_at"], float)
    assert "qos" not in told


async def test_the_user_reads_an_agentmesh_mailbox_as_any_other(rig):
    peer_id = await joined(rig, "a")
    await rig.send(peer_id)
    (told,) = (await call(rig, "/peek-messages", USER, id=peer_id))["messages"]
    assert isinstance(told["expires_at"], float)


async def test_a_poll_that_only_reads_takes_nothing(rig):
    peer_id = await joined(rig, "a")
    message = (await rig.send(peer_id)).message.id
    for _ in range(2):
        assert [each["id"] for each in await poll(rig, peer_id, read_only=True)] == [message]
    assert await rig.states(message) == ["queued"]


async def test_the_user_observes_what_was_sent_in_the_last_five_minutes(rig):
    ann, bob = await joined(rig, "ann"), await joined(rig, "bob")
    old = (await rig.send(ann, "old")).message.id
    rig.clock.passed = 301.0
    seen = (await rig.send(ann, "seen")).message.id
    await rig.poll(ann)
    new = (await rig.send(bob, "new")).message.id
    before = await rig.states(old, seen, new)
    told = await call(rig, "/poll-messages", USER, id="watcher", subscribe_all=True, read_only=True)
    assert [each["text"] for each in told["messages"]] == ["seen", "new"]
    assert await rig.states(old, seen, new) == before


async def test_nobody_else_observes(rig):
    peer_id = await joined(rig, "a")
    await rig.send(peer_id)
    with pytest.raises(SecretRequiredError):
        await poll(rig, peer_id, subscribe_all=True, read_only=True)
    with pytest.raises(SecretRequiredError):
        await poll(rig, peer_id, subscribe_all=True)


async def test_an_agentmesh_sender_is_told_of_a_missing_agent_and_others_of_a_missing_peer(rig):
    peer_id = await joined(rig, "a")
    for sender, words in ((peer_id, "Agent zzz not found"), ("cli", "Peer zzz not found")):
        with pytest.raises(PeerNotFoundError) as refused:
            await call(rig, "/send-message", from_id=sender, to_id="zzz", text="x")
        assert refused.value.fact == words


# Dead letters


@pytest.mark.bug("B4-25")
async def test_dead_letters_have_agentmeshs_reasons_for_its_peers_and_ours_for_the_user(rig):
    peer_id = await joined(rig, "a")
    await rig.send(peer_id, "late", ttl_ms=1000)
    tried = (await rig.send(peer_id, "tried")).message.id
    rig.clock.passed = 2.0
    await rig.broker.tidy()
    for _ in range(DELIVERIES):
        await poll(rig, peer_id, ack_supported=True)
        await call(rig, "/release-messages", id=peer_id, message_ids=[tried])
    assert await poll(rig, peer_id, ack_supported=True) == []
    told = (await call(rig, "/dead-letters", id=peer_id))["dead_letters"]
    assert [(each["text"], each["reason"]) for each in told] == [
        ("tried", "MAX_RETRIES_EXCEEDED"),
        ("late", "TTL_EXPIRED"),
    ]
    assert told[0]["original_message_id"] == tried
    (newest,) = (await call(rig, "/dead-letters", id=peer_id, limit=1))["dead_letters"]
    assert newest["text"] == "tried"
    told = (await call(rig, "/dead-letters", USER, id=peer_id))["dead_letters"]
    assert told[1]["reason"] == "nobody read it in time"


@pytest.mark.bug("B4-5")
async def test_b4_5_a_slow_poller_gets_what_was_sent_hours_ago(rig):
    peer_id = await joined(rig, "a", hostname="far")
    await rig.send(peer_id, "x", qos=1)
    for hours in range(1, 24):
        rig.clock.passed = hours * 3600.0
        await rig.broker.tidy()
        await rig.broker.peers.sweep()
    assert [each["text"] for each in await poll(rig, peer_id)] == ["x"]
    assert (await call(rig, "/dead-letters", id=peer_id))["dead_letters"] == []


# Signatures


async def test_where_there_is_a_secret_every_row_is_signed_with_it():
    rig = await make_broker(fleet_secret=b"golden-secret")
    ours, theirs = (await call(rig, "/register"))["id"], await joined(rig, "a")
    for peer_id in (ours, theirs):
        await rig.send(peer_id, "signed \N{PARTY POPPER}")
        (told,) = await poll(rig, peer_id)
        text = "{id}:{from_id}:{to_id}:{text}:{sent_at}".format(**told)
        mac = hmac.new(b"golden-secret", text.encode(), hashlib.sha256)
        assert told["signature"] == mac.hexdigest()
        answer = await call(rig, "/verify-signature", message=told, signature=told["signature"])
        assert answer == {"ok": True, "valid": True}


async def test_a_signature_of_anything_else_is_not_valid():
    rig = await make_broker(fleet_secret=b"golden-secret")
    peer_id = await joined(rig, "a")
    await rig.send(peer_id)
    (told,) = await poll(rig, peer_id)
    wrong = {"ok": False, "valid": False}
    for field in ("id", "from_id", "to_id", "text", "sent_at"):
        changed = told | {field: f"{told[field]}0"}
        answer = await call(rig, "/verify-signature", message=changed, signature=told["signature"])
        assert answer == wrong
    for signature in ("", "00", "\u00e9", None):
        assert await call(rig, "/verify-signature", message=told, signature=signature) == wrong
    with pytest.raises(BadRequestError, match="message"):
        await call(rig, "/verify-signature", signature="00")


async def test_without_a_secret_nothing_is_signed_and_nothing_verified(rig):
    with pytest.raises(NoFleetSecretError, match="Signing not configured on this broker"):
        await call(rig, "/verify-signature")


async def test_the_secret_is_in_no_repr():
    rig = await make_broker(fleet_secret=b"golden-secret")
    assert "golden" not in repr(rig.broker.options)


async def test_it_is_told_that_there_is_no_federation():
    rig = await make_broker(broker_id="here:7899")
    told = await call(rig, "/federation/status", anything=1)
    assert told == {"broker_id": "here:7899", "peers": [], "server_peers": []}


# Rates


@pytest.mark.bug("B4-19")
async def test_b4_19_cli_on_another_machine_and_a_registered_peer_have_their_own_allowance():
    rig = await make_broker(limits=Limits(burst=1, mailbox=0))
    peer_id, known = await rig.joins_as_process(41)
    elsewhere = Caller(machine="tablet", source="machine tablet", elsewhere=True)
    await rig.send(peer_id, from_id="cli")
    for name in ("cli", "another"):
        with pytest.raises(RateLimitedError):
            await rig.send(peer_id, from_id=name)
    await rig.send(peer_id, from_id="cli", caller=elsewhere)
    await rig.send(peer_id, from_id=peer_id, caller=known)
