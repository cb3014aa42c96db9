"""Posts to webhooks: in order, bounded, again after a failure, and never in anybody's way."""

import asyncio
import socket
import ssl
from collections import Counter
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from support.brokers import NO_LIMITS, make_broker
from support.receivers import Receiver
from support.tls import shown

from claude_peers.broker.registration import Registration
from claude_peers.core.models import PeerId
from claude_peers.core.webhooks import Outcome, Rules
from claude_peers.transports import TRANSPORTS
from claude_peers.transports.webhook_http import MOST, Sender
from claude_peers.transports.webhook_pipes import trusted
from claude_peers.transports.webhooks import AT_ONCE, Result, WebhookPosts
from claude_peers.wire.webhooks import TransportRequest

pytestmark = pytest.mark.anyio
OK = Result(Outcome.DELIVERED, "HTTP 200")
FAILED = Result(Outcome.RETRY, "HTTP 503")
REFUSED = "its address is refused"


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def until(holds) -> None:
    """Wait for what nobody tells of."""
    with anyio.fail_after(20):
        while not holds():  # noqa: ASYNC110 - it is a state, no event
            await asyncio.sleep(0.001)


class Scene:
    """A broker whose webhooks are posted to by `send`."""

    def __init__(self, rig, posts) -> None:
        self.rig = rig
        self.posts = posts

    async def peer(self, url: str = "http://127.0.0.1:9/", **more) -> PeerId:
        transport = TransportRequest(type="webhook", webhook_url=url, **more)
        joined = await self.rig.join()
        self.secret = await self.rig.broker.webhooks.came(joined, transport)
        return joined.peer.id

    async def state(self, message_id: int, wanted: str) -> None:
        """Wait until a message is in a state."""
        with anyio.fail_after(20):
            while await self.rig.states(message_id) != [wanted]:  # noqa: ASYNC110 - a state, no event
                await asyncio.sleep(0.005)

    async def send(self, peer_id: PeerId, text: str = "hi") -> int:
        return (await self.rig.send(peer_id, text)).message.id


@asynccontextmanager
async def scene(send=None, *, chance=0.0, within=5.0, rules=None, listener_uid=None):
    rig = await make_broker(limits=NO_LIMITS)
    webhooks = rig.broker.webhooks
    webhooks.rules = rules or Rules(own_port=1)
    sender = Sender(
        rig.clock, lambda: webhooks.rules, within=within, own_uid=1000,
        listener_uid=listener_uid or (lambda _port: None),
    )  # fmt: skip
    posts = WebhookPosts(webhooks, rig.clock, send or sender, chance=lambda: chance)
    rig.transport.deliver, rig.transport.look_again = posts.deliver, posts.look_again
    rig.transport.reaches = posts.reaches
    posts.start()
    try:
        yield Scene(rig, posts)
    finally:
        await posts.stop()


async def test_it_is_a_transport_of_ours():
    assert WebhookPosts.name in TRANSPORTS


async def test_each_message_arrives_once_in_order_and_is_seen():
    with Receiver() as receiver:
        async with scene() as here:
            peer_id = await here.peer(receiver.url)
            ids = [await here.send(peer_id, f"text {n}") for n in range(40)]
            await here.state(ids[-1], "seen")
            assert [got.json["message"]["id"] for got in receiver.got] == ids
            assert len({got.uid for got in receiver.got}) == len(ids)
            assert await here.rig.unread(peer_id) == []


@pytest.mark.bug("B4-1")
async def test_bug_b4_1_a_webhook_that_answers_200_is_not_posted_to_again():
    with Receiver() as receiver:
        async with scene() as here:
            peer_id = await here.peer(receiver.url)
            await here.state(await here.send(peer_id), "seen")
            here.rig.clock.passed += 3600
            await here.rig.broker.tidy()
            here.posts.look_again(peer_id)
            await here.state(await here.send(peer_id, "second"), "seen")
            assert len(receiver.got) == 2
            assert await here.rig.store.dead_letters(limit=9) == []


