"""Polls that wait, over real connections: answered at once, ended with who asked, nothing lost."""

import pytest
from support.inproc import BOUND, LiveWire, Wire, post, running
from support.waiting import eventually


@pytest.fixture
def broker():
    with running() as serving:
        yield serving


@pytest.fixture
def http(broker):
    with Wire(broker.port) as wire:
        yield wire


@pytest.fixture
def me(http):
    return http.ask("/register")[1]["id"]


def send(http, to_id, text="x"):
    body = {"from_id": "cli", "to_id": to_id, "text": text}
    return http.ask("/send-message", body)[1]["message_id"]


def waits(broker, me, count=1):
    """Return once so many polls of a peer wait."""

    def waiting():
        return len(broker.broker.mail.arrivals.get(me, ()))

    eventually(lambda: broker.do(waiting) == count, timeout=BOUND)


def state(broker, number):
    return broker.run(broker.store.message(number)).state.value


@pytest.mark.parametrize("wait", [{"wait_s": 50}, {"wait_ms": 50_000}])
def test_a_message_ends_the_wait(broker, http, me, wait):
    with Wire(broker.port) as waiting:
        waiting.send(post(broker.port, "/poll-messages", {"id": me, "ack_supported": True, **wait}))
        waits(broker, me)
        number = send(http, me, "arrived")
        status, _, body = waiting.answer()
        assert (status, b'"arrived"' in body) == (200, True)
    http.ask("/ack-messages", {"id": me, "message_ids": [number]})
    assert state(broker, number) == "seen"


def test_a_wait_in_milliseconds_is_over_in_time(http, me):
    assert http.ask("/poll-messages", {"id": me, "wait_ms": 1})[1] == {"messages": []}
    assert http.ask("/poll-messages", {"id": me, "wait_ms": 1, "wait_s": 0.001})[0] == 200


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_whoever_goes_while_it_waits_is_handed_nothing(broker, http, me, how):
    with Wire(broker.port) as waiting:
        waiting.send(post(broker.port, "/poll-messages", {"id": me, "wait_s": 50}))
        waits(broker, me)
        waiting.leave(how)
        waits(broker, me, 0)
    number = send(http, me)
    (story,) = broker.run(broker.store.stories([number]))
    assert (story.message.state.value, story.message.deliveries, story.steps) == ("queued", 0, ())


def test_only_who_has_gone_stops_waiting(broker, http, me):
    with Wire(broker.port) as going, Wire(broker.port) as staying:
        for each in (going, staying):
            each.send(post(broker.port, "/poll-messages", {"id": me, "wait_s": 50}))
        waits(broker, me, 2)
        going.leave("close")
        waits(broker, me, 1)
        send(http, me, "for who stays")
        assert b"for who stays" in staying.answer()[2]


def test_a_live_connection_that_ends_waits_no_longer(broker, http):
    with LiveWire(broker.port) as live:
        me = live.join()["id"]
        live.frame(2, "/poll-messages", {"id": me, "wait_s": 50})
        waits(broker, me)
    waits(broker, me, 0)
    assert state(broker, send(http, me)) == "queued"


def test_a_broker_that_hands_over_answers_who_waits(broker, me):
    with Wire(broker.port) as waiting:
        waiting.send(post(broker.port, "/poll-messages", {"id": me, "wait_s": 50}))
        waits(broker, me)
        broker.run(broker.server.stop_accepting(within=BOUND))
        assert waiting.answer()[2] == b'{"messages":[]}'
