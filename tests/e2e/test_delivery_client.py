"""Mail reaches the model of a real Claude Code, once: idle, in a turn, and in a burst."""

import re
from collections.abc import Callable

import pytest
from e2e.desk import BOUND, WORK, Desk, Worker
from e2e.stub_api import shown
from support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]
MANY = 80

Open = Callable[..., Desk]


def last_request(desk: Desk) -> str:
    """Return everything that the model knows after one more turn of the user."""
    desk.terminal.say("the user goes on")
    return shown(desk.terminal.model.bodies(0)[-1])


def test_mail_from_the_command_line_and_from_a_peer_wakes_an_idle_session(sit_down: Open) -> None:
    desk = sit_down()
    desk.terminal.start()
    desk.terminal.ready()
    agent = desk.peer(route="rewake")

    first = desk.send(agent["name"], "MAIL-ONE from the command line")
    woken = [("push", "rewake"), ("see", "rewake receipt")]
    assert desk.seen(first) == woken
    eventually(lambda: len(desk.waiters()) == 1, timeout=BOUND, what="the waiter after the turn")
    told, failed = desk.machine.session().call(
        "send_message", to_id=agent["id"], message="MAIL-TWO from a peer"
    )
    assert not failed, told
    (second,) = re.findall(r"message_id (\d+)", told)
    assert desk.seen(int(second)) == woken

    known = last_request(desk)
    texts = ("MAIL-ONE from the command line", "MAIL-TWO from a peer")
    assert [known.count(text) for text in texts] == [1, 1]


def test_mail_in_the_middle_of_a_headless_turn_is_seen_in_that_turn(sit_down: Open) -> None:
    text = "MAIL while you work"
    worker = Worker(text)
    desk = sit_down(worker)
    desk.machine.serve()  # a broker that outlives the client and can be asked afterwards
    client = desk.terminal.headless(WORK)
    try:
        assert worker.asked.wait(BOUND)
        mail = desk.send(desk.peer()["name"], text)
        worker.sent.set()
        answer, _ = client.communicate(timeout=BOUND)
    finally:
        worker.sent.set()
        client.kill()
        client.wait()

    assert (client.returncode, answer.strip(), worker.found) == (0, "finished", True)
    assert shown(worker.bodies(0)[-1]).count(text) == 1
    assert desk.seen(mail) == [("push", "hook"), ("see", "hook")]


def test_without_a_waiter_mail_comes_with_the_next_prompt(sit_down: Open) -> None:
    text = "MAIL before you ask"
    desk = sit_down(CLAUDE_PEERS_PUSH="hook")
    desk.terminal.start()
    desk.terminal.ready()

    mail = desk.send(desk.peer()["name"], text)
    for number in range(10):  # when the mail is with the session nobody tells before it is asked
        desk.terminal.say(f"prompt {number}")
        if desk.terminal.shown(text):
            break
    known = last_request(desk)

    assert known.count(text) == 1
    assert "UserPromptSubmit hook additional context" in known.partition(text)[0]
    assert desk.seen(mail) == [("push", "hook"), ("see", "hook")]


def test_of_a_burst_in_the_middle_of_a_turn_everything_is_shown_once(sit_down: Open) -> None:
    texts = [f"burst message {number:02d}." for number in range(MANY)]
    worker = Worker(*texts)
    desk = sit_down(worker, CLAUDE_PEERS_RATE_LIMIT_RPM="0")
    desk.terminal.start()
    desk.terminal.ready()
    agent, sender = desk.peer(route="rewake"), desk.machine.session()
    desk.terminal.type(WORK)
    assert worker.asked.wait(BOUND)

    calls = [sender.ask_tool("send_message", to_id=agent["id"], message=text) for text in texts]
    answers = [sender.outcome(call) for call in calls]
    worker.sent.set()

    assert [told for told, failed in answers if failed] == []
    eventually(lambda: worker.found, timeout=BOUND, what="all of it shown in one turn")
    for told, _ in answers:
        desk.seen(int(re.findall(r"message_id (\d+)", told)[0]))
    known = last_request(desk)
    assert {text: known.count(text) for text in texts if known.count(text) != 1} == {}
