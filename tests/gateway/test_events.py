"""A peer's mail as Server-Sent Events: in order, nothing lost, and on from where it broke off."""

import contextlib
import json
from typing import Any

import pytest
from support.inproc import BOUND, Wire, head, running
from support.waiting import eventually
from support.websocket import Agent

from claude_peers.broker import streams
from claude_peers.broker.registration import hash_token
from claude_peers.core.limits import PAGE
from claude_peers.core.models import State
from claude_peers.gateway import events

BIG = "x" * 100_000


class Events(Wire):
    """One reader.

    Attributes:
        comments: comments that came in between, without their colon.
    """

    def __init__(self, port: int, query: str = "", *, receive: int | None = None, **headers: str):
        super().__init__(port, receive=receive)
        self.comments: list[str] = []
        self.send(head(port, "GET", f"/events{query}", **headers))

    def open(self) -> dict[str, str]:
        status, headers, _ = self.answer(bare=True)
        assert status == 200, headers
        return headers

    def event(self) -> tuple[str, dict[str, Any]]:
        """Return id and data of the next event."""
        while True:
            lines = self.until(b"\n\n").decode().rstrip("\n").split("\n")
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
            self.comments += [line[1:] for line in lines if line.startswith(":")]
            if "data" in fields:
                assert fields["event"] == "message"
                return fields["id"], json.loads(fields["data"])

    def ids(self, count: int) -> list[int]:
        return [int(self.event()[0]) for _ in range(count)]

    def all(self) -> list[int]:
        """Return the ids of all whole events until the end of the stream."""
        found = []
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                found.append(int(self.event()[0]))
        return found


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
    return http.ask("/register", {"name": "reader"})[1]


def send(http, to_id, *texts):
    bodies = ({"from_id": "cli", "to_id": to_id, "text": text} for text in texts)
    return [http.ask("/send-message", body)[1]["message_id"] for body in bodies]


def states(broker, *ids):
    return [broker.run(broker.store.message(number)).state.value for number in ids]


def given_back(broker):
    """Wait until nothing is in hand anywhere."""

    def nothing():
        return State.LEASED not in broker.run(broker.store.ledger()).states

    eventually(nothing, timeout=BOUND)


def test_a_message_is_one_event_with_its_id_and_what_waited_comes_first(broker, http, me):
    waited = send(http, me["id"], "waited", "漢字\nline")
    with Events(broker.port, f"?id={me['id']}") as reader:
        headers = reader.open()
        assert headers["content-type"] == "text/event-stream;charset=utf-8"
        assert (headers["cache-control"], headers["connection"]) == ("no-store", "close")
        first, second = reader.event(), reader.event()
        assert [first[0], second[0]] == [str(number) for number in waited]
        assert [first[1]["text"], second[1]["text"]] == ["waited", "漢字\nline"]
        assert (first[1]["from_id"], first[1]["id"]) == ("cli", waited[0])
        assert reader.ids(0) == []
        assert send(http, me["id"], "later") == reader.ids(1)
    assert states(broker, *waited) != ["seen", "seen"]


@pytest.mark.parametrize("more", [{}, {"agent_name": "mesh", "agent_type": "custom"}])
def test_an_event_shows_a_message_as_peeking_does(more):
    with running(fleet_secret=b"s3") as broker, Wire(broker.port) as http:
        me = http.ask("/register", {"name": "reader", **more})[1]
        http.ask("/send-message", {"from_id": "cli", "to_id": me["id"], "text": "a", "qos": 0})
        send(http, me["id"], "b")
        _, peeked = http.ask("/peek-messages", {"id": me["id"]})
        assert all(each["signature"] for each in peeked["messages"])
        assert all(("max_retries" in each) == bool(more) for each in peeked["messages"])
        with Events(broker.port, f"?id={me['id']}") as reader:
            reader.open()
            assert [reader.event()[1], reader.event()[1]] == peeked["messages"]


def test_a_token_is_enough_to_say_whose_mail_it_is(broker, http, me):
    with Events(broker.port, Authorization=f"Bearer {me['token']}") as reader:
        reader.open()
        assert send(http, me["id"], "x") == reader.ids(1)


