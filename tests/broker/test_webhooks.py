"""Webhooks out, as the broker sees them: who may have one, and what a post means."""

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker import webhooks as broker_webhooks
from claude_peers.broker.operations import OPERATIONS
from claude_peers.broker.registration import hash_token
from claude_peers.core.delivery import DELIVERIES
from claude_peers.core.errors import (
    BadRequestError,
    NotPossibleError,
    NotYourPeerError,
    PeerNotFoundError,
    SecretRequiredError,
    StoreError,
)
from claude_peers.core.models import PeerId
from claude_peers.core.webhooks import Outcome, Rules, WebhookRefusedError

pytestmark = pytest.mark.anyio

BY_PATH = {operation.path: operation for operation in OPERATIONS}
USER = Caller(knows_secret=True)
URL = "http://127.0.0.1:8644/in?key=k"


@pytest.fixture
async def rig():
    made = await make_broker()
    made.broker.webhooks.rules = Rules(own_port=7899)
    return made


async def call(rig, path: str, caller=None, **body):
    return await BY_PATH[path](rig.broker, caller or Caller(), body)


async def hooked(rig, url: str = URL, caller=None, **more):
    """Register a peer with a webhook; `more` goes into its transport."""
    transport = {"type": "webhook", "webhook_url": url, **more}
    return await call(rig, "/register", caller, name="hook", transport=transport)


def as_peer(joined) -> Caller:
    return Caller(token_hash=hash_token(joined["token"]))


async def post(rig, peer_id: str, outcome: Outcome, told: str = "HTTP 500"):
    """Take the next message for a post, and let that come of it; return the message's id."""
    errand = await rig.broker.webhooks.next(PeerId(peer_id))
    assert errand is not None
    await rig.broker.webhooks.came_of(errand, outcome, told)
    return errand.message.id


async def row(rig, peer_id: str):
    (found,) = [each for each in await call(rig, "/list-peers") if each["id"] == peer_id]
    return found


# Setting


async def test_a_registration_with_a_webhook_is_told_its_secret_once(rig):
    joined = await hooked(rig)
    assert joined["webhook_secret"].startswith("whsec_")
    again = {"name": "hook", "token": joined["token"]}
    transport = {"type": "webhook", "webhook_url": URL}
    told = await call(rig, "/register", **again, transport=transport)
    assert (told["id"], "webhook_secret" in told) == (joined["id"], False)
    moved = {"type": "webhook", "webhook_url": "http://127.0.0.1:8645/"}
    assert (await call(rig, "/register", **again, transport=moved))["webhook_secret"] != joined[
        "webhook_secret"
    ]


async def test_without_a_transport_a_webhook_stays_and_with_another_it_ends(rig):
    joined = await hooked(rig)
    token = {"token": joined["token"], "name": "hook"}
    await call(rig, "/register", **token)
    assert rig.broker.webhooks.get(joined["id"]) is not None
    assert (await row(rig, joined["id"]))["route"] == "webhook"
    await call(rig, "/register", **token, transport={"type": "poll"})
    assert rig.broker.webhooks.get(joined["id"]) is None
    assert await rig.store.webhooks() == []
    await call(rig, "/register", **token, transport={"type": "poll"})


async def test_a_stream_that_ends_leaves_the_webhook_as_the_peers_way(rig):
    joined = await hooked(rig)
    rig.broker.reached_by(joined["id"], "events")
    rig.transport.linked.add(joined["id"])  # as its webhook does
    rig.broker.stream_ended(joined["id"], missed=False)
    await rig.settled()
    shown = await row(rig, joined["id"])
    assert (shown["route"], shown["online"]) == ("webhook", False)


async def test_a_session_of_the_peer_learns_what_its_receiver_took(rig):
    joined = await hooked(rig)
    await rig.send(joined["id"], "hi")
    number = await post(rig, joined["id"], Outcome.REFUSED)
    assert rig.transport.read == []
    assert await post(rig, joined["id"], Outcome.DELIVERED) == number
    assert rig.transport.read == [(joined["id"], [number])]


async def test_agentmeshs_webhook_without_an_address_is_none(rig):
    joined = await call(rig, "/register", transport={"type": "webhook"})
    assert rig.broker.webhooks.get(joined["id"]) is None


