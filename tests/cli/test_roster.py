"""Names are lower case, whatever a user types; ids and directories are taken as they are."""

import pytest
from support.letters import die, join


def test_a_name_in_capitals_reaches_the_mailbox_that_was_made_with_them(cli, machine):
    machine.serve()
    cli("inbox", "--name", "L")
    assert cli("send", "L", "hello").code == 0
    assert "hello" in cli("inbox", "--of", "L").out
    host = machine.post("/list-peers", {"gone": True})[0]["hostname"]
    assert cli("send", f"L@{host}", "again").code == 0
    assert "again" in cli("log", "--peer", "L").out


@pytest.mark.parametrize(
    "words",
    [
        ("ask", "--timeout", "0s", "ALPHA", "how?"),
        ("mute", "ALPHA", "--for", "Beta"),
        ("unmute", "ALPHA", "--for", "Beta"),
        ("rename", "ALPHA", "gamma"),
        ("send", "--require-live", "ALPHA", "hi"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_that_names_a_peer_takes_capitals(cli, machine, words):
    machine.serve()
    for name in ("alpha", "beta"):
        join(machine, name)
    assert cli(*words).code == (3 if words[0] == "ask" else 0)


def test_dead_letters_are_found_by_a_name_in_capitals(cli, machine):
    machine.serve()
    number = die(machine, join(machine, "alpha"))
    assert cli("dead-letters", "ALPHA", "--json").value[0]["id"] == number


def test_a_directory_keeps_its_capitals(cli, machine):
    machine.serve()
    join(machine, "alpha", cwd="/Proj/A")
    assert cli("send", "/Proj/A", "hi").code == 0


def test_a_peer_of_another_implementation_that_has_capitals_is_called_so(cli, upstream):
    upstream.peers[0]["id"] = "Agent1"
    cli("send", "Agent1", "hi")
    cli("send", "Agent2", "hi")
    sent = [body["to_id"] for path, body in upstream.requests if path == "/send-message"]
    assert sent == ["Agent1", "agent2"]