REFUSED = {
    "nobody's": ("", {}, 400, "bad_request"),
    "unknown": ("?id=zzzzzzzz", {}, 404, "peer_not_found"),
    "another's": ("?id=$ID", {"Authorization": "Bearer $OTHER"}, 401, "not_your_peer"),
    "a wrong token": ("?id=$ID", {"Authorization": "Bearer 00"}, 401, "invalid_token"),
    "no number": ("?id=$ID&last_id=x", {}, 400, "bad_request"),
    "a negative number": ("?id=$ID", {"Last_Event_ID": "-1"}, 400, "bad_request"),
    "a number beyond all": ("?id=$ID&last_id=" + "9" * 99, {}, 400, "bad_request"),
    "other digits": ("?id=$ID&last_id=%D9%A1", {}, 400, "bad_request"),
    "a page": ("?id=$ID", {"Origin": "https://e"}, 403, "from_a_browser"),
    "this machine's page": ("?id=$ID", {"Origin": "http://localhost:3000"}, 403, "from_a_browser"),
    "an image": ("?id=$ID", {"Sec_Fetch_Site": "cross-site"}, 403, "from_a_browser"),
    "a rebound name": ("?id=$ID", {"Host": "evil.example"}, 421, "wrong_host"),
    "a proxy": ("?id=$ID", {"Via": "1.1 x"}, 401, "proxied"),
}


@pytest.mark.threat("T5")
@pytest.mark.threat("T8")
@pytest.mark.parametrize("case", REFUSED)
def test_who_may_not_read_is_told_why_and_takes_nothing(broker, http, me, case):
    query, headers, status, code = REFUSED[case]
    other = http.ask("/register", {})[1]["token"]
    (number,) = send(http, me["id"], "secret")
    given = {name: value.replace("$OTHER", other) for name, value in headers.items()}
    with Events(broker.port, query.replace("$ID", me["id"]), **given) as reader:
        answer = reader.answer()
        told = json.loads(answer[2])
        assert (answer[0], told["code"]) == (status, code)
        assert told["remedy"]
        assert b"secret" not in reader.rest() + answer[2]
    assert states(broker, number) == ["queued"]


def test_whose_token_was_used_needs_it_here_too(broker, http, me):
    http.ask("/peek-messages", {"id": me["id"]}, Authorization=f"Bearer {me['token']}")
    with Events(broker.port, f"?id={me['id']}") as reader:
        assert reader.answer()[0] == 401
    with Events(broker.port, f"?id={me['id']}", Authorization=f"Bearer {me['token']}") as reader:
        reader.open()
    assert hash_token(me["token"]) == broker.broker.roster.get(me["id"]).token_hash


def test_a_peer_that_has_left_has_no_stream(broker, http, me):
    http.ask("/unregister", {"id": me["id"]})
    with Events(broker.port, f"?id={me['id']}") as reader:
        assert reader.answer()[0] == 404


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT"])
def test_the_stream_is_only_there_to_get(broker, method):
    with Wire(broker.port) as wire:
        more = {"Content_Type": "application/json", "Content_Length": "0"}
        wire.send(head(broker.port, method, "/events?id=x", **(more if method == "POST" else {})))
        assert wire.answer(bare=method == "HEAD")[0] == 405


# Acknowledging


@pytest.mark.parametrize("how", ["header", "query"])
def test_coming_back_acknowledges_what_arrived_and_gives_the_rest_again(broker, http, me, how):
    ids = send(http, me["id"], "a", "b", "c", "d")
    with Events(broker.port, f"?id={me['id']}") as reader:
        reader.open()
        assert reader.ids(4) == ids
        assert states(broker, *ids) == ["leased"] * 4
    given_back(broker)
    query = f"?id={me['id']}" + (f"&last_id={ids[1]}" if how == "query" else "&last_id=1")
    headers = {"Last_Event_ID": str(ids[1])} if how == "header" else {}
    with Events(broker.port, query, **headers) as again:
        again.open()
        assert again.ids(2) == ids[2:]
        assert states(broker, *ids) == ["seen", "seen", "leased", "leased"]


def test_coming_back_while_the_old_connection_seems_open_is_the_same(broker, http, me):
    ids = send(http, me["id"], "a", "b")
    with Events(broker.port, f"?id={me['id']}") as old:
        old.open()
        assert old.ids(2) == ids
        with Events(broker.port, f"?id={me['id']}&last_id={ids[0]}") as new:
            new.open()
            assert new.ids(1) == ids[1:]
            with pytest.raises((ConnectionResetError, EOFError)):
                old.event()
            assert send(http, me["id"], "c") == new.ids(1)
    assert states(broker, ids[0]) == ["seen"]


def test_only_what_was_sent_on_such_a_stream_is_acknowledged_by_coming_back(broker, http, me):
    first, second = send(http, me["id"], "taken otherwise", "never sent")
    taken = http.ask("/poll-messages", {"id": me["id"], "ack_supported": True, "limit": 1})[1]
    assert [each["id"] for each in taken["messages"]] == [first]
    http.ask("/release-messages", {"id": me["id"], "message_ids": [first]})
    with Events(broker.port, f"?id={me['id']}&last_id=999") as reader:
        reader.open()
        assert reader.ids(2) == [first, second]


