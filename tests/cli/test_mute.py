"""Muting a sender for a peer, and unmuting it."""

import pytest
from support.letters import join, send


@pytest.fixture
def ids(machine):
    """Return the ids of two peers behind a broker of their own."""
    machine.serve()
    return {name: join(machine, name) for name in ("alpha", "beta")}


def unread(machine, peer_id):
    return [each["text"] for each in machine.post("/peek-messages", {"id": peer_id})["messages"]]


def test_a_muted_senders_messages_are_held_until_it_is_unmuted(cli, machine, ids):
    ran = cli("mute", "beta", "--for", "alpha")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "alpha is offered no more messages of beta; they are kept.\n"
        "Let them through again: claude-peers unmute beta --for alpha\n"
    )
    send(machine, ids["alpha"], "held", sender=ids["beta"])
    assert unread(machine, ids["alpha"]) == []
    ran = cli("unmute", "beta", "--for", "alpha")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "alpha is offered the messages of beta again, also those held so far.\n"
    assert unread(machine, ids["alpha"]) == ["held"]


@pytest.mark.parametrize(("command", "muted"), [("mute", True), ("unmute", False)])
def test_json_is_the_brokers_answer_and_for_whom(cli, ids, command, muted):
    ran = cli(command, "--json", ids["beta"], "--for", ids["alpha"])
    assert (ran.code, ran.value) == (
        0,
        {
            "ok": True,
            "peer_id": ids["beta"],
            "name": "beta",
            "muted": muted,
            "for": ids["alpha"],
        },
    )


def test_the_only_other_peer_of_the_machine_need_not_be_named(cli, ids):
    assert cli("mute", "--json", "beta").value["for"] == ids["alpha"]
    assert cli("unmute", "--json", "/proj/alpha").value["for"] == ids["beta"]


def test_the_only_other_peer_of_this_directory_need_not_be_named(cli, machine, ids, monkeypatch):
    here = machine.folder("here")
    gamma = join(machine, "gamma", cwd=str(here))
    monkeypatch.chdir(here)
    assert cli("mute", "--json", "beta").value["for"] == gamma


def test_where_several_could_be_meant_they_are_named_and_nobody_is_muted(cli, machine, ids):
    join(machine, "gamma")
    ran = cli("mute", "beta")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "Failed: 2 peers could be meant\nName one: --for alpha or --for gamma\n"
    send(machine, ids["alpha"], "through", sender=ids["beta"])
    assert unread(machine, ids["alpha"]) == ["through"]


def test_where_nobody_else_is_the_way_to_find_out_is_named(cli, machine):
    machine.serve()
    join(machine, "beta")
    ran = cli("unmute", "--json", "beta")
    assert (ran.code, ran.out, ran.error["code"]) == (2, "", "usage")
    assert "claude-peers peers" in ran.error["remedy"]


@pytest.mark.parametrize("words", [("nobody", "--for", "alpha"), ("beta", "--for", "nobody")])
def test_an_unknown_peer_is_not_found(cli, ids, words):
    ran = cli("mute", *words)
    assert (ran.code, ran.out) == (4, "")
    assert "Peer nobody not found" in ran.err


def test_without_a_broker_nobody_is_muted(cli):
    ran = cli("mute", "beta")
    assert (ran.code, ran.out) == (6, "")
