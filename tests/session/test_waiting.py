"""A session that waits for a message: real brokers, real lines, both faces."""

import json
import re

import pytest
from support.waiting import eventually

FACES = ["own", "sdk"]


@pytest.fixture(params=FACES)
def pair(machine, request):
    """Return two registered sessions, alpha and beta; beta is served by each face in turn."""
    alpha = machine.session(CLAUDE_PEERS_NAME="alpha")
    alpha.call("whoami")
    beta = machine.session(CLAUDE_PEERS_NAME="beta", CLAUDE_PEERS_MCP=request.param)
    beta.call("whoami")
    return alpha, beta


def states(machine):
    ledger = machine.post("/ledger", {})
    return {state: count for state, count in ledger["states"].items() if count}


def wait(session, **given):
    """Let a session wait; other calls are answered meanwhile."""
    number = session.ask_tool("wait_for_message", **given)
    assert not session.call("list_peers")[1]
    assert number not in session._answers
    return number


def sent(text):
    return int(re.search(r"message_id (\d+)", text)[1])


def test_a_message_ends_the_wait_and_is_seen_once_the_result_is_written(machine, pair):
    alpha, beta = pair
    waiting = wait(beta, timeout_s=60)
    alpha.call("send_message", to_id="beta", message="hello")
    text, failed = beta.outcome(waiting)
    assert not failed
    assert text.startswith("1 new message(s):")
    assert "hello" in text
    eventually(lambda: states(machine) == {"seen": 1})


def test_a_question_is_asked_awaited_answered_and_its_story_told(machine, pair):
    alpha, beta = pair
    asked = wait(alpha, from_id="beta")
    text, _ = beta.call("send_message", to_id="alpha", message="ready?", intent="request")
    number = sent(text)
    assert f"wait_for_message(reply_to={number})" in text
    assert "ready?" in alpha.outcome(asked)[0]
    waiting = wait(beta, timeout_s=60, reply_to=number)
    alpha.call("send_message", to_id="beta", message="by the way")
    alpha.call("send_message", to_id="beta", message="yes", reply_to=number)
    text, failed = beta.outcome(waiting)
    assert not failed
    assert text.startswith("1 new message(s):")
    assert "yes" in text
    assert "by the way" not in text
    story, failed = beta.call("message_status", message_id=number)
    assert not failed
    assert story.startswith(f"Message {number} from ")
    assert "answered by message" in story
    assert "State: answered" in story


def test_a_cancelled_wait_takes_no_mail(machine, pair):
    alpha, beta = pair
    waiting = wait(beta, timeout_s=60)
    beta.notify("notifications/cancelled", {"requestId": waiting})
    beta.request("ping")
    alpha.call("send_message", to_id="beta", message="hello")
    eventually(lambda: "1 unread" in beta.call("whoami")[0] or "hello" in str(beta.received))
    assert waiting not in beta._answers


def test_when_nothing_comes_the_result_is_no_error(pair):
    _, beta = pair
    assert beta.call("wait_for_message", timeout_s="0.01") == ("No message within 0.01 s.", False)
    text, failed = beta.call("get_dead_letters")
    assert (text, failed) == ("No dead letters.", False)


def test_a_message_that_is_nobodys_business_is_told_so(pair):
    _, beta = pair
    text, failed = beta.call("message_status", message_id=99)
    assert failed
    assert "Message 99 not found" in text


def test_a_session_that_ends_while_it_waits_loses_nothing(machine, pair):
    alpha, beta = pair
    wait(beta, timeout_s=60)
    assert beta.close() == 0
    alpha.call("send_message", to_id="beta", message="hello")
    assert states(machine) == {"queued": 1}
    assert json.dumps(beta.faults) == "[]"