def test_coming_back_after_more_than_a_page_acknowledges_all_of_it(broker, http, me):
    count = 2 * PAGE + 5
    ids = send(http, me["id"], *(f"m{number}" for number in range(count)))
    with Events(broker.port, f"?id={me['id']}") as reader:
        reader.open()
        assert reader.ids(count) == ids
    given_back(broker)
    asked, real = [], broker.store.stories

    async def stories(numbers):
        asked.append(len(numbers))
        return await real(numbers)

    broker.store.stories = stories
    with Events(broker.port, f"?id={me['id']}&last_id={ids[-2]}") as again:
        again.open()
        assert again.ids(1) == ids[-1:]
    assert asked == [1, PAGE, PAGE, 4]  # of a page at a time, not of each message
    assert set(states(broker, *ids[:-1])) == {"seen"}


def test_what_is_acknowledged_over_http_does_not_come_again(broker, http, me):
    ids = send(http, me["id"], "a", "b")
    with Events(broker.port, f"?id={me['id']}") as reader:
        reader.open()
        assert reader.ids(2) == ids
        assert http.ask("/ack-messages", {"id": me["id"], "message_ids": ids[:1]})[1]["acked"] == 1
    given_back(broker)
    with Events(broker.port, f"?id={me['id']}") as again:
        again.open()
        assert again.ids(1) == ids[1:]


def test_a_look_shows_what_would_come_again_if_the_stream_broke(broker, http, me):
    ids = send(http, me["id"], "a", "b", "c")

    def looked_at(**how):
        path = "/poll-messages" if how else "/peek-messages"
        found = http.ask(path, {"id": me["id"], **how})[1]["messages"]
        return [each["id"] for each in found]

    with Events(broker.port, f"?id={me['id']}") as reader:
        reader.open()
        assert reader.ids(3) == ids
        assert looked_at() == looked_at(read_only=True) == ids
        shown = http.ask("/peek-messages", {"id": me["id"]})[1]["messages"]
        assert not [each for each in shown if each.get("redelivered")]
        http.ask("/ack-messages", {"id": me["id"], "message_ids": ids[:1]})
        assert looked_at() == ids[1:]
        assert http.ask("/poll-messages", {"id": me["id"]})[1]["messages"] == []
        assert states(broker, *ids) == ["seen", "leased", "leased"]
    given_back(broker)
    assert looked_at() == ids[1:]
    http.ask("/poll-messages", {"id": me["id"]})  # what a poll has taken is consumed, as ever
    assert looked_at() == []


def test_what_is_in_hand_stays_there_however_long_the_stream_lasts(broker, http, me, monkeypatch):
    (number,) = send(http, me["id"], "x")
    with Events(broker.port, f"?id={me['id']}") as reader:
        reader.open()
        assert reader.ids(1) == [number]
        monkeypatch.setattr(broker.broker.clock, "monotonic", lambda: 1e12)
        broker.run(broker.broker.tidy())
        assert states(broker, number) == ["leased"]
        assert http.ask("/poll-messages", {"id": me["id"]})[1]["messages"] == []
        monkeypatch.undo()


def test_who_comes_again_and_again_without_acknowledging_gets_it_until_it_is_dead(broker, http, me):
    (number,) = send(http, me["id"], "x")
    for count in range(20):
        with Events(broker.port, f"?id={me['id']}") as reader:
            reader.open()
            assert reader.event()[1].get("redelivered", 0) == count
        given_back(broker)
    with Events(broker.port, f"?id={me['id']}") as reader:
        reader.open()
        later = send(http, me["id"], "later")
        assert reader.ids(1) == later
    assert states(broker, number) == ["dead"]


# The connection


def test_an_open_stream_is_a_route_and_a_sign_of_life_and_who_was_away_is_back(
    broker, http, me, monkeypatch
):
    passed, real = 61.0, broker.broker.clock.monotonic
    monkeypatch.setattr(broker.broker.clock, "monotonic", lambda: real() + passed)
    broker.run(broker.broker.peers.sweep())
    assert http.ask("/list-peers")[1] == []
    with Events(broker.port, f"?id={me['id']}") as reader:
        reader.open()
        eventually(lambda: http.ask("/list-peers")[1], timeout=BOUND)
        passed += 3600.0
        assert [row["route"] for row in http.ask("/list-peers")[1]] == ["events"]
    eventually(lambda: not broker.server._upgraded, timeout=BOUND)
    assert [row["route"] for row in http.ask("/list-peers")[1]] == [""]


def test_comments_keep_a_quiet_stream_open(broker, me, monkeypatch):
    monkeypatch.setattr(events, "KEEP_ALIVE", 0.02)
    with Events(broker.port, f"?id={me['id']}") as reader:
        reader.open()
        for _ in range(4):  # the greeting, and three
            assert reader.until(b"\n\n").startswith(b":")


