"""A question from the command line: its answer, or why there is none."""

import threading

import pytest
from support.waiting import eventually


@pytest.fixture
def agent(machine):
    """Return a session that may answer, named agent."""
    session = machine.session(CLAUDE_PEERS_NAME="agent")
    machine.peer_id(session)
    return session


def answering(agent, text):
    """Answer the next question that reaches an agent, meanwhile."""

    def answer():
        told, failed = agent.call("wait_for_message", timeout_s=20)
        assert not failed, told
        number = int(told.partition("message_id ")[2].split()[0])
        asker = told.partition("From ")[2].split()[0]
        told, failed = agent.call("send_message", to_id=asker, message=text, reply_to=number)
        assert not failed, told

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def states(machine):
    ledger = machine.post("/ledger", {})
    assert ledger["balanced"], ledger
    return ledger["states"]


def test_an_answer_is_printed_and_counts_as_read(cli, machine, agent):
    thread = answering(agent, "42, all told")
    ran = cli("ask", "agent", "what", "is it?", "--timeout", "20")
    thread.join(20)
    assert ran.code == 0
    assert "reply to 1\n42, all told\n" in ran.out
    assert states(machine) == {"answered": 1, "seen": 1}


def test_a_program_gets_the_answer_as_json(cli, machine, agent):
    thread = answering(agent, "42")
    ran = cli("ask", "agent", "what?", "--json", "--timeout", "20")
    thread.join(20)
    assert (ran.value["message_id"], ran.value["answer"]["text"]) == (1, "42")
    assert ran.value["answer"]["verified"]


def test_no_answer_in_time_is_3_and_a_late_one_waits(cli, machine, agent):
    ran = cli("ask", "agent", "what?", "--timeout", "0.1", "--json")
    assert (ran.code, ran.error["code"]) == (3, "timed_out")
    assert ran.error["remedy"].endswith("claude-peers inbox --name shell")
    answering(agent, "late").join(20)
    assert "late" in cli("inbox", "--name", "shell").out
    assert states(machine) == {"answered": 1, "seen": 1}


def test_a_peer_that_ends_without_an_answer_is_told_at_once(cli, machine, agent):
    def end():
        eventually(lambda: machine.post("/ledger", {})["accepted"], what="the question")
        agent.end_input()

    machine.serve()
    thread = threading.Thread(target=end)
    thread.start()
    ran = cli("ask", "agent", "what?", "--timeout", "60", "--json")
    thread.join(20)
    assert (ran.code, ran.error["code"]) == (7, "unanswered")
    assert "ended before it answered" in ran.error["message"]


def test_other_mail_stays_unread_and_is_not_handed_out(cli, machine, agent):
    cli("inbox", "--name", "shell")
    cli("send", "shell", "something else")
    thread = answering(agent, "42")
    assert cli("ask", "agent", "what?", "--timeout", "20").code == 0
    thread.join(20)
    assert "something else" in cli("inbox", "--name", "shell").out
    assert "handed to" in cli("why", "1").out
    assert cli("why", "1").out.count("handed to") == 1  # by the inbox, not by ask


def test_mail_that_comes_meanwhile_stays_unread(cli, machine, agent):
    def interrupt():
        eventually(lambda: machine.post("/ledger", {})["accepted"], what="the question")
        machine.post("/send-message", {"from_id": "x", "to_id": "shell", "text": "meanwhile"})
        answering(agent, "42").join(20)

    thread = threading.Thread(target=interrupt)
    thread.start()
    ran = cli("ask", "agent", "what?", "--timeout", "20")
    thread.join(20)
    assert ran.code == 0 and "42" in ran.out
    assert "meanwhile" in cli("inbox", "--name", "shell").out


def test_a_question_to_nobody_is_4(cli, machine):
    machine.serve()
    assert cli("ask", "nobody", "what?").code == 4


def test_who_will_not_read_it_soon_is_said(cli, machine):
    machine.serve()
    cli("inbox", "--name", "bob")
    ran = cli("ask", "bob", "what?", "--timeout", "0.1")
    assert "bob is not running" in ran.err


def test_two_who_ask_at_once_have_a_name_each(cli, machine, agent):
    machine.start("listen", "--name", "shell")
    eventually(lambda: "shell" in [peer["name"] for peer in machine.peers()], what="it")
    ran = cli("ask", "agent", "what?", "--timeout", "0.1", "--json")
    assert ran.error["remedy"].endswith("--name shell-2")


def test_a_question_needs_words(cli):
    assert cli("ask", "agent").code == 2
    assert cli("ask", "agent", "what?", "--timeout", "soon").code == 2
