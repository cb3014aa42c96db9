"""Sending dead letters again."""

import json

import pytest
from support.letters import die, join, send


@pytest.fixture
def alpha(machine):
    """Return the id of a peer without a push route, behind a broker of its own."""
    machine.serve()
    return join(machine, "alpha")


def unread(machine, peer_id):
    return [each["text"] for each in machine.post("/peek-messages", {"id": peer_id})["messages"]]


def test_a_dead_letter_comes_again_as_a_new_message(cli, machine, alpha):
    dead = die(machine, alpha, "read me")
    ran = cli("resend", str(dead))
    assert (ran.code, ran.out) == (
        0,
        f"Message {dead} sent again as {dead + 1} to alpha, state queued\n",
    )
    warning, remedy = ran.err.splitlines()
    assert warning.startswith("alpha has no push route")
    assert remedy == f"What becomes of it: claude-peers why {dead + 1}"
    assert unread(machine, alpha) == ["read me"]


def test_asking_twice_sends_it_once(cli, machine, alpha):
    dead = die(machine, alpha)
    cli("resend", str(dead))
    ran = cli("resend", str(dead))
    assert ran.code == 0
    assert ran.out.startswith(f"Message {dead} had been sent again before, as {dead + 1} to alpha")
    assert len(unread(machine, alpha)) == 1


def test_json_is_a_list_of_the_brokers_answers(cli, machine, alpha):
    dead = [die(machine, alpha), die(machine, alpha, "other")]
    ran = cli("resend", "--json", *map(str, dead))
    assert (ran.code, ran.err) == (0, "")
    assert [(each["resent"], each["state"]) for each in ran.value] == [
        (number, "queued") for number in dead
    ]


def test_what_is_not_dead_is_a_usage_error_in_the_brokers_words(cli, machine, alpha):
    alive = send(machine, alpha)
    ran = cli("resend", str(alive))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"Failed: Message {alive} is queued, not dead\nOnly dead letters can be sent again.\n"
    )


def test_an_unknown_message_is_not_found(cli, machine):
    machine.serve()
    ran = cli("resend", "--json", "7")
    assert (ran.code, ran.out, ran.error["code"]) == (4, "", "message_not_found")


def test_of_several_each_is_tried_and_the_first_failure_is_the_exit_code(cli, machine, alpha):
    dead = die(machine, alpha)
    alive = send(machine, alpha)
    words = ("99", str(dead), str(alive), str(dead))
    ran = cli("resend", *words)
    assert ran.code == 4
    assert ran.out.count("sent again") == 1
    assert ran.err.count("Failed: ") == 2
    ran = cli("resend", "--json", *words)
    assert [each["resent"] for each in ran.value] == [dead]
    told = [json.loads(line)["error"]["code"] for line in ran.err.splitlines()]
    assert told == ["message_not_found", "not_possible"]


def test_a_full_mailbox_takes_nothing(cli, machine):
    machine.serve(CLAUDE_PEERS_MAILBOX_LIMIT="1")
    alpha = join(machine, "alpha")
    dead = die(machine, alpha)
    send(machine, alpha)
    ran = cli("resend", str(dead))
    assert (ran.code, ran.out) == (7, "")


def test_a_message_has_a_number(cli):
    ran = cli("resend", "alpha")
    assert (ran.code, ran.out) == (2, "")
    assert "usage: claude-peers resend" in ran.err


def test_another_implementation_sends_nothing_again(cli, upstream):
    ran = cli("resend", "7")
    assert (ran.code, ran.out) == (6, "")
    assert upstream.requests == []
