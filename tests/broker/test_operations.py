"""Each request as it comes over the wire: what it answers, and what it does to the broker."""

import inspect

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker.operations import OPERATIONS
from claude_peers.broker.operations.registry import Answer
from claude_peers.core.errors import BadRequestError, NotYourPeerError, SecretRequiredError

pytestmark = pytest.mark.anyio

BY_PATH = {operation.path: operation for operation in OPERATIONS}
OK = {"ok": True}


@pytest.fixture
async def rig():
    return await make_broker()


async def call(rig, path: str, *, caller=None, whole: bool = True, **body):
    """Serve a request; an answer that wants to know is told that it was written."""
    answer = await BY_PATH[path](rig.broker, caller or Caller(), body)
    if isinstance(answer, Answer):
        answer.written(whole)
        await rig.settled()
        return answer.body
    return answer


async def joined(rig, **body) -> str:
    return (await call(rig, "/register", **body))["id"]


def test_every_operation_is_declared_once_with_its_summary():
    assert len(BY_PATH) == len(OPERATIONS)
    for operation in OPERATIONS:
        assert operation.path.startswith("/")
        assert operation.summary.endswith((".", ";")) and "\n" not in operation.summary
        assert inspect.getdoc(operation.serve).startswith(operation.summary)


async def test_registering_answers_with_id_token_and_name(rig):
    answer = await call(rig, "/register", pid=41, cwd="/r/main", git_root=None, summary="")
    assert sorted(answer) == ["id", "name", "token"]
    assert answer["name"] == "main"


async def test_registering_needs_nothing(rig):
    assert (await call(rig, "/register"))["id"]


async def test_a_body_that_is_wrong_is_refused(rig):
    with pytest.raises(BadRequestError, match="pid"):
        await call(rig, "/register", pid="abc")
    assert list(rig.broker.roster) == []


async def test_the_list_shows_upstreams_fields_and_ours(rig):
    peer_id = await joined(rig, pid=41, cwd="/r", agent_type="codex", summary="works")
    (shown,) = await call(rig, "/list-peers", scope="machine", cwd="/", git_root=None)
    assert shown == {
        "id": peer_id,
        "pid": 41,
        "cwd": "/r",
        "git_root": None,
        "tty": None,
        "summary": "works",
        "registered_at": "2023-11-14T22:13:20.000Z",
        "last_seen": "2023-11-14T22:13:20.000Z",
        "name": "r",
        "hostname": "here",
        "agent_type": "codex",
        "route": "",
        "activity": "",
        "verified": "open",
        "agent_name": "",
        "capabilities": [],
        "transport": {"type": "poll"},
        "fleet_id": None,
        "device_id": None,
        "lwt_topic": None,
        "online": False,
        "broker_url": None,
    }
    assert await call(rig, "/list-peers", exclude_id=peer_id) == []


@pytest.mark.parametrize("path", ["/heartbeat", "/unregister"])
@pytest.mark.parametrize("body", [{}, {"id": "nobody"}], ids=["no id", "unknown id"])
async def test_what_upstream_clients_do_under_unknown_ids_is_ok(rig, path, body):
    assert await call(rig, path, **body) == OK


async def test_a_summary_is_set(rig):
    peer_id = await joined(rig)
    assert await call(rig, "/set-summary", id=peer_id, summary="works") == OK
    assert rig.broker.roster.get(peer_id).summary == "works"
    with pytest.raises(BadRequestError, match="summary"):
        await call(rig, "/set-summary", id=peer_id)


async def test_unregistering_takes_a_peer_off_the_list(rig):
    peer_id = await joined(rig)
    assert await call(rig, "/unregister", id=peer_id) == OK
    assert await call(rig, "/list-peers") == []


async def test_sending_tells_what_became_of_the_message(rig):
    peer_id = await joined(rig, name="main", route="channel")
    answer = await call(rig, "/send-message", from_id="cli", to_id="main", text="hi")
    assert answer == {
        "ok": True,
        "message_id": 1,
        "state": "queued",
        "to_id": peer_id,
        "to_name": "main",
        "presence": "present",
        "route": "channel",
        "activity": "",
        "last_seen": "2023-11-14T22:13:20.000Z",
        "unread": 1,
        "warnings": [],
    }


async def test_sending_again_says_so(rig):
    await joined(rig, name="main")
    body = {"from_id": "cli", "to_id": "main", "text": "hi", "dedupe_key": "k"}
    first = await call(rig, "/send-message", **body)
    assert await call(rig, "/send-message", **body) == first | {"duplicate": True}