@pytest.mark.threat("T18")
@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/", "file:///etc/passwd", "http://[::ffff:127.0.0.1]:7899/",
        "http://2130706433/", "http://127.0.0.1:7899/", "http://evil.example/",
    ],
)  # fmt: skip
async def test_a_registration_that_names_another_address_is_refused_whole(rig, url):
    with pytest.raises(WebhookRefusedError):
        await hooked(rig, url)
    assert await call(rig, "/list-peers") == []


@pytest.mark.threat("T18")
async def test_a_peer_on_another_machine_may_not_name_this_one(rig):
    with pytest.raises(WebhookRefusedError):
        await hooked(rig, caller=Caller(machine="mac"))


@pytest.mark.parametrize(
    "more", [{"format": "xml"}, {"token": "a b"}, {"token": "é"}, {"token": "x" * 2000}]
)
async def test_formats_and_tokens_that_are_none_are_refused(rig, more):
    with pytest.raises(BadRequestError):
        await hooked(rig, **more)


@pytest.mark.bug("P8")
@pytest.mark.threat("T18")
async def test_bug_p8_nobody_else_is_shown_where_a_peer_is_posted_to(rig):
    joined = await hooked(rig, token="s3cret")
    told = repr([await call(rig, "/list-peers"), await rig.send(joined["id"])])
    assert "8644" not in told
    assert "s3cret" not in told
    with pytest.raises(SecretRequiredError):
        await call(rig, "/admin/webhooks")
    (listed,) = (await call(rig, "/admin/webhooks", USER))["webhooks"]
    assert (listed["url"], listed["name"], listed["format"]) == (URL, "hook", "agentmesh")
    assert not {"secret", "token", "webhook_secret"} & set(listed)


@pytest.mark.threat("T18")
async def test_only_the_peer_itself_and_the_user_say_where_its_mail_goes(rig):
    joined = await call(rig, "/register", name="ann")
    other = await call(rig, "/register", name="bob")
    for stranger in (Caller(), as_peer(other)):
        with pytest.raises(NotYourPeerError):
            await call(rig, "/webhook/set", stranger, id=joined["id"], url=URL)
        with pytest.raises(NotYourPeerError):
            await call(rig, "/webhook/remove", stranger, id=joined["id"])
    mine = await call(rig, "/webhook/set", as_peer(joined), id=joined["id"], url=URL)
    again = await call(rig, "/webhook/set", USER, id="ann", url=URL)
    assert mine["webhook_secret"] == again["webhook_secret"]
    assert await call(rig, "/webhook/remove", USER, id="ann") == {
        "ok": True, "id": joined["id"], "name": "ann",
    }  # fmt: skip
    assert (await row(rig, joined["id"]))["route"] == ""
    with pytest.raises(PeerNotFoundError):
        await call(rig, "/webhook/set", USER, id="nobody", url=URL)


async def test_there_is_an_end_to_webhooks(rig, monkeypatch):
    monkeypatch.setattr(broker_webhooks, "WEBHOOKS", 1)
    await hooked(rig)
    with pytest.raises(NotPossibleError, match="1 peers"):
        await hooked(rig)


async def test_what_could_not_be_stored_has_not_happened(rig):
    joined = await call(rig, "/register", name="ann")

    async def fails(_webhook):
        raise StoreError("full", "Free some space.")

    rig.store.save_webhook = fails
    with pytest.raises(StoreError):
        await call(rig, "/webhook/set", USER, id="ann", url=URL)
    assert rig.broker.webhooks.get(joined["id"]) is None


async def test_a_second_server_changes_nothing_about_its_peers_webhook(rig):
    process = rig.machine.start(7)
    keys = {"keys": ["live:k"], "proof": "the right answer"}
    first = await hooked(rig)
    await call(rig, "/unregister", as_peer(first), id=first["id"])
    one = await call(rig, "/register", Caller(processes=(process,)), pid=7, **keys)
    await call(rig, "/webhook/set", USER, id=one["id"], url=URL)
    beside = await call(rig, "/register", Caller(), transport={"type": "poll"}, **keys)
    assert (beside["id"], beside["secondary"]) == (one["id"], True)
    assert rig.broker.webhooks.get(one["id"]) is not None


