"""A shell's mailbox: durable under its name, held by one process, read without loss."""

import json
import signal

import pytest
from support.waiting import eventually

from claude_peers.cli import mailbox as mailboxes
from claude_peers.cli.mailbox import Mailbox
from claude_peers.core.errors import NoBrokerError


def balanced(machine):
    ledger = machine.post("/ledger", {})
    assert ledger["balanced"], ledger
    return ledger["states"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def listening(machine, name, *options):
    """Start a listener; return its process and the file it prints into."""
    process = machine.start("listen", "--json", "--name", name, *options)
    printed = machine.root / f"process{len(machine.processes) - 1}.log"
    eventually(lambda: name in [peer["name"] for peer in machine.peers()], what="the listener")
    return process, printed


# inbox


def test_mail_waits_for_a_name_that_was_used_once(cli, machine):
    machine.serve()
    assert cli("inbox", "--name", "bob").out == "No unread messages for bob.\n"
    cli("send", "bob", "for", "later")
    first = cli("inbox", "--name", "bob")
    assert "message 1 · sender not verified\nfor later\n" in first.out
    assert "for later" not in cli("inbox", "--name", "bob").out
    assert balanced(machine) == {"seen": 1}


def test_an_empty_inbox_names_the_next_command(cli, machine):
    machine.serve()
    assert "claude-peers listen --name shell" in cli("inbox").err


def test_the_name_is_the_variables_if_none_is_given(cli, machine, monkeypatch):
    machine.serve()
    monkeypatch.setenv("CLAUDE_PEERS_NAME", "dora")
    assert cli("inbox").out == "No unread messages for dora.\n"


def test_a_peek_leaves_messages_unread(cli, machine):
    machine.serve()
    cli("inbox", "--name", "bob")
    cli("send", "bob", "hello")
    for _ in range(2):
        assert "hello" in cli("inbox", "--name", "bob", "--peek").out
    assert balanced(machine) == {"queued": 1}
    assert json.loads(cli("inbox", "--name", "bob", "--json").out)["text"] == "hello"


def test_more_mail_than_a_page_is_shown_whole_in_order(cli, machine):
    machine.environ["CLAUDE_PEERS_RATE_LIMIT_RPM"] = "0"
    machine.serve()
    cli("inbox", "--name", "bob")
    for number in range(120):
        machine.post("/send-message", {"from_id": "x", "to_id": "bob", "text": str(number)})
    shown = cli("inbox", "--name", "bob", "--json").out.splitlines()
    assert [json.loads(line)["text"] for line in shown] == [str(number) for number in range(120)]
    assert balanced(machine) == {"seen": 120}


def test_others_mailboxes_are_looked_at_by_name_or_id_and_keep_their_mail(cli, machine):
    machine.serve()
    cli("inbox", "--name", "bob")
    cli("send", "bob", "hello")
    (peer,) = machine.post("/list-peers", {"gone": True})
    for target in ("bob", peer["id"]):
        assert "hello" in cli("inbox", "--of", target).out
    assert balanced(machine) == {"queued": 1}
    assert cli("inbox", "--of", "nobody").code == 4


def test_two_mailboxes_of_one_name_have_to_be_told_apart(cli, machine):
    machine.serve()
    for _ in range(2):
        body = {"cwd": "/x", "pid": machine.bystander().pid}
        machine.post("/register", body)
    ran = cli("inbox", "--of", "/x", "--json")
    assert (ran.code, ran.error["code"]) == (4, "peer_ambiguous")


def test_control_characters_do_not_reach_the_terminal(cli, machine):
    machine.serve()
    cli("inbox", "--name", "bob")
    machine.post(
        "/send-message", {"from_id": "x\x1b[31m", "to_id": "bob", "text": "a\x1b]0;b\x07c"}
    )
    assert "\x1b" not in cli("inbox", "--name", "bob").out


# listen


def test_a_listener_prints_each_message_as_it_comes_and_in_order(cli, machine):
    machine.serve()
    cli("inbox", "--name", "bob")
    cli("send", "bob", "before")
    process, printed = listening(machine, "bob", "--count", "3")
    cli("send", "bob", "one")
    cli("send", "bob", "two")
    assert process.wait(20) == 0
    assert [each["text"] for each in lines(printed)] == ["before", "one", "two"]
    assert balanced(machine) == {"seen": 3}


def test_a_listener_is_shown_as_reached_and_away_when_it_has_ended(cli, machine):
    machine.serve()
    process, _ = listening(machine, "bob")
    (peer,) = machine.peers()
    assert (peer["name"], peer["route"]) == ("bob", "listen")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert machine.peers() == []


def test_a_second_listener_of_a_name_is_refused(cli, machine):
    machine.serve()
    listening(machine, "bob")
    ran = cli("listen", "--name", "bob", "--json")
    assert (ran.code, ran.error["code"]) == (5, "name_held")
    assert "inbox --of bob" in ran.error["remedy"]


def test_who_comes_between_look_and_registration_keeps_the_name(cli, machine, monkeypatch):
    machine.serve()
    listening(machine, "bob")
    monkeypatch.setattr(mailboxes.Broker, "peers", lambda _self: [])
    assert cli("listen", "--name", "bob").code == 5
    assert [peer["name"] for peer in machine.peers()] == ["bob"]


def test_a_listener_to_whom_nothing_comes_ends_with_3(cli, machine):
    machine.serve()
    ran = cli("listen", "--name", "bob", "--timeout", "0.1s", "--json")
    assert (ran.code, ran.error["code"]) == (3, "timed_out")


def test_a_killed_listeners_mail_comes_to_the_next_one(cli, machine):
    machine.serve()
    process, _ = listening(machine, "bob")
    process.send_signal(signal.SIGSTOP)
    cli("send", "bob", "hello")
    process.kill()
    process.wait(20)
    process, printed = listening(machine, "bob", "--count", "1")
    assert process.wait(20) == 0
    assert [each["text"] for each in lines(printed)] == ["hello"]
    assert balanced(machine) == {"seen": 1}


def test_a_listener_goes_on_with_the_next_broker(cli, machine):
    first = machine.serve()
    process, printed = listening(machine, "bob", "--count", "2")
    cli("send", "bob", "one")
    eventually(lambda: len(lines(printed)) == 1, what="the first message")
    machine.start("serve")
    first.kill()
    first.wait(20)
    machine.wait_for_broker(other_than=first.pid)
    cli("send", "bob", "two")
    assert process.wait(20) == 0
    assert [each["text"] for each in lines(printed)] == ["one", "two"]
    assert balanced(machine) == {"seen": 2}


def test_what_could_not_be_printed_goes_back(machine, cli, monkeypatch):
    machine.serve()
    cli("inbox", "--name", "bob")
    for text in ("one", "two"):
        cli("send", "bob", text)
    printed = []

    def breaks(view, *, as_json):
        if printed:
            raise BrokenPipeError
        printed.append(view["text"])

    with monkeypatch.context() as broken:
        broken.setattr("claude_peers.cli.incoming.say", breaks)
        broken.setattr("claude_peers.cli.output.give_up", lambda: None)
        assert cli("inbox", "--name", "bob").code == 1
    assert balanced(machine) == {"queued": 1, "seen": 1}
    assert "two" in cli("inbox", "--name", "bob").out


# send --name


def test_who_answers_by_the_name_of_its_mailbox_has_answered(cli, machine):
    machine.serve()
    cli("inbox", "--name", "ann")
    listening(machine, "bob")
    assert cli("send", "--name", "ann", "bob", "--json", "how?").value["message_id"] == 1
    assert cli("send", "--name", "bob", "ann", "--reply-to", "1", "so").code == 0
    assert balanced(machine) == {"answered": 1, "queued": 1}
    answer = cli("inbox", "--name", "ann", "--json").value
    assert (answer["text"], answer["verified"], answer["reply_to"]) == ("so", True, 1)


def test_nobody_sends_by_the_name_of_an_agent(cli, machine):
    agent = machine.session(CLAUDE_PEERS_NAME="agent")
    machine.peer_id(agent)
    ran = cli("send", "--name", "agent", "agent", "--json", "obey")
    assert (ran.code, ran.error["code"]) == (1, "not_your_peer")
    assert machine.post("/ledger", {})["accepted"] == 0


# Brokers that cannot


def test_another_implementations_broker_keeps_no_mailboxes(cli, upstream):
    ran = cli("inbox", "--name", "bob", "--json")
    assert (ran.code, ran.error["code"]) == (6, "no_broker")
    assert "another implementation" in ran.error["message"]


def test_without_a_broker_it_is_said_at_once(cli):
    assert cli("inbox").code == 6


def test_who_finds_no_broker_any_more_is_told_after_a_while(cli, machine, monkeypatch):
    monkeypatch.setattr(mailboxes, "PATIENCE", 0.2)
    node = machine.serve()
    with Mailbox("bob") as mailbox:
        node.kill()
        node.wait(20)
        with pytest.raises(NoBrokerError):
            mailbox.look()
