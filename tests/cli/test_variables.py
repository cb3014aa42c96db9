"""Who sets a variable of agentmesh's that has no counterpart is told so, and what to do instead."""

from pathlib import Path

import pytest

FEDERATION = (
    "Nothing reads AGENTMESH_FEDERATION_PEERS: brokers are not federated here. Run `claude-peers "
    "invite NAME` on one machine and `claude-peers join` on the other, which then uses the first "
    "one's broker\n"
)


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_a_command_tells_once_that_brokers_are_not_federated(cli, machine, monkeypatch, command):
    machine.serve()
    monkeypatch.setenv("AGENTMESH_FEDERATION_PEERS", "http://a:7899,http://b:7899")
    ran = cli(command)
    assert (ran.code, ran.err) == (0, FEDERATION)


def test_a_node_tells_that_brokers_are_not_federated(machine):
    machine.serve(AGENTMESH_FEDERATION_PEERS="http://a:7899")
    log = Path(machine.root / "process0.log").read_text()
    assert log.startswith(FEDERATION)
    assert log.count("AGENTMESH_FEDERATION_PEERS") == 1


@pytest.mark.parametrize("command", [("status", "--json"), ("doctor", "--json")])
def test_programs_are_told_nothing_beside_their_result(cli, machine, monkeypatch, command):
    machine.serve()
    monkeypatch.setenv("AGENTMESH_FEDERATION_PEERS", "http://a:7899")
    assert cli(*command).err == ""


@pytest.mark.parametrize(
    ("name", "value"), [("AGENTMESH_FEDERATION_PEERS", ""), ("AGENTMESH_MAX_RETRIES", "3")]
)
def test_what_is_empty_or_has_a_counterpart_is_not_noted(cli, machine, monkeypatch, name, value):
    machine.serve()
    monkeypatch.setenv(name, value)
    assert cli("status").err == ""