def test_who_reads_slowly_has_a_page_in_hand_and_gets_everything_in_order(broker, http, me):
    with Events(broker.port, f"?id={me['id']}", receive=4096) as reader:
        reader.open()
        ids = send(http, me["id"], *(f"{number} {BIG}" for number in range(6 * PAGE)))
        assert broker.run(broker.store.ledger()).states[State.LEASED] <= 3 * PAGE
        (stream,) = broker.server._upgraded
        assert stream.transport.get_write_buffer_size() < 2 * len(BIG)
        for number in ids:
            assert reader.ids(1) == [number]
            http.ask("/ack-messages", {"id": me["id"], "message_ids": [number]})


def test_who_does_not_read_is_sent_away_and_comes_back_to_everything(
    broker, http, me, monkeypatch, caplog
):
    monkeypatch.setattr(events, "KEEP_ALIVE", 0.02)
    with Events(broker.port, f"?id={me['id']}", receive=4096) as reader:
        ids = send(http, me["id"], *(f"{number} {BIG}" for number in range(3 * PAGE)))
        eventually(lambda: not broker.server._upgraded, timeout=BOUND)
        assert f"the stream of events of {me['id']} is ended" in caplog.text
        assert BIG not in caplog.text
        given_back(broker)
        monkeypatch.undo()
        reader.open()
        got = reader.all()
    assert 0 < len(got) < len(ids)
    with Events(broker.port, f"?id={me['id']}&last_id={got[-1]}") as again:
        again.open()
        while len(got) < len(ids):
            got += again.ids(1)
            http.ask("/ack-messages", {"id": me["id"], "message_ids": got[-1:]})
    assert got == ids
    given_back(broker)
    assert set(states(broker, *ids)) == {"seen"}


def test_who_reads_on_in_time_is_told_why_it_was_sent_away(broker, http, me):
    with Events(broker.port, f"?id={me['id']}", receive=4096) as reader:
        reader.open()
        (stream,) = broker.server._upgraded
        ids = send(http, me["id"], *(f"{number} {BIG}" for number in range(3 * PAGE)))
        eventually(lambda: stream.clogged, timeout=BOUND)
        eventually(lambda: broker.do(stream._keep_alive) or stream.transport.is_closing())
        got = reader.all()
        assert got == ids[: len(got)]
        assert "come back with the id of the last event" in reader.comments[-1]


@pytest.mark.parametrize(
    ("bound", "value", "count"),
    [("IN_HAND", 10, 10), ("IN_HAND_TEXT", 1, PAGE)],
    ids=["so many", "so much text"],
)
@pytest.mark.parametrize("more", [0, 1], ids=["nothing waits", "more waits"])
def test_who_reads_and_acknowledges_nothing_keeps_its_hand_and_goes_on_with_an_acknowledgement(
    broker, http, me, monkeypatch, bound, value, count, more
):
    monkeypatch.setattr(streams, bound, value)
    ids = send(http, me["id"], *(f"m{number}" for number in range(count + more)))
    with Events(broker.port, f"?id={me['id']}") as reader:
        reader.open()
        (stream,) = broker.server._upgraded
        assert reader.ids(count) == ids[:count]
        broker.do(stream._stream.look_again)
        for _ in range(3 * events.PATIENCE):
            broker.do(stream._keep_alive)
        assert states(broker, *ids) == ["leased"] * count + ["queued"] * more
        http.ask("/ack-messages", {"id": me["id"], "message_ids": ids[:count]})
        assert reader.ids(more) == ids[count:]
        http.ask("/ack-messages", {"id": me["id"], "message_ids": ids[count:]})
        assert send(http, me["id"], "later") == reader.ids(1)
    given_back(broker)
    assert {broker.run(broker.store.message(number)).deliveries for number in ids} == {1}


def test_what_the_reader_says_after_its_request_means_nothing(broker, http, me):
    with Events(broker.port, f"?id={me['id']}") as reader:
        reader.open()
        reader.send(head(broker.port, "GET", "/health") * 50)
        assert send(http, me["id"], "x") == reader.ids(1)


def test_a_websocket_and_a_stream_of_one_peer_take_each_others_place(broker, http, me):
    with Events(broker.port, f"?id={me['id']}") as reader, Agent(broker.port) as agent:
        reader.open()
        ids = send(http, me["id"], "x")
        assert reader.ids(1) == ids
        agent.come_back(me["id"], me["token"])
        assert agent.message()["id"] == ids[0]
        with pytest.raises((ConnectionResetError, EOFError)):
            reader.event()


def test_a_broker_that_hands_over_ends_the_stream(broker, http, me):
    with Events(broker.port, f"?id={me['id']}") as reader:
        reader.open()
        broker.do(broker.server.hang_up)
        reader.rest()
        eventually(lambda: not broker.server._upgraded, timeout=BOUND)
