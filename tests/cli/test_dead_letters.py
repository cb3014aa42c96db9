"""Listing messages that nobody read in time."""

import re

import pytest
from support.letters import die, join

from claude_peers.core.delivery import DELIVERIES, given_up

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
REASON = given_up(DELIVERIES)


@pytest.fixture
def letters(machine):
    """Let a message to alpha die and then one to beta; return their ids."""
    machine.serve()
    alpha, beta = join(machine, "alpha"), join(machine, "beta")
    return [
        die(machine, alpha, "first\nand more", sender=beta),
        die(machine, beta, "second", sender="nobody"),
    ]


def test_without_a_broker_there_is_nothing_to_list(cli):
    ran = cli("dead-letters")
    assert (ran.code, ran.out) == (6, "")


def test_where_there_is_none_it_says_so_and_what_to_look_at(cli, machine):
    machine.serve()
    ran = cli("dead-letters")
    assert (ran.code, ran.out) == (0, "No dead letters: nothing went unread for too long.\n")
    assert "claude-peers log" in ran.err
    ran = cli("dead-letters", "--json")
    assert (ran.code, ran.out, ran.err) == (0, "[]\n", "")


def test_the_newest_comes_first_with_its_ends_its_reason_and_how_it_begins(cli, letters):
    first, second = letters
    ran = cli("dead-letters")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert re.fullmatch(rf"{second}  {TIME}  nobody → beta  {REASON}", lines[0])
    assert lines[1] == "  second"
    assert re.fullmatch(rf"{first}  {TIME}  beta → alpha  {REASON}", lines[2])
    assert lines[3:] == ["  first …"]
    assert ran.err == f"Send one again: claude-peers resend {second}\n"


def test_one_peers_are_found_by_name_and_by_id(cli, machine, letters):
    ids = {peer["name"]: peer["id"] for peer in machine.peers()}
    for target in ("alpha", ids["alpha"]):
        ran = cli("dead-letters", target, "--json")
        assert [each["id"] for each in ran.value] == letters[:1]


def test_a_limit_keeps_the_newest(cli, letters):
    ran = cli("dead-letters", "--limit", "1", "--json")
    assert [each["id"] for each in ran.value] == letters[1:]


@pytest.mark.parametrize("limit", ["201", "-1", "many", "²"])
def test_a_limit_that_the_broker_would_cut_is_refused(cli, limit):
    ran = cli("dead-letters", f"--limit={limit}")
    assert (ran.code, ran.out) == (2, "")
    assert "not a whole number up to 200" in ran.err


def test_an_unknown_peer_is_told_from_one_without_dead_letters(cli, machine):
    machine.serve()
    join(machine, "alpha")
    assert cli("dead-letters", "alpha").code == 0
    ran = cli("dead-letters", "nobody")
    assert (ran.code, ran.out) == (4, "")
    assert "Peer nobody not found" in ran.err


def test_no_text_can_forge_a_line(cli, machine):
    machine.serve()
    die(machine, join(machine, "alpha"), "\x1b[2Jx\r\n99  forged", sender="a\n98  b")
    ran = cli("dead-letters")
    assert len(ran.out.splitlines()) == 2
    assert "\x1b" not in ran.out
