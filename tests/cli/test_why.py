"""`why` tells a message's story; `tests/broker/test_fates.py` has all of them."""

import pytest


def test_a_messages_story_is_printed(cli, machine):
    machine.serve()
    cli("inbox", "--name", "bob")
    cli("send", "bob", "hello")
    ran = cli("why", "1")
    assert ran.code == 0
    assert ran.out.startswith("Message 1 from cli to bob (")
    assert ran.out.endswith(
        "State: queued\nNext: bob is not running: it waits in the mailbox until bob comes back.\n"
    )


def test_a_program_gets_it_as_json_without_the_text(cli, machine):
    machine.serve()
    cli("inbox", "--name", "bob")
    cli("send", "bob", "hello")
    told = cli("why", "1", "--json").value
    assert (told["id"], told["state"], told["steps"]) == (1, "queued", [])
    assert "hello" not in str(told)


def test_a_message_that_is_not_there_is_4(cli, machine):
    machine.serve()
    assert cli("why", "7", "--json").error["code"] == "message_not_found"
    assert cli("why", "7").code == 4


@pytest.mark.parametrize("word", ["abc", "-", "1.5", "²", "9" * 16, "9" * 5000])
@pytest.mark.parametrize(
    "command", [("why",), ("resend", "1"), ("send", "bob", "hi", "--reply-to")]
)
def test_what_is_no_number_of_a_message_is_refused_with_where_to_find_one(cli, command, word):
    ran = cli(*command, word, "--json")
    assert (ran.code, ran.error["code"]) == (2, "usage")
    assert f"'{word[:64]}' is not the number of a message" in ran.error["message"]
    assert "`claude-peers log` shows them" in ran.error["message"]


def test_a_number_that_no_message_has_yet_is_no_such_message(cli, machine):
    machine.serve()
    assert cli("why", "9" * 15).code == 4