async def test_a_legacy_poll_consumes(rig):
    peer_id = await joined(rig)
    await rig.send(peer_id, "hi", reply_to=7)
    answer = await call(rig, "/poll-messages", id=peer_id)
    uid = (await rig.store.message(1)).uid
    assert answer == {
        "messages": [
            {
                "id": 1,
                "from_id": "cli",
                "to_id": peer_id,
                "text": "hi",
                "sent_at": "2023-11-14T22:13:20.000Z",
                "delivered": 0,
                "topic": None,
                "uid": uid,
                "verified": False,
                "reply_to": 7,
            }
        ]
    }
    assert await call(rig, "/poll-messages", id=peer_id) == {"messages": []}
    assert await rig.states(1) == ["seen"]


async def test_a_poll_that_breaks_off_is_repeated_and_says_so(rig):
    peer_id = await joined(rig)
    await rig.send(peer_id)
    await call(rig, "/poll-messages", id=peer_id, whole=False)
    (again,) = (await call(rig, "/poll-messages", id=peer_id))["messages"]
    assert again["redelivered"] == 1


async def test_a_poll_under_an_unknown_id_is_empty(rig):
    assert await call(rig, "/poll-messages", id="nobody") == {"messages": []}


async def test_peeking_shows_and_takes_nothing(rig):
    peer_id = await joined(rig)
    await rig.send(peer_id)
    first = await call(rig, "/peek-messages", id=peer_id)
    assert await call(rig, "/peek-messages", id=peer_id) == first
    assert [message["id"] for message in first["messages"]] == [1]


@pytest.mark.parametrize(
    "shape",
    [
        lambda owner, ids: {"id": owner, "message_ids": ids},
        lambda owner, ids: {"peer_id": owner, "ids": ids},
        lambda _owner, ids: {"ids": ids},
        lambda _owner, ids: {"message_ids": ids},
    ],
    ids=["id, message_ids", "peer_id, ids", "ids", "message_ids"],
)
async def test_an_acknowledgement_is_understood_in_every_shape(rig, shape):
    peer_id = await joined(rig)
    await rig.send(peer_id)
    await rig.send(peer_id)
    await call(rig, "/poll-messages", id=peer_id, ack_supported=True)
    assert await call(rig, "/ack-messages", **shape(peer_id, [1, 99])) == {"ok": True, "acked": 1}
    assert await rig.states(1, 2) == ["seen", "leased"]


async def test_an_acknowledgement_without_a_mailbox_counts_over_all_of_them(rig):
    first, second = await joined(rig), await joined(rig)
    await rig.send(first)
    await rig.send(second)
    assert await call(rig, "/ack-messages", ids=[1, 2]) == {"ok": True, "acked": 2}


async def test_nobody_acknowledges_for_another_process(rig):
    peer_id, _ = await rig.joins_as_process(41)
    await rig.send(peer_id)
    for body in ({"id": peer_id, "message_ids": [1]}, {"ids": [1]}):
        with pytest.raises(NotYourPeerError):
            await call(rig, "/ack-messages", **body)
    assert await rig.states(1) == ["queued"]


async def test_an_acknowledgement_of_somebody_elses_message_too_acknowledges_none(rig):
    peer_id = await joined(rig)
    other, _ = await rig.joins_as_process(41)
    await rig.send(peer_id)
    await rig.send(other)
    for ids in ([1, 2], [2, 1]):
        with pytest.raises(NotYourPeerError):
            await call(rig, "/ack-messages", ids=ids)
    assert await rig.states(1, 2) == ["queued", "queued"]


async def test_messages_are_released(rig):
    peer_id = await joined(rig)
    await rig.send(peer_id)
    await call(rig, "/poll-messages", id=peer_id, ack_supported=True)
    answer = await call(rig, "/release-messages", id=peer_id, message_ids=[1])
    assert answer == {"ok": True, "released": 1}
    assert await rig.states(1) == ["queued"]


async def test_messages_are_marked_as_pushed(rig):
    peer_id = await joined(rig)
    await rig.send(peer_id)
    answer = await call(rig, "/pushed-messages", id=peer_id, message_ids=[1])
    assert answer == {"ok": True, "pushed": 1}
    assert await rig.states(1) == ["pushed"]


async def test_stepping_down_needs_the_secret(rig):
    held: list[float] = []
    rig.broker.step_down(0.0)
    rig.broker.step_down = held.append
    with pytest.raises(SecretRequiredError):
        await call(rig, "/admin/step-down", hold_ms=1500)
    assert held == []
    answer = await call(rig, "/admin/step-down", caller=Caller(knows_secret=True), hold_ms=1500)
    assert (answer, held) == ({"ok": True, "epoch": rig.broker.epoch}, [1.5])


async def test_the_ledger_is_told(rig):
    peer_id = await joined(rig)
    await rig.send(peer_id)
    await rig.send(peer_id)
    await rig.poll(peer_id, limit=1)
    assert await call(rig, "/ledger") == {
        "ok": True,
        "accepted": 2,
        "purged": 0,
        "states": {"leased": 1, "queued": 1},
        "refused": {},
        "balanced": True,
    }
