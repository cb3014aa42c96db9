"""Two servers of one running agent share a mailbox; only the first is pushed to.

Sub-agents with servers of their own live for milliseconds, and a server may be configured twice.
"""

import signal

import pytest
from support.agents import Claude, identity, shown
from support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]


@pytest.fixture
def sender(machine):
    session = machine.session(CLAUDE_PEERS_NAME="sender")
    session.call("whoami")
    return session


@pytest.fixture
def agent(machine, sender):
    """Return an agent with one server, which is its first."""
    claude = Claude(machine, "s-1")
    claude.first = claude.serve()
    claude.told = identity(claude.first)
    return claude


def send(sender, agent, text):
    assert not sender.call("send_message", to_id=agent.told[0], message=text)[1]


def names(machine):
    return sorted(peer["name"] for peer in machine.peers())


def test_a_second_server_has_the_firsts_id_and_name_and_sends_and_lists(machine, sender, agent):
    second = agent.serve()
    assert identity(second) == agent.told
    assert names(machine) == ["project", "sender"]
    assert "sender" in second.call("list_peers")[0]
    assert not second.call("send_message", to_id="sender", message="from the second")[1]
    pushed = sender.wait_for_push("from the second")
    assert (pushed["meta"]["from_id"], pushed["meta"]["verified"]) == (agent.told[0], "true")


def test_only_the_first_server_is_pushed_to_and_the_second_can_read(machine, sender, agent):
    second = agent.serve()
    send(sender, agent, "hello")
    agent.first.wait_for_push("hello")
    second.call("whoami")
    assert (second.pushes, shown(second, "hello")) == ([], 0)
    second.call("check_messages")
    assert shown(second, "hello") == 1
    eventually(lambda: machine.post("/ledger", {})["states"].get("seen") == 1)


def test_what_the_second_server_has_shown_is_not_shown_again_by_the_first(machine, sender, agent):
    second = agent.serve()
    send(sender, agent, "hello")
    agent.first.wait_for_push("hello")
    assert "hello" in second.call("check_messages")[0]
    eventually(lambda: machine.post("/ledger", {})["states"].get("seen") == 1)
    assert "nread messages: 0" in agent.first.call("whoami")[0]
    assert agent.first.call("check_messages")[0] == "No new messages."
    assert shown(agent.first, "hello") == 0


def test_what_the_second_server_has_answered_is_not_shown_again_by_the_first(
    machine, sender, agent
):
    second = agent.serve()
    send(sender, agent, "hello")
    number = int(agent.first.wait_for_push("hello")["meta"]["message_id"])
    second.call("send_message", to_id="sender", message="hi", reply_to=number)
    assert "hello" not in agent.first.call("list_peers")[0]


@pytest.mark.parametrize("end", ["leaves", "is killed"])
def test_the_end_of_a_second_server_ends_nothing(machine, sender, agent, end):
    second = agent.serve()
    if end == "leaves":
        second.close()
    else:
        second.kill()
    send(sender, agent, "still there?")
    agent.first.wait_for_push("still there?")
    assert names(machine) == ["project", "sender"]
    assert identity(agent.first) == agent.told


def test_sub_agents_servers_come_and_go_without_a_trace(machine, sender, agent):
    send(sender, agent, "for the main agent")
    for _ in range(3):
        brief = agent.serve(stay=False)
        brief.kill(signal.SIGINT)
        brief.process.wait()
    assert names(machine) == ["project", "sender"]
    assert identity(agent.first) == agent.told
    agent.first.call("check_messages")
    assert shown(agent.first, "for the main agent") == 1


@pytest.mark.parametrize("end", ["leaves", "is killed"])
def test_a_second_server_takes_over_when_the_first_is_gone(machine, sender, agent, end):
    second = agent.serve()
    send(sender, agent, "waiting mail")
    agent.first.wait_for_push("waiting mail")
    if end == "leaves":
        agent.first.close()
    else:
        agent.first.kill()
    second.wait_for_push("waiting mail")
    send(sender, agent, "and a new one")
    second.wait_for_push("and a new one")
    assert identity(second) == agent.told
    second.call("check_messages")
    assert [shown(second, text) for text in ("waiting mail", "and a new one")] == [1, 1]
    assert machine.post("/ledger", {})["balanced"]


def test_of_two_servers_one_is_first_again_after_the_broker_was_killed(machine, sender, agent):
    second = agent.serve()
    sender.kill()
    other = machine.session(CLAUDE_PEERS_NAME="other")
    machine.wait_for_broker(other_than=sender.pid)
    assert identity(second) == identity(agent.first) == agent.told
    assert not other.call("send_message", to_id=agent.told[0], message="after")[1]
    eventually(lambda: agent.first.pushes or second.pushes)
    second.call("list_peers")
    agent.first.call("list_peers")
    assert shown(agent.first, "after") + shown(second, "after") == 1
    assert names(machine).count("project") == 1