async def test_a_failure_is_tried_again_under_the_same_id_before_what_follows():
    statuses = iter([503, 429, 307, 500])
    with Receiver(lambda _got: next(statuses, 204)) as receiver:
        async with scene() as here:
            peer_id = await here.peer(receiver.url)
            ids = [await here.send(peer_id, each) for each in "ab"]
            await here.state(ids[1], "seen")
            assert [got.json["message"]["id"] for got in receiver.got] == [ids[0]] * 5 + [ids[1]]
            assert len({got.uid for got in receiver.got}) == 2
            counts = [got.json["message"]["retry_count"] for got in receiver.got]
            assert counts == [0, 1, 2, 3, 4, 0]
            assert receiver.got[4].json["message"]["redelivered"] == 4


async def test_what_may_arrive_once_is_posted_once_and_what_follows_goes_on():
    with Receiver(lambda got: 503 if got.json["message"]["qos"] == 0 else 200) as receiver:
        async with scene() as here:
            peer_id = await here.peer(receiver.url)
            first = (await here.rig.send(peer_id, "once", qos=0)).message.id
            second = await here.send(peer_id)
            await here.state(second, "seen")
            assert [got.json["message"]["id"] for got in receiver.got] == [first, second]
            assert await here.rig.states(first) == ["dead"]


@pytest.mark.threat("T18")
async def test_a_redirect_is_not_followed():
    with Receiver() as second:
        to = {"location": second.url}
        with Receiver(lambda _got: (307, to) if len(first.got) < 2 else 200) as first:
            async with scene() as here:
                peer_id = await here.peer(first.url)
                await here.state(await here.send(peer_id), "seen")
        assert (len(first.got), second.got) == (3, [])


async def test_a_pause_that_the_receiver_asks_for_is_kept():
    with Receiver(lambda got: (429, {"retry-after": "3600"})) as receiver:
        async with scene() as here:
            peer_id = await here.peer(receiver.url)
            first = await here.send(peer_id)
            await asyncio.to_thread(receiver.wait, 1)
            await here.state(first, "queued")
            await here.send(peer_id, "second")
            # Another address ends the pause; only then there is a second post.
            with Receiver() as other:
                transport = TransportRequest(type="webhook", webhook_url=other.url)
                joined = await here.rig.broker.webhooks._set(
                    here.rig.broker.roster.get(peer_id), transport.webhook_url, "", ""
                )
                assert joined is not None
                await here.state(first, "seen")
            assert len(receiver.got) == 1


async def test_an_address_that_is_given_while_a_post_hangs_is_tried_at_once():
    sent, go_on = asyncio.Event(), asyncio.Event()

    async def send(errand):
        if errand.webhook.url.endswith("/new"):
            return OK
        sent.set()
        await go_on.wait()
        return Result(Outcome.RETRY, "HTTP 503", 3600.0)

    async with scene(send) as here:
        peer_id = await here.peer("http://127.0.0.1:9/old")
        number = await here.send(peer_id)
        await sent.wait()
        peer = here.rig.broker.roster.get(peer_id)
        await here.rig.broker.webhooks._set(peer, "http://127.0.0.1:9/new", "", "")
        go_on.set()
        await here.state(number, "seen")


async def test_what_waited_while_a_peer_was_away_is_posted_when_it_is_back():
    answers = iter([FAILED])

    async def send(_errand):
        return next(answers, OK)

    async with scene(send, chance=1.0) as here:
        peer_id = await here.peer()
        number = await here.send(peer_id)
        peer = here.rig.broker.roster.get(peer_id)
        await here.rig.broker.peers._left(peer)
        await until(lambda: not here.posts._rounds)
        assert await here.rig.states(number) == ["queued"]
        await here.rig.broker.roster.put(peer)
        await here.rig.broker.webhooks.came(Registration(peer, "", changed=False), None)
        await here.state(number, "seen")


@pytest.mark.bug("P11")
async def test_bug_p11_a_receiver_that_hangs_holds_up_neither_sender_nor_others():
    hung = asyncio.Event()
    tried = Counter()

    async def send(errand):
        tried[errand.webhook.url] += 1
        if errand.webhook.url.endswith("/hangs"):
            await hung.wait()
        return OK

    async with scene(send) as here:
        slow, quick = await here.peer("http://127.0.0.1:9/hangs"), await here.peer()
        first = await here.send(slow)
        ids = [await here.send(quick) for _ in range(20)]
        await here.state(ids[-1], "seen")
        assert await here.rig.states(first) == ["leased"]
        assert tried["http://127.0.0.1:9/hangs"] == 1
        hung.set()
        await here.state(first, "seen")


