"""Requests of one peer, over whatever connection there is at the moment."""

import asyncio
import re

import anyio
import pytest

from claude_peers.client.client import Client, key
from claude_peers.client.errors import RefusedError
from claude_peers.core.errors import NoBrokerError
from claude_peers.wire import proof

pytestmark = pytest.mark.anyio
SECRET = b"s" * 32
BOUND = 10


class FakeLink:
    """A connection whose other end is the test.

    Attributes:
        sent: the requests that came, in order.
    """

    def __init__(self, *, keeps=True, challenge="c1"):
        self.answered = self.pushed = None
        self.keeps = keeps
        self.sent = []
        self.challenge = challenge
        self.over = asyncio.Event()
        self.came = asyncio.Event()

    def send(self, number, operation, body):
        self.sent.append((number, operation, body))
        self.came.set()

    def prove(self, secret):
        return proof.client_proof(secret, self.challenge)

    async def ended(self):
        await self.over.wait()

    async def next(self, count):
        """Return the request with this index once it has come."""
        with anyio.fail_after(BOUND):
            while len(self.sent) <= count:
                self.came.clear()
                await self.came.wait()
        return self.sent[count]

    async def accept(self, *, peer_id="abcdefgh", token="t1", name="main"):
        """Answer the registration; return its body."""
        number, operation, body = await self.next(0)
        assert operation == "/register"
        self.answered(number, 200, {"id": peer_id, "token": token, "name": name})
        return body


