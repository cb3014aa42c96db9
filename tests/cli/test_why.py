"""`why` tells a message's story; `tests/broker/test_fates.py` has all of them."""


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


def test_a_message_has_a_number(cli):
    assert cli("why", "x").code == 2
