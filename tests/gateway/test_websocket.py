"""A client of agentmesh 0.4 at our broker: who it is, and that no message is lost or told twice."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from support.inproc import BOUND, Wire, running
from support.waiting import eventually
from support.websocket import Agent

from claude_peers.broker import streams, wills
from claude_peers.broker.registration import hash_token
from claude_peers.core.delivery import DELIVERIES
from claude_peers.core.limits import PAGE
from claude_peers.core.models import Draft, PeerId


@pytest.fixture
def broker():
    with running() as serving:
        yield serving


@pytest.fixture
def http(broker):
    with Wire(broker.port) as wire:
        yield wire


@pytest.fixture
def agent(broker):
    with Agent(broker.port) as client:
        yield client


def send(http, to_id, *texts, **fields):
    """Send messages; return their ids."""
    bodies = ({"from_id": "cli", "to_id": to_id, "text": text, **fields} for text in texts)
    return [http.ask("/send-message", body)[1]["message_id"] for body in bodies]


def unread(http, peer_id):
    return [each["id"] for each in http.ask("/peek-messages", {"id": peer_id})[1]["messages"]]


def states(broker, *ids):
    return [broker.run(broker.store.message(number)).state.value for number in ids]


def route(http, peer_id):
    """Return how a peer is reached, None if it is not listed."""
    rows = {row["id"]: row["route"] for row in http.ask("/list-peers")[1]}
    return rows.get(peer_id)


# Who it is


def test_who_registers_in_connect_is_a_peer_with_a_name_and_a_token(broker, http, agent):
    agent.join(agent_name="anna", summary="ws agent", cwd="/p", hostname="far-host")
    (row,) = http.ask("/list-peers")[1]
    told = {name: row[name] for name in ("id", "name", "summary", "cwd", "route")}
    assert told == {
        "id": agent.id,
        "name": "anna",
        "summary": "ws agent",
        "cwd": "/p",
        "route": "websocket",
    }
    assert broker.broker.roster.get(agent.id).token_hash == hash_token(agent.token)


@pytest.mark.bug("B4-12")
def test_b4_12_who_comes_back_is_told_the_token_it_shows_and_not_its_digest(broker, http):
    known = http.ask("/register", {})[1]
    with Agent(broker.port) as agent:
        agent.come_back(known["id"], known["token"])
        assert (agent.id, agent.token) == (known["id"], known["token"])


WRONG = {
    "a wrong token": {"agent_id": "$ID", "token": "0000"},
    "another's token": {"agent_id": "$ID", "token": "$OTHER"},
    "the token's digest": {"agent_id": "$ID", "token": "$DIGEST"},
    "no token": {"agent_id": "$ID"},
    "nobody's id": {"agent_id": "zzzzzzzz", "token": "$TOKEN"},
    "nothing": {},
    "no registration": {"registration": None},
}


@pytest.mark.bug("B4-18")
@pytest.mark.parametrize("case", WRONG)
def test_b4_18_who_is_refused_is_closed_with_a_code_that_is_no_goodbye(broker, http, case):
    known, other = (http.ask("/register", {})[1] for _ in range(2))
    text = json.dumps(WRONG[case])
    for name, value in (
        ("$ID", known["id"]), ("$TOKEN", known["token"]), ("$OTHER", other["token"]),
        ("$DIGEST", hash_token(known["token"])),
    ):  # fmt: skip
        text = text.replace(name, value)
    with Agent(broker.port) as agent:
        agent.send("CONNECT", **json.loads(text))
        told = agent.read()
        assert (told["type"], told["code"]) == ("ERROR", "UNAUTHORIZED")
        assert agent.closed()[0] == 1008
    assert route(http, known["id"]) == ""


def test_a_token_that_was_shown_here_is_needed_from_then_on(broker, http, agent):
    agent.join()
    agent.answered()
    status, told = http.ask("/poll-messages", {"id": agent.id})
    assert (status, told["code"]) == (401, "not_your_peer")
    bearer = f"Bearer {agent.token}"
    assert http.ask("/poll-messages", {"id": agent.id}, Authorization=bearer)[0] == 200


@pytest.mark.parametrize(
    ("registration", "word"), [({"pid": "x"}, "pid"), ({"lwt": {"topic": "a/#"}}, "topic")]
)
def test_a_registration_that_is_none_is_told_why_and_may_be_sent_again(agent, registration, word):
    agent.send("CONNECT", registration=registration)
    told = agent.read()
    assert (told["code"], word in told["message"]) == ("PARSE_ERROR", True)
    assert agent.join()


def test_a_goodbye_removes_the_peer_and_its_token_is_nobodys(broker, http, agent):
    agent.join()
    send(http, agent.id, "kept for nobody")
    assert agent.message()["text"] == "kept for nobody"
    agent.send("DISCONNECT")
    assert agent.closed() == (1000, "clean disconnect")
    assert route(http, agent.id) is None
    with Agent(broker.port) as again:
        again.send("CONNECT", agent_id=agent.id, token=agent.token)
        assert again.read()["code"] == "UNAUTHORIZED"


def test_a_connection_may_become_another_peer_and_the_first_keeps_its_mail(broker, http, agent):
    first = agent.join()
    (number,) = send(http, first, "for the first")
    assert agent.message()["id"] == number
    second = agent.join()
    eventually(lambda: states(broker, number) == ["queued"], timeout=BOUND)
    assert (route(http, first), route(http, second)) == ("", "websocket")


# Mail


def test_mail_that_waited_comes_first_and_in_its_order_then_what_follows(broker, http):
    known = http.ask("/register", {})[1]
    texts = [f"m{number}" for number in range(4 * PAGE + 7)]
    ids = send(http, known["id"], *texts)
    with Agent(broker.port) as agent:
        agent.come_back(known["id"], known["token"])
        got = [agent.message() for _ in ids]
        assert [each["id"] for each in got] == ids
        assert [each["text"] for each in got] == texts
        later = send(http, known["id"], "later")
        assert agent.message()["id"] == later[0]
        agent.acknowledge(*ids, *later)
        agent.answered()
    assert set(states(broker, *ids, *later)) == {"seen"}


@pytest.mark.bug("B4-17")
def test_b4_17_what_waited_looks_like_what_is_pushed(broker, http):
    known = http.ask("/register", {})[1]
    send(http, known["id"], "waited")
    with Agent(broker.port) as agent:
        agent.come_back(known["id"], known["token"])
        waited = agent.message()
        send(http, known["id"], "pushed")
        pushed = agent.message()
    assert (waited.keys(), waited["qos"]) == (pushed.keys(), 1)
    assert waited["ack_deadline"].endswith("Z") and waited["expires_at"].endswith("Z")
    assert (waited["delivered"], waited["retry_count"]) == (0, 0)
    assert waited["max_retries"] == DELIVERIES - 1


@pytest.mark.bug("B4-3")
def test_b4_3_only_an_acknowledgement_ends_a_message_and_the_rest_comes_again(broker, http, agent):
    agent.join()
    ids = send(http, agent.id, "a", "b", "c")
    assert [agent.message()["id"] for _ in ids] == ids
    agent.acknowledge(ids[1])
    agent.answered()
    assert states(broker, *ids) == ["leased", "seen", "leased"]
    agent.cut()
    with Agent(broker.port) as again:
        again.come_back(agent.id, agent.token)
        got = [again.message() for _ in range(2)]
        assert [each["id"] for each in got] == [ids[0], ids[2]]
        assert [each["retry_count"] for each in got] == [1, 1]
        again.acknowledge(*ids)  # also what the first connection had in hand
        again.answered()
    assert states(broker, *ids) == ["seen"] * 3


def test_what_is_not_acknowledged_in_time_comes_again_and_at_last_is_dead(
    broker, http, agent, monkeypatch
):
    context = broker.broker._context
    monkeypatch.setattr(context, "options", replace(context.options, ack_within=0.0))
    monkeypatch.setattr(broker.broker, "options", context.options)
    agent.join()
    (number,) = send(http, agent.id, "again and again")
    for count in range(DELIVERIES):
        told = agent.message()
        assert (told["id"], told["retry_count"]) == (number, count)
        broker.run(broker.broker.tidy())
    eventually(lambda: states(broker, number) == ["dead"], timeout=BOUND)
    agent.answered()  # and nothing came before


def test_what_is_given_back_over_http_comes_again(broker, http, agent):
    agent.join()
    (number,) = send(http, agent.id, "x")
    agent.message()
    body = {"id": agent.id, "message_ids": [number]}
    http.ask("/release-messages", body, Authorization=f"Bearer {agent.token}")
    assert agent.message()["id"] == number


def test_what_is_in_hand_is_bounded_and_goes_on_wherever_it_is_acknowledged(
    broker, http, agent, monkeypatch
):
    monkeypatch.setattr(streams, "IN_HAND", 3)
    agent.join()
    ids = send(http, agent.id, *"abcdefg")
    assert [agent.message()["id"] for _ in range(3)] == ids[:3]
    agent.answered()  # nothing else came
    agent.acknowledge(ids[0])
    assert agent.message()["id"] == ids[3]
    body = {"id": agent.id, "message_ids": ids[1:4]}
    http.ask("/ack-messages", body, Authorization=f"Bearer {agent.token}")
    assert [agent.message()["id"] for _ in range(3)] == ids[4:]


def accept(broker, to_id, text="x", **fields):
    """Accept a message of which a sender asks less or more; return its id."""
    draft = Draft(
        from_id="cli", to_id=PeerId(to_id), text=text, sent_at="now", expires_at=4e9, **fields
    )

    async def work():
        receipt = await broker.broker.mail._context.store.accept(
            draft, broker.broker._context.options.limits, now=0.0
        )
        broker.broker.mail.offer(receipt.message)
        return receipt.message.id

    return broker.run(work())


def test_quality_0_is_over_once_it_was_written_whole(broker, agent):
    agent.join()
    number = accept(broker, agent.id, qos=0)
    told = agent.message()
    assert (told["id"], told["qos"], told["ack_deadline"]) == (number, 0, None)
    eventually(lambda: states(broker, number) == ["seen"], timeout=BOUND)


@pytest.mark.parametrize(
    "said",
    ["null", "[]", "5", '"PING"', "{}", '{"type":"HELLO"}', '{"type":"PUBREC","message_id":1}',
     '{"type":"ACK"}', '{"type":"ACK","message_id":"3"}', '{"type":"ACK","message_id":true}',
     '{"type":"ACK","message_id":99999}', "{oops", ""],
)  # fmt: skip
def test_what_means_nothing_ends_nothing(broker, http, agent, said):
    agent.join()
    (number,) = send(http, agent.id, "x")
    agent.message()
    agent.socket.send(said)
    if said in ("null", "{oops", ""):
        assert agent.read()["code"] == "PARSE_ERROR"
    agent.answered()
    assert states(broker, number) == ["leased"]


def test_another_peers_mail_is_not_acknowledged(broker, http, agent):
    agent.join()
    with Agent(broker.port) as other:
        (number,) = send(http, other.join(), "for the other")
        other.message()
        agent.acknowledge(number)
        agent.answered()
        assert states(broker, number) == ["leased"]


def test_what_was_sent_before_connect_is_served_and_acknowledges_nothing(broker, http, agent):
    known = http.ask("/register", {})[1]
    (number,) = send(http, known["id"], "x")
    agent.acknowledge(number)
    agent.answered()
    agent.come_back(known["id"], known["token"])
    assert agent.message()["id"] == number


def test_two_clients_of_a_topic_get_it_once_each(broker, http):
    with Agent(broker.port) as ann, Agent(broker.port) as bob:
        for each in (ann, bob):
            body = {"id": each.join(), "topic": "news/+"}
            http.ask("/subscribe", body, Authorization=f"Bearer {each.token}")
        http.ask("/broadcast", {"from_id": "cli", "topic": "news/x", "text": "hot"})
        for each in (ann, bob):
            assert each.message()["topic"] == "news/x"
            each.answered()


def test_any_sequence_of_texts_arrives_as_it_was_sent(broker, http, agent):
    agent.join()
    texts = ["漢字 🎉", "a\ufffdz\u0000", "x" * 200_000, '"\\\n\r\u2028']
    ids = send(http, agent.id, *texts)
    assert [(each["id"], each["text"]) for each in (agent.message() for _ in ids)] == list(
        zip(ids, texts, strict=True)
    )


# Where it is


@pytest.mark.parametrize("path", ["/", "/ws", "/anything", "/register", "/health"])
def test_agentmesh_upgrades_on_any_path_and_so_do_we(broker, path):
    with Agent(broker.port, path) as agent:
        agent.answered()


@pytest.mark.bug("B4-16")
def test_b4_16_an_open_connection_is_a_sign_of_life_and_its_end_begins_the_silence(
    broker, http, agent, monkeypatch
):
    passed = 0.0
    clock = broker.broker.clock
    real = clock.monotonic
    monkeypatch.setattr(clock, "monotonic", lambda: real() + passed)
    agent.join(hostname="far-host")
    passed = 3600.0
    broker.run(broker.broker.peers.sweep())
    assert route(http, agent.id) == "websocket"
    agent.cut()
    eventually(lambda: route(http, agent.id) == "", timeout=BOUND)
    passed += 59.0
    assert route(http, agent.id) == ""
    passed += 2.0
    assert route(http, agent.id) is None


@pytest.mark.bug("B4-13")
def test_b4_13_a_second_connection_takes_the_place_of_the_first_whose_end_means_nothing(
    broker, http, agent
):
    agent.join()
    ids = send(http, agent.id, "a", "b")
    assert [agent.message()["id"] for _ in ids] == ids
    with Agent(broker.port) as second:
        second.come_back(agent.id, agent.token)
        assert [second.message()["id"] for _ in ids] == ids
        assert agent.closed()[0] == 1000
        agent.socket.close()
        eventually(lambda: len(broker.server._upgraded) == 1, timeout=BOUND)
        assert route(http, agent.id) == "websocket"
        (third,) = send(http, agent.id, "c")
        assert second.message()["id"] == third
        second.answered()


def test_who_is_there_over_a_websocket_has_a_route_and_its_senders_no_warning(http, agent):
    agent.join()
    body = {"from_id": "cli", "to_id": agent.id, "text": "x"}
    told = http.ask("/send-message", body)[1]
    assert (told["route"], told["warnings"]) == ("websocket", [])


def test_a_broker_that_hands_over_says_so_gives_back_what_was_in_hand_and_misses_nobody(
    broker, http, monkeypatch
):
    monkeypatch.setattr(wills, "RECONNECT", 0.0)
    listener = http.ask("/register")[1]["id"]
    http.ask("/subscribe", {"id": listener, "topic": "status"})
    with Agent(broker.port) as agent:
        agent.join(lwt={"topic": "status", "message": "gone"})
        (number,) = send(http, agent.id, "x")
        agent.message()
        broker.run(broker.server.stop_accepting(within=0.01))
        broker.do(broker.server.hang_up)
        assert agent.closed()[0] == 1001
    eventually(lambda: states(broker, number) == ["queued"], timeout=BOUND)
    waited = []
    broker.do(lambda: asyncio.get_running_loop().call_later(0.01, waited.append, True))
    eventually(lambda: waited, timeout=BOUND)
    assert broker.run(broker.store.ledger()).accepted == 1


def test_a_connection_that_breaks_is_missed_and_one_that_is_replaced_or_closed_is_not(
    broker, http, monkeypatch
):
    monkeypatch.setattr(wills, "RECONNECT", 0.0)
    with Agent(broker.port) as listener, Agent(broker.port) as agent:
        body = {"id": listener.join(), "topic": "status"}
        http.ask("/subscribe", body, Authorization=f"Bearer {listener.token}")
        agent.join(lwt={"topic": "status", "message": "gone", "qos": 0})
        with Agent(broker.port) as second:
            second.come_back(agent.id, agent.token)
            assert agent.closed()[0] == 1000
            agent.socket.close()
            eventually(lambda: len(broker.server._upgraded) == 2, timeout=BOUND)
            listener.answered()  # the first one's end meant nothing
            second.cut()
            told = listener.message()
            assert (told["text"], told["topic"], told["qos"]) == ("gone", "status", 0)
            assert told["from_id"] == agent.id
        with Agent(broker.port) as third:
            third.come_back(agent.id, agent.token)
            third.send("DISCONNECT")
            assert third.closed()[0] == 1000
        eventually(lambda: len(broker.server._upgraded) == 1, timeout=BOUND)
        listener.answered()
    assert broker.run(broker.store.ledger()).accepted == 1


def test_nobody_pays_for_websockets_before_there_is_one():
    script = "import sys, claude_peers.node.leader; print('wsproto' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"
