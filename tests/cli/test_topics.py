"""Broadcasting and subscribing from a shell."""

import json

import pytest
from support.letters import join


@pytest.fixture
def ids(machine):
    """Return the ids of two peers behind a broker of their own, of which one has subscribed."""
    machine.serve()
    ids = {name: join(machine, name) for name in ("alpha", "beta")}
    machine.post("/subscribe", {"id": ids["alpha"], "topic": "build/#"})
    return ids


def unread(machine, peer_id):
    return machine.post("/peek-messages", {"id": peer_id})["messages"]


def test_a_broadcast_is_stored_for_subscribers(cli, machine, ids):
    ran = cli("broadcast", "build/status", "all", "green")
    number = unread(machine, ids["alpha"])[0]["id"]
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        f'Broadcast to "build/status" — 1 recipient(s)\n  alpha: message {number}, queued\n'
    )
    (view,) = unread(machine, ids["alpha"])
    assert (view["text"], view["topic"], view["from_id"]) == ("all green", "build/status", "cli")
    assert unread(machine, ids["beta"]) == []


def test_a_shell_subscribes_reads_and_unsubscribes(cli, ids):
    ran = cli("subscribe", "--name", "me", "build/#", "deploy")
    assert ran.out == 'Subscribed to "build/#"\nSubscribed to "deploy"\n'
    assert ran.err == "Read what comes: claude-peers listen --name me\n"
    assert cli("broadcast", "--json", "build/x", "hi").value["sent_to"] == 2
    assert "topic build/x" in cli("inbox", "--name", "me").out
    ran = cli("subscribe", "--json", "--remove", "--name", "me", "build/#")
    assert ran.value["topics"] == ["deploy"]
    assert (
        'Unsubscribed from "deploy"' in cli("subscribe", "--remove", "--name", "me", "deploy").out
    )
    assert cli("broadcast", "--json", "build/x", "hi").value["sent_to"] == 1


def test_a_last_value_is_kept_for_newcomers_and_forgotten_on_request(cli, ids):
    cli("broadcast", "cfg", "--retain", "v1")
    cli("subscribe", "--name", "me", "cfg")
    shown = cli("inbox", "--name", "me").out
    assert "topic cfg · its last value" in shown
    assert "v1" in shown
    assert cli("broadcast", "cfg", "--forget").code == 0
    cli("subscribe", "--name", "other", "cfg")
    assert "No unread messages" in cli("inbox", "--name", "other").out
    assert (cli("broadcast", "cfg", "--forget", "text")).code == 2


def test_what_is_sent_from_a_mailbox_is_answered_there(cli, machine, ids):
    cli("broadcast", "--name", "me", "build/x", "hi")
    (view,) = unread(machine, ids["alpha"])
    machine.post(
        "/send-message", {"from_id": ids["alpha"], "to_id": view["from_id"], "text": "heard"}
    )
    assert "heard" in cli("inbox", "--name", "me").out


def test_a_scope_of_more_than_five_is_shown_and_sent_with_yes(cli, machine, ids):
    for number in range(4):
        join(machine, f"p{number}")
    ran = cli("broadcast", "@machine", "hi")
    assert (ran.code, ran.out.split()) == (7, ["alpha", "beta", "p0", "p1", "p2", "p3"])
    assert ran.err == (
        "Failed: @machine reaches 6 peers, nothing was sent\nAdd --yes if all of them need it.\n"
    )
    told = cli("broadcast", "--json", "@machine", "hi")
    assert (len(told.value["preview"]), told.error["code"]) == (6, "unconfirmed")
    assert unread(machine, ids["beta"]) == []
    assert "6 recipient(s)" in cli("broadcast", "--yes", "@machine", "hi").out
    assert len(unread(machine, ids["beta"])) == 1


def test_a_scope_is_seen_from_the_shells_directory(cli, machine, ids, monkeypatch):
    here = machine.folder("here")
    join(machine, "gamma", cwd=str(here))
    monkeypatch.chdir(here)
    assert "  gamma: " in cli("broadcast", "@dir", "hi").out
    assert cli("broadcast", "--json", "@repo", "hi").value["sent_to"] == 1


def test_a_bad_pattern_says_what_is_meant(cli, ids):
    ran = cli("subscribe", "--name", "me", "a/#/b")
    assert (ran.code, ran.out) == (2, "")
    assert "`#` comes last" in ran.err


def test_agents_are_peers(cli, ids):
    assert cli("agents").out == cli("peers").out
    assert {peer["id"] for peer in json.loads(cli("agents", "--json").out)} == set(ids.values())