async def test_only_so_many_posts_are_on_their_way_at_once():
    most, now, go = 0, 0, asyncio.Event()

    async def send(_errand):
        nonlocal most, now
        now += 1
        most = max(most, now)
        await go.wait()
        now -= 1
        return OK

    async with scene(send) as here:
        peers = [await here.peer() for _ in range(AT_ONCE + 5)]
        ids = [await here.send(each) for each in peers]
        await until(lambda: not (now < AT_ONCE))
        go.set()
        for each in ids:
            await here.state(each, "seen")
    assert most == AT_ONCE


async def test_what_is_on_its_way_when_the_broker_ends_stays_leased_for_the_next():
    async with scene(lambda _errand: asyncio.sleep(3600)) as here:
        number = await here.send(await here.peer())
        await here.state(number, "leased")
        await here.posts.stop()
        here.posts.look_again(PeerId("anybody"))
        assert await here.rig.states(number) == ["leased"]
        again = await make_broker(here.rig.store)
        assert await again.states(number) == ["queued"]


async def test_a_database_that_fails_is_asked_again_and_nothing_is_posted_twice(monkeypatch):
    monkeypatch.setattr("claude_peers.transports.webhooks.STORE_AGAIN", 0.001)
    sent = []

    async def send(errand):
        sent.append(errand.message.id)
        here.rig.store.broken.add("move")
        return OK

    async with scene(send) as here:
        peer_id = await here.peer()
        here.rig.store.broken.add("hand_out")
        number = await here.send(peer_id)
        await until(lambda: not (here.rig.store.calls.count("hand_out") < 3))
        here.rig.store.broken.clear()
        await until(lambda: not (here.rig.store.calls.count("move") < 3))
        here.rig.store.broken.clear()
        await here.state(number, "seen")
        assert sent == [number]


async def test_a_post_that_ends_with_a_fault_of_ours_has_failed_and_holds_up_nobody(caplog):
    sent = []

    async def send(errand):
        sent.append((errand.message.id, errand.failures))
        if len(sent) <= 2:
            raise ValueError("odd")
        return OK

    async with scene(send) as here:
        peer_id = await here.peer()
        ids = [await here.send(peer_id, each) for each in "ab"]
        await here.state(ids[1], "seen")
        assert await here.rig.states(ids[0]) == ["seen"]
        (story,) = await here.rig.store.stories(ids[:1])
    assert sent == [(ids[0], 0), (ids[0], 1), (ids[0], 2), (ids[1], 0)]
    assert "ValueError: odd" in caplog.text
    assert f"the post of message {ids[0]} failed" in caplog.text
    told = [step.via for step in story.steps if step.event == "return"]
    assert told == ["webhook: an error of the broker's own; its log has it"] * 2


async def test_a_message_whose_every_post_ends_with_a_fault_of_ours_is_a_dead_letter():
    async def send(_errand):
        raise ValueError("odd")

    async with scene(send) as here:
        number = await here.send(await here.peer())
        await here.state(number, "dead")


async def test_a_round_that_stops_with_a_fault_of_ours_is_logged_and_begins_anew(
    caplog, monkeypatch
):
    async def send(_errand):
        return OK

    async with scene(send) as here:
        peer_id = await here.peer()
        with monkeypatch.context() as broken:
            broken.setattr(here.rig.broker.webhooks, "next", None)
            first = await here.send(peer_id)
            await until(lambda: f"the posts to {peer_id} stopped" in caplog.text)
        second = await here.send(peer_id)
        await here.state(second, "seen")
        assert await here.rig.states(first) == ["seen"]


async def test_a_failing_store_at_the_end_is_not_waited_for():
    async def send(_errand):
        here.posts._stopped = True
        here.rig.store.broken.add("move")
        return OK

    async with scene(send) as here:
        await here.send(await here.peer())
        await until(lambda: not ("move" not in here.rig.store.calls or here.posts._rounds))


# Over HTTP


async def failure(here, url: str) -> str:
    """Send to an address; return what is told of the failure."""
    peer_id = await here.peer(url)
    await here.send(peer_id)
    roster = here.rig.broker.roster
    await until(lambda: "failing" in roster.get(peer_id).route)
    return roster.get(peer_id).route.partition("failing: ")[2]