async def attached(client, link, **joined):
    """Attach a client; return the body of its registration."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.attach, link, SECRET)
        return await link.accept(**joined)


@pytest.fixture
def client():
    return Client(lambda: {"pid": 7, "name": "wanted"})


async def finished(call):
    with anyio.fail_after(BOUND):
        return await call


async def test_a_registration_brings_id_and_name_and_shows_its_token_the_next_time(client):
    body = await attached(client, FakeLink())
    assert body == {"pid": 7, "name": "wanted", "proof": proof.client_proof(SECRET, "c1")}
    assert (client.peer_id, client.name, client.connected) == ("abcdefgh", "main", True)
    assert client.registered.is_set()
    client.detach()
    assert not client.connected
    body = await attached(client, FakeLink(challenge="c2"))
    assert (body["token"], body["proof"]) == ("t1", proof.client_proof(SECRET, "c2"))


async def test_a_token_outlives_a_broker_that_knows_none(client):
    await attached(client, FakeLink())
    forgetful = FakeLink(keeps=False)
    attaching = asyncio.ensure_future(client.attach(forgetful, SECRET))
    number, *_ = await forgetful.next(0)
    forgetful.answered(number, 200, {"id": "upstream"})
    await finished(attaching)
    assert (client.peer_id, client.name) == ("upstream", "upstream")
    assert (await attached(client, FakeLink()))["token"] == "t1"


async def test_a_request_goes_out_at_once_and_its_answer_comes_back(client):
    link = FakeLink()
    await attached(client, link)
    call = asyncio.ensure_future(client.call("/list-peers", {"scope": "machine"}))
    number, operation, body = await link.next(1)
    assert (operation, body) == ("/list-peers", {"scope": "machine"})
    link.answered(number, 200, [])
    assert await finished(call) == []


async def test_a_refusal_keeps_code_fact_and_remedy(client):
    link = FakeLink()
    await attached(client, link)
    for status, body in (
        (404, {"error": "Peer x not found", "code": "peer_not_found", "remedy": "Look."}),
        (200, {"ok": False, "error": "Peer x not found", "code": "peer_not_found", "remedy": "L."}),
    ):
        call = asyncio.ensure_future(client.call("/send-message", {}))
        number, *_ = await link.next(len(link.sent))
        link.answered(number, status, body)
        with pytest.raises(RefusedError, match="Peer x not found") as caught:
            await finished(call)
        assert (caught.value.code, caught.value.status) == ("peer_not_found", status)
        assert caught.value.remedy == body["remedy"]


@pytest.mark.parametrize("body", ["a text", None, [], {}])
async def test_a_refusal_without_words_still_says_which_request_it_was(client, body):
    link = FakeLink()
    await attached(client, link)
    call = asyncio.ensure_future(client.call("/list-peers", {}))
    number, *_ = await link.next(1)
    link.answered(number, 503, body)
    with pytest.raises(RefusedError, match="503 to /list-peers") as caught:
        await finished(call)
    assert caught.value.code == "refused"


async def test_requests_wait_for_the_first_broker(client):
    call = asyncio.ensure_future(client.call("/list-peers", {}))
    link = FakeLink()
    await attached(client, link)
    number, operation, _ = await link.next(1)
    assert operation == "/list-peers"
    link.answered(number, 200, [])
    assert await finished(call) == []


@pytest.mark.bug("U6")
async def test_what_is_unanswered_goes_out_again_in_order_under_the_same_numbers_and_keys(client):
    link = FakeLink()
    await attached(client, link)
    bodies = [{"text": f"m{number}", "dedupe_key": key()} for number in range(5)]
    calls = [asyncio.ensure_future(client.call("/send-message", body)) for body in bodies]
    await link.next(5)
    first = link.sent[1:]
    assert [body for _, _, body in first] == bodies
    link.answered(first[1][0], 200, {"ok": True, "message_id": 2})
    await finished(calls[1])
    client.detach()
    late = asyncio.ensure_future(client.call("/send-message", {"text": "late"}))
    await asyncio.sleep(0)
    again = FakeLink()
    await attached(client, again)
    await again.next(5)
    assert again.sent[1:5] == [first[0], first[2], first[3], first[4]]
    assert again.sent[5][2] == {"text": "late"}
    for number, _, _ in again.sent[1:]:
        again.answered(number, 200, {"ok": True})
        again.answered(number, 500, {})  # a second answer to the same request is nobody's
    for call in (*calls, late):
        assert (await finished(call))["ok"]


async def test_a_broker_that_leads_no_longer_makes_a_request_wait_for_the_next(client):
    link = FakeLink()
    await attached(client, link)
    call = asyncio.ensure_future(client.call("/list-peers", {}))
    number, *_ = await link.next(1)
    link.answered(number, 503, {"code": "not_leader", "error": "succeeded"})
    client.detach()
    again = FakeLink()
    await attached(client, again)
    assert (await again.next(1))[0] == number
    again.answered(number, 200, ["there"])
    assert await finished(call) == ["there"]


async def test_a_connection_is_wanted_from_the_first_request_that_waits_until_there_is_one(client):
    call = asyncio.ensure_future(client.call("/list-peers", {}))
    assert not client.wanting.is_set()
    await asyncio.sleep(0)
    assert client.wanting.is_set()
    link = FakeLink()
    await attached(client, link)
    assert not client.wanting.is_set()
    client.detach()
    assert client.wanting.is_set(), "the request was not answered"
    again = FakeLink()
    await attached(client, again)
    again.answered((await again.next(1))[0], 200, [])
    await finished(call)
    client.detach()
    assert not client.wanting.is_set()


async def test_a_request_gives_up_after_its_time_and_is_not_sent_later(client):
    with pytest.raises(NoBrokerError, match=r"within 0\.01 s, and nothing was sent\. Try again"):
        await client.call("/list-peers", {}, within=0.01)
    link = FakeLink()
    await attached(client, link)
    with pytest.raises(NoBrokerError, match=r"did not answer within 0\.01 s\. Try again"):
        await client.call("/list-peers", {}, within=0.01)
    number = link.sent[1][0]
    link.answered(number, 200, [])  # too late
    client.detach()
    again = FakeLink()
    await attached(client, again)
    assert len(again.sent) == 1


MESSAGE = {"to_id": "bob", "text": "x", "dedupe_key": "k"}


async def refused(client, body):
    """Return what the caller of a send is told that gets no answer."""
    with pytest.raises(NoBrokerError) as told:
        await client.call("/send-message", body, within=0.01)
    return str(told.value)


async def test_a_message_that_may_be_stored_is_not_called_unsent(client):
    assert "nothing was sent" in await refused(client, MESSAGE)
    link = FakeLink()
    await attached(client, link)
    told = await refused(client, MESSAGE)
    assert "may have been stored or not" in told and "exactly the same arguments" in told
    assert "nothing was sent" not in told


async def test_a_message_that_went_out_before_the_broker_vanished_may_be_stored(client):
    link = FakeLink()
    await attached(client, link)
    call = asyncio.ensure_future(client.call("/send-message", MESSAGE, within=0.02))
    await link.next(1)
    client.detach()
    client.problem = NoBrokerError("The folder is full", "Empty it.")
    with pytest.raises(NoBrokerError, match="may have been stored or not"):
        await finished(call)


async def test_a_message_to_a_broker_without_keys_is_not_to_be_sent_again_blindly(client):
    link = FakeLink(keeps=False)
    await attached(client, link)
    told = await refused(client, MESSAGE)
    assert "second message" in told and "same arguments" not in told
    call = asyncio.ensure_future(client.call("/send-message", MESSAGE, within=0.02))
    await link.next(2)
    await attached(
        client, FakeLink()
    )  # the next broker knows keys; the last one may have stored it
    with pytest.raises(NoBrokerError, match="second message"):
        await finished(call)


async def test_a_request_of_a_cancelled_caller_is_not_sent_again(client):
    link = FakeLink()
    await attached(client, link)
    call = asyncio.ensure_future(client.call("/list-peers", {}))
    await link.next(1)
    call.cancel()
    await asyncio.wait([call])
    client.detach()
    again = FakeLink()
    await attached(client, again)
    assert len(again.sent) == 1


async def test_a_known_problem_is_told_at_once_and_instead_of_a_time_out(client):
    call = asyncio.ensure_future(client.call("/list-peers", {}, within=0.01))
    await asyncio.sleep(0)
    client.problem = NoBrokerError("The folder is full", "Empty it.")
    with pytest.raises(NoBrokerError, match="The folder is full"):
        await finished(call)
    with pytest.raises(NoBrokerError, match="The folder is full"):
        await finished(client.call("/list-peers", {}))
    link = FakeLink()
    await attached(client, link)
    assert client.problem is None


async def test_a_problem_of_others_does_not_stop_a_connected_client(client):
    link = FakeLink()
    await attached(client, link)
    client.problem = NoBrokerError("x", "y")
    call = asyncio.ensure_future(client.call("/list-peers", {}))
    link.answered((await link.next(1))[0], 200, [])
    assert await finished(call) == []


async def test_a_refused_registration_is_told_and_nothing_is_sent_behind_it(client):
    waiting = asyncio.ensure_future(client.call("/list-peers", {}))
    await asyncio.sleep(0)
    link = FakeLink()
    attaching = asyncio.ensure_future(client.attach(link, SECRET))
    number, *_ = await link.next(0)
    link.answered(number, 503, {"error": "The database failed", "code": "store_failed"})
    with pytest.raises(RefusedError, match="The database failed"):
        await finished(attaching)
    assert len(link.sent) == 1
    assert not client.connected
    assert not client.registered.is_set()
    again = FakeLink()
    await attached(client, again)
    again.answered((await again.next(1))[0], 200, [])
    assert await finished(waiting) == []


@pytest.mark.parametrize("closing", [True, False])
async def test_a_connection_that_ends_before_the_registration_is_answered_counts_as_broken(
    client, closing
):
    link = FakeLink()
    attaching = asyncio.ensure_future(client.attach(link, SECRET))
    number, *_ = await link.next(0)
    if closing:
        link.answered(number, 503, {"code": "not_leader"})
    link.over.set()
    with pytest.raises(ConnectionResetError):
        await finished(attaching)
    again = FakeLink()
    await attached(client, again)
    assert [operation for _, operation, _ in again.sent] == ["/register"]


async def test_pushes_go_to_whoever_listens_now(client):
    link = FakeLink()
    await attached(client, link)
    link.pushed({"id": 1}, None)  # nobody listens yet
    came = []
    client.pushed = lambda message, sender: came.append((message, sender))
    link.pushed({"id": 2}, {"name": "a"})
    assert came == [({"id": 2}, {"name": "a"})]


async def test_what_another_server_of_the_agent_has_read_is_told(client):
    came = []
    client.settled = came.append
    link = FakeLink()
    await attached(client, link)
    link.settled([1, 2])
    assert came == [[1, 2]]


# A broker that forgets what it has handed out


async def poll(client, link, answer=(), **body):
    """Return the ids that a poll yields when the broker answers with `answer`."""
    call = asyncio.ensure_future(client.call("/poll-messages", body))
    number, *_ = await link.next(len(link.sent))
    link.answered(number, 200, {"messages": list(answer)})
    return [message["id"] for message in (await finished(call))["messages"]]


async def test_what_a_forgetful_broker_handed_out_is_held_until_it_is_acknowledged(client):
    link = FakeLink(keeps=False)
    await attached(client, link)
    came = []
    client.pushed = lambda message, _sender: came.append(message["id"])
    for number in (-1, -2):
        link.pushed({"id": number}, None)
    assert came == [-1, -2]
    assert await poll(client, link) == [-1, -2]
    assert await poll(client, link, exclude=[-1]) == [-2]
    call = asyncio.ensure_future(client.call("/ack-messages", {"message_ids": [-1, 77]}))
    number, *_ = await link.next(len(link.sent))
    assert await poll(client, link) == [-1, -2]  # not before the answer
    link.answered(number, 200, {"ok": True})
    await finished(call)
    assert await poll(client, link) == [-2]


async def test_what_is_held_outlives_the_connection_and_comes_before_the_mail_of_the_next(client):
    link = FakeLink(keeps=False)
    await attached(client, link)
    link.pushed({"id": -1}, None)
    client.detach()
    again = FakeLink()
    await attached(client, again)
    again.pushed({"id": 1}, None)
    assert await poll(client, again, [{"id": 1}]) == [-1, 1]


async def test_every_key_is_new():
    keys = {key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(re.fullmatch("[0-9a-f]{24}", each) for each in keys)