# Posting


@pytest.mark.bug("B4-1")
async def test_bug_b4_1_success_is_taken_as_evidence_exactly_once(rig):
    joined = await hooked(rig)
    receipt = await rig.send(joined["id"])
    assert await post(rig, joined["id"], Outcome.DELIVERED, "HTTP 200") == receipt.message.id
    assert await rig.states(receipt.message.id) == ["seen"]
    assert await rig.broker.webhooks.next(PeerId(joined["id"])) is None
    assert await rig.poll(joined["id"]) == []
    (story,) = await rig.store.stories([receipt.message.id])
    assert [(step.event, step.via) for step in story.steps] == [
        ("lease", "webhook"),
        ("see", "webhook: HTTP 200"),
    ]


async def test_a_failure_leaves_the_message_first_in_line_and_shows_in_the_roster(rig):
    joined = await hooked(rig)
    first = (await rig.send(joined["id"])).message.id
    await rig.send(joined["id"])
    assert await post(rig, joined["id"], Outcome.RETRY, "HTTP 503") == first
    assert (await row(rig, joined["id"]))["route"] == "webhook, failing: HTTP 503"
    errand = await rig.broker.webhooks.next(PeerId(joined["id"]))
    assert (errand.message.id, errand.failures) == (first, 1)
    await rig.broker.webhooks.came_of(errand, Outcome.DELIVERED, "HTTP 200")
    assert (await row(rig, joined["id"]))["route"] == "webhook"


async def test_a_message_that_nobody_takes_is_dead_after_the_usual_number_of_tries(rig):
    joined = await hooked(rig)
    receipt = await rig.send(joined["id"])
    for _ in range(DELIVERIES):
        await post(rig, joined["id"], Outcome.RETRY, "ConnectionRefusedError")
    assert await rig.broker.webhooks.next(PeerId(joined["id"])) is None
    (dead,) = await rig.store.dead_letters(limit=9)
    assert (dead.id, str(DELIVERIES) in dead.reason) == (receipt.message.id, True)


async def test_it_is_posted_as_often_as_the_user_says_and_each_post_tells_how_often(rig):
    rig.store.deliveries = 3
    joined = await hooked(rig)
    await rig.send(joined["id"])
    for failures in range(3):
        errand = await rig.broker.webhooks.next(PeerId(joined["id"]))
        assert (errand.failures, errand.deliveries) == (failures, 3)
        await rig.broker.webhooks.came_of(errand, Outcome.RETRY, "HTTP 500")
    assert await rig.broker.webhooks.next(PeerId(joined["id"])) is None
    (dead,) = await rig.store.dead_letters(limit=9)
    assert "3 times" in dead.reason


async def test_a_receiver_that_is_gone_is_left_alone_and_its_mail_waits(rig):
    joined = await hooked(rig)
    await rig.send(joined["id"])
    await post(rig, joined["id"], Outcome.GONE, "HTTP 410")
    assert await rig.broker.webhooks.next(PeerId(joined["id"])) is None
    assert len(await rig.unread(joined["id"])) == 1
    (listed,) = (await call(rig, "/admin/webhooks", USER))["webhooks"]
    assert "410" in listed["problem"]
    assert not rig.broker.webhooks.reaches(PeerId(joined["id"]))
    later = await make_broker(rig.store)
    assert later.broker.webhooks.get(joined["id"]) is None
    await call(rig, "/webhook/set", USER, id=joined["id"], url=URL)
    assert rig.broker.webhooks.get(joined["id"]) is not None


async def test_a_gone_answer_of_an_address_given_up_meanwhile_ends_nothing(rig):
    joined = await hooked(rig)
    await rig.send(joined["id"])
    errand = await rig.broker.webhooks.next(PeerId(joined["id"]))
    await call(rig, "/webhook/set", USER, id=joined["id"], url="http://127.0.0.1:1/")
    await rig.broker.webhooks.came_of(errand, Outcome.GONE, "HTTP 410")
    assert rig.broker.webhooks.get(joined["id"]).url == "http://127.0.0.1:1/"