@asynccontextmanager
async def answering(data: bytes, *, hold=True):
    """Serve raw bytes to whoever connects."""

    async def serve(reader, writer):
        try:
            with suppress(ConnectionError):  # the other side need not read all
                await reader.read(1)
                writer.write(data)
                await writer.drain()
                if hold:
                    await reader.read()
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    await asyncio.sleep(0)  # what was aborted is closed by now


async def test_nobody_there_is_a_failure():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with scene(chance=1.0) as here:
            told = await failure(here, f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert told == "ConnectionRefusedError"


@pytest.mark.parametrize(
    ("data", "hold", "told"),
    [
        (b"", True, "no answer within 0.2 s"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", True, "no answer within 0.2 s"),
        (b"", False, "EOFError"),
        (b"nonsense\r\n\r\n", False, "RemoteProtocolError"),
        (b"HTTP/1.1 500 No\r\n\r\n", False, "HTTP 500"),
    ],
)
async def test_odd_answers_are_failures(data, hold, told):
    async with answering(data, hold=hold) as url, scene(chance=1.0, within=0.2) as here:
        assert await failure(here, url) == told


@pytest.mark.parametrize("body", [b"x" * (4 * MOST), b""])
async def test_an_answers_body_is_neither_waited_for_nor_kept(body, monkeypatch):
    monkeypatch.setattr("claude_peers.transports.webhook_http.READ_ON", 0.05)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n"
    async with answering(head + body) as url, scene(within=3.0) as here:
        await here.state(await here.send(await here.peer(url)), "seen")


@pytest.mark.threat("T18")
async def test_another_users_listener_is_not_posted_to():
    with Receiver() as receiver:
        async with scene(chance=1.0, listener_uid=lambda _port: 0) as here:
            assert await failure(here, receiver.url) == REFUSED
        assert receiver.got == []


@pytest.mark.threat("T18")
@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254"])
async def test_a_name_that_is_rebound_is_not_posted_to(monkeypatch, address):
    with Receiver() as receiver:
        rules = Rules(own_port=1, allowed=("hooks.example.com",))
        async with scene(chance=1.0, rules=rules) as here:
            loop = asyncio.get_running_loop()

            async def rebound(_host, port, **_more):
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

            monkeypatch.setattr(loop, "getaddrinfo", rebound)
            told = await failure(here, f"http://hooks.example.com:{receiver.port}/")
        assert told == REFUSED
        assert receiver.got == []


@pytest.mark.threat("T18")
async def test_a_host_that_is_allowed_no_more_is_not_posted_to(caplog):
    caplog.set_level("INFO")
    rules = Rules(own_port=1, allowed=("127.0.0.1", "10.1.1.1"))
    async with scene(chance=1.0, rules=rules) as here:
        joined = await here.peer("http://10.1.1.1/")
        here.rig.broker.webhooks.rules = Rules(own_port=1)
        number = await here.send(joined)
        await until(lambda: REFUSED in here.rig.broker.roster.get(joined).route)
        (story,) = await here.rig.store.stories([number])
    assert "10.1.1.1" not in repr((here.rig.broker.roster.get(joined), story))
    assert "10.1.1.1 is not this machine, and not allowed" in caplog.text


# In TLS


@pytest.mark.parametrize("trusts", [True, False])
async def test_an_https_receiver_is_posted_to_if_its_certificate_is_trusted(monkeypatch, trusts):
    """The loop has no TLS of its own in a leader, so none of it is used here."""
    ours = shown()
    context = ssl.create_default_context(cafile=ours.path if trusts else None)
    context.check_hostname = False  # the certificate is a broker's, which has no name
    monkeypatch.setattr("claude_peers.transports.webhook_http.trusted", lambda: context)
    with Receiver() as receiver:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(ours.path)
        receiver.server.socket = server.wrap_socket(
            receiver.server.socket, server_side=True, do_handshake_on_connect=False
        )
        async with scene(chance=1.0) as here:
            url = receiver.url.replace("http:", "https:")
            if trusts:
                await here.state(await here.send(await here.peer(url)), "seen")
                await here.state(await here.send(await here.peer(url), "x" * 100_000), "seen")
            else:
                assert "SSLCertVerificationError" in await failure(here, url)
        assert len(receiver.got) == (2 if trusts else 0)


async def test_who_does_not_speak_tls_is_not_posted_to():
    async with answering(b"", hold=False) as url, scene(chance=1.0) as here:
        assert await failure(here, url.replace("http:", "https:")) == "EOFError"
    assert trusted().check_hostname
