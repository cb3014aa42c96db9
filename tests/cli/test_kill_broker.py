"""Letting another node lead from the command line: nobody is signalled, nothing is lost."""

import pytest

from claude_peers.cli.commands import kill_broker


def test_without_a_broker_it_says_so(cli):
    ran = cli("kill-broker")
    assert (ran.code, ran.out) == (6, "Broker is not running.\n")
    ran = cli("kill-broker", "--json")
    assert (ran.code, ran.out, ran.error["code"]) == (6, "", "no_broker")


@pytest.mark.bug("U18")
@pytest.mark.threat("T35")
def test_another_session_leads_and_no_process_ends(cli, machine):
    node = machine.serve()
    session = machine.session(CLAUDE_PEERS_NAME="alpha")
    session.list_prompts()
    machine.peer_id(session)
    cli("send", "alpha", "keep this")

    ran = cli("kill-broker")

    assert (ran.code, ran.err) == (0, "")
    first, second, third = ran.out.splitlines()
    assert (first, second) == ("Broker has 1 peer(s). Shutting down...", "Broker stopped.")
    assert third == f"Leads now: pid {session.pid}, epoch 2."
    assert node.poll() is None
    assert machine.wait_for_broker() == session.pid
    assert session.call("check_messages")[0].endswith("keep this")


def test_a_node_alone_leads_again(cli, machine):
    node = machine.serve()
    ran = cli("kill-broker", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.value["stopped"]["pid"] == ran.value["leads_now"]["pid"] == node.pid
    assert ran.value["stopped"]["epoch"] == 1
    assert ran.value["leads_now"]["epoch"] == 2


def test_nobody_leads_while_it_is_held(cli, machine):
    machine.serve()
    ran = cli("kill-broker", "--for", "5m")
    assert ran.code == 0
    assert ran.out.endswith("Broker stopped.\nNobody leads for 300 s.\n")
    assert cli("status").code == 6
    session = machine.session()
    session.list_prompts()
    assert cli("status").code == 6


def test_json_of_a_hold_names_no_leader(cli, machine):
    machine.serve()
    ran = cli("kill-broker", "--json", "--for", "60s")
    assert ran.value["leads_now"] is None
    assert ran.value["stopped"]["epoch"] == 1


@pytest.mark.bug("U18")
def test_where_nobody_takes_over_in_time_it_says_so(cli, machine, monkeypatch):
    machine.serve()
    monkeypatch.setattr(kill_broker, "_next_leader", lambda _before: None)
    ran = cli("kill-broker")
    assert ran.code == 0
    assert ran.out.endswith("Nobody leads yet; the next session that starts will.\n")


def test_waiting_for_the_next_leader_has_a_bound(cli, monkeypatch):
    monkeypatch.setattr(kill_broker, "WITHIN", 0.05)
    assert kill_broker._next_leader({"epoch": 1}) is None


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_broker_that_knows_no_secret_is_left_alone(cli, upstream, words):
    ran = cli("kill-broker", *words)
    assert (ran.code, ran.out) == (1, "")
    if words:
        assert ran.error["code"] == "not_ours"
    assert "Nothing was stopped" in ran.err
    assert "CLAUDE_PEERS_DB" in ran.err
    assert upstream.requests == []
