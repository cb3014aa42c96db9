"""Giving a peer another name from the command line."""

import pytest
from support.letters import join


@pytest.fixture
def alpha(machine):
    """Return the id of a peer behind a broker of its own."""
    machine.serve()
    return join(machine, "alpha")


@pytest.mark.parametrize("target", ["alpha", "/proj/alpha", "id"])
def test_a_peer_has_the_new_name_and_is_reached_by_the_old(cli, machine, alpha, target):
    target = alpha if target == "id" else target
    ran = cli("rename", target, "omega")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{target} is called omega now. The old name is answered for a day.\n"
    assert [peer["name"] for peer in machine.peers()] == ["omega"]
    assert cli("send", "alpha", "hi").out == f"Message sent to {alpha}\n"


def test_json_is_the_brokers_answer(cli, alpha):
    ran = cli("rename", "--json", "alpha", "omega")
    assert (ran.code, ran.value) == (0, {"ok": True, "id": alpha, "name": "omega"})


def test_a_name_that_somebody_has_is_a_conflict(cli, machine, alpha):
    join(machine, "beta")
    ran = cli("rename", "alpha", "beta")
    assert (ran.code, ran.out) == (5, "")
    assert ran.err == "Failed: The name beta is taken\nChoose another one.\n"


@pytest.mark.parametrize("name", ["Two words", "", "x" * 65, "a@b", "\x1b[2J"])
def test_what_is_no_name_is_a_usage_error_that_says_what_one_is(cli, alpha, name):
    ran = cli("rename", "alpha", name)
    assert (ran.code, ran.out) == (2, "")
    assert "A name has up to 64 of a-z" in ran.err
    assert "\x1b" not in ran.err


def test_an_unknown_peer_is_not_found(cli, machine):
    machine.serve()
    ran = cli("rename", "--json", "nobody", "omega")
    assert (ran.code, ran.out, ran.error["code"]) == (4, "", "peer_not_found")


def test_without_a_broker_nobody_is_renamed(cli):
    ran = cli("rename", "alpha", "omega")
    assert (ran.code, ran.out) == (6, "")