async def test_nothing_is_posted_for_who_has_left_or_has_no_webhook(rig):
    joined = await hooked(rig)
    await rig.send(joined["id"])
    await call(rig, "/unregister", as_peer(joined), id=joined["id"])
    assert await rig.broker.webhooks.next(PeerId(joined["id"])) is None
    assert await rig.broker.webhooks.next(PeerId("nobody")) is None


async def test_the_next_broker_posts_what_was_on_its_way_again_and_says_so(rig):
    joined = await hooked(rig)
    receipt = await rig.send(joined["id"])
    first = await rig.broker.webhooks.next(PeerId(joined["id"]))
    later = await make_broker(rig.store)
    again = await later.broker.webhooks.next(PeerId(joined["id"]))
    assert again.message.uid == first.message.uid == receipt.message.uid
    assert again.message.deliveries == 1
    assert again.webhook == first.webhook
    await later.broker.webhooks.came_of(again, Outcome.DELIVERED, "HTTP 200")
    assert await later.states(receipt.message.id) == ["seen"]


# At most once


async def dead(rig, number: int) -> str:
    (found,) = await rig.store.dead_letters(limit=9)
    assert found.id == number
    return found.reason


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.REFUSED, Outcome.GONE])
async def test_what_may_arrive_once_is_posted_once_and_dead_if_that_failed(rig, outcome):
    joined = await hooked(rig)
    number = (await rig.send(joined["id"], qos=0)).message.id
    assert await post(rig, joined["id"], outcome, "HTTP 503") == number
    assert await rig.broker.webhooks.next(PeerId(joined["id"])) is None
    assert await rig.unread(joined["id"]) == []
    assert await dead(rig, number) == "posted once, as its quality is 0: HTTP 503"


async def test_what_may_arrive_once_is_seen_once_it_was_taken(rig):
    joined = await hooked(rig)
    number = (await rig.send(joined["id"], qos=0)).message.id
    await post(rig, joined["id"], Outcome.DELIVERED, "HTTP 200")
    assert await rig.states(number) == ["seen"]


async def test_the_next_broker_does_not_post_again_what_may_arrive_once(rig):
    joined = await hooked(rig)
    number = (await rig.send(joined["id"], qos=0)).message.id
    later = (await rig.send(joined["id"])).message.id
    await rig.broker.webhooks.next(PeerId(joined["id"]))
    successor = await make_broker(rig.store)
    errand = await successor.broker.webhooks.next(PeerId(joined["id"]))
    assert errand.message.id == later
    assert "not known" in await dead(successor, number)


async def test_what_came_back_unread_is_posted_although_it_may_arrive_once(rig):
    joined = await hooked(rig)
    number = (await rig.send(joined["id"], qos=0)).message.id
    assert await rig.poll(joined["id"], as_peer(joined), whole=False) == [number]
    assert await post(rig, joined["id"], Outcome.DELIVERED) == number


async def test_a_message_about_which_the_database_fails_is_given_back(rig):
    joined = await hooked(rig)
    number = (await rig.send(joined["id"], qos=0)).message.id
    await rig.broker.webhooks.next(PeerId(joined["id"]))
    successor = await make_broker(rig.store)
    stories = rig.store.stories

    async def fails(_ids):
        rig.store.stories = stories
        raise StoreError("broken", "Look at the disk.")

    rig.store.stories = fails
    with pytest.raises(StoreError):
        await successor.broker.webhooks.next(PeerId(joined["id"]))
    await successor.settled()
    assert await successor.states(number) == ["queued"]
    assert await successor.broker.webhooks.next(PeerId(joined["id"])) is None
    assert "not known" in await dead(successor, number)


async def test_a_process_decides_whether_its_peer_is_there_and_else_the_webhook(rig):
    joined = await hooked(rig)
    assert rig.broker.webhooks.reaches(PeerId(joined["id"]))
    peer_id, _ = await rig.joins_as_process(5)
    await call(rig, "/webhook/set", USER, id=peer_id, url=URL)
    assert not rig.broker.webhooks.reaches(peer_id)
    assert not rig.broker.webhooks.reaches(PeerId("nobody"))
