"""Our sessions and commands with a broker of the predecessors, and after it."""

import sqlite3
from collections.abc import Iterator

import pytest
from support.machine import Machine
from support.mcp import Session
from support.recorded import AGENTMESH, AGENTMESH_0_1, UPSTREAM, Recorded
from support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]
OTHERS = "another implementation"
WAY_OUT = "the next session of claude-peers leads"


@pytest.fixture(params=[UPSTREAM, AGENTMESH], ids=["0.0", "0.4"])
def broker(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Recorded]:
    serving = Recorded(machine.port, request.param)
    try:
        yield serving
    finally:
        serving.close()


@pytest.fixture
def agentmesh(machine: Machine) -> Iterator[Recorded]:
    serving = Recorded(machine.port, AGENTMESH)
    try:
        yield serving
    finally:
        serving.close()


def joined(machine: Machine, broker: Recorded, **variables: str) -> tuple[Session, str]:
    """Return a session of ours that the broker knows, and its id there."""
    before = set(broker.peers)
    session = machine.session(**variables)
    session.list_prompts()
    new = eventually(lambda: set(broker.peers) - before, what="registration")
    return session, new.pop()


def test_the_tools_of_a_session_work_with_it(machine: Machine, broker: Recorded):
    other = broker.join("their agent")
    session, me = joined(machine, broker)

    assert other in session.call("list_peers")[0]
    assert session.call("set_summary", summary="ours") == ('Summary updated: "ours"', False)
    told, bad = session.call("send_message", to_id=other, message="to their agent")
    assert (bad, other in told) == (False, True)
    broker.answer("/send-message", {"from_id": other, "to_id": me, "text": "to our agent"})
    push = session.wait_for_push("to our agent")
    text, bad = session.call("check_messages")

    assert [each["text"] for each in broker.mail[other]] == ["to their agent"]
    assert broker.peers[me]["summary"] == "ours"
    assert push["meta"]["from_id"] == other
    assert (text.count("to our agent"), bad) == (1, False)
    assert session.call("check_messages")[0].startswith("No new messages")
    told, bad = session.call("send_message", to_id="nobody00", message="x")
    assert bad and "nobody00 not found" in told


def test_the_commands_work_with_it(machine: Machine, broker: Recorded):
    other = broker.join("their agent")

    for command in ("peers", "agents"):
        ran = machine.run(command)
        assert (ran.returncode, other in ran.stdout) == (0, True), ran.stderr
        assert "their agent" in ran.stdout
    status = machine.run("status")
    assert status.stdout.startswith("Broker: ok (1 peer(s) registered)\n"), status.stderr
    sent = machine.run("send", other, "from a shell")
    assert (sent.returncode, sent.stdout) == (0, f"Message sent to {other}\n")
    assert [each["text"] for each in broker.mail[other]] == ["from a shell"]
    missed = machine.run("send", "nobody00", "x")
    assert (missed.returncode, "nobody00 not found" in missed.stderr) == (1, True)


def test_topics_work_where_it_has_them(machine: Machine, agentmesh: Recorded):
    other = agentmesh.join("their agent")
    agentmesh.topics["build"] = [other]
    session, me = joined(machine, agentmesh)

    assert session.call("subscribe", topic="build")[1] is False
    told, bad = session.call("broadcast", topic="build", message="from ours")
    ran = machine.run("broadcast", "build", "from a shell")
    session.wait_for_push("from a shell")

    assert (bad, "1 recipient" in told) == (False, True), told
    assert (ran.returncode, "2 recipient(s)" in ran.stdout) == (0, True), ran.stderr
    assert [each["text"] for each in agentmesh.mail[other]] == ["from ours", "from a shell"]
    assert session.call("check_messages")[0].count("from a shell") == 1
    assert session.call("unsubscribe", topic="build")[1] is False
    assert me not in agentmesh.topics["build"]


@pytest.mark.parametrize("broker", [UPSTREAM], indirect=True, ids=["0.0"])
def test_what_it_does_not_have_is_refused_with_the_way_out(machine: Machine, broker: Recorded):
    session, _ = joined(machine, broker)

    for tool, given in (("subscribe", {}), ("broadcast", {"message": "x"})):
        told, bad = session.call(tool, topic="build", **given)
        assert bad and OTHERS in told and WAY_OUT in told, told
    ran = machine.run("broadcast", "build", "x")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert OTHERS in ran.stderr and WAY_OUT in ran.stderr


@pytest.mark.parametrize(
    "broker", [UPSTREAM, AGENTMESH_0_1, AGENTMESH], indirect=True, ids=["0.0", "0.1.1", "0.4"]
)
def test_a_broadcast_to_a_scope_is_refused_before_anything_is_sent(
    machine: Machine, broker: Recorded
):
    broker.join("their agent")
    session, _ = joined(machine, broker)

    told, bad = session.call("broadcast", topic="@machine", message="x")
    ran = machine.run("broadcast", "@machine", "x")

    assert bad and "it knows no scopes" in told and WAY_OUT in told, told
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "it knows no scopes" in ran.stderr and WAY_OUT in ran.stderr
    assert [path for path, _ in broker.requests if path == "/broadcast"] == []


@pytest.mark.parametrize("broker", [UPSTREAM], indirect=True, ids=["0.0"])
def test_a_list_that_it_cannot_narrow_is_refused(machine: Machine, broker: Recorded):
    other = broker.join("their agent")
    session, _ = joined(machine, broker)

    for words in (("--fleet", "nope"), ("--online",), ("--capability", "zzz"), ("--type", "x")):
        ran = machine.run("agents", *words)
        assert (ran.returncode, ran.stdout) == (1, ""), words
        assert OTHERS in ran.stderr and WAY_OUT in ran.stderr
    for given in ({"capabilities": ["zzz"]}, {"scope": "device", "device_id": "edge"}):
        told, bad = session.call("list_peers", **given)
        assert bad and OTHERS in told and WAY_OUT in told, told
    assert other in machine.run("agents").stdout


def test_a_list_is_narrowed_by_what_its_peers_tell(machine: Machine, agentmesh: Recorded):
    agentmesh.join("their agent")
    session, me = joined(machine, agentmesh, CLAUDE_PEERS_FLEET_ID="red")

    assert "No peers registered" in machine.run("agents", "--fleet", "nope").stdout
    red = machine.run("agents", "--fleet", "red").stdout
    assert (me in red, "their agent" in red) == (True, False)
    told, bad = session.call("list_peers", capabilities=["zzz"])
    assert (told.startswith("No other peers"), bad) == (True, False)


@pytest.mark.parametrize("broker", [AGENTMESH_0_1, AGENTMESH], indirect=True, ids=["0.1.1", "0.4"])
def test_it_is_told_of_a_session_in_its_own_words(machine: Machine, broker: Recorded):
    other = broker.join("their agent")
    session, _ = joined(
        machine,
        broker,
        CLAUDE_PEERS_NAME="ours",
        CLAUDE_PEERS_FLEET_ID="red",
        CLAUDE_PEERS_DEVICE_ID="edge",
        CLAUDE_PEERS_CAPABILITIES="review,deploy",
        CLAUDE_PEERS_LWT_TOPIC="status/ours",
    )
    session.call("send_message", to_id=other, message="at most once", qos=0)

    told = dict(broker.requests)
    registration, message = told["/register"], told["/send-message"]
    assert registration.pop("lwt")["topic"] == "status/ours"
    for name, value in {
        "agent_name": "ours",
        "agent_type": "test-client",
        "fleet_id": "red",
        "device_id": "edge",
        "capabilities": ["review", "deploy"],
    }.items():
        assert registration.pop(name) == value
    assert sorted(registration) == ["cwd", "git_root", "pid", "summary", "tty"]
    assert sorted(message) == ["from_id", "qos", "text", "to_id"]
    assert message["qos"] == 0


def test_a_mailbox_of_the_shell_is_refused_with_the_way_out(machine: Machine, broker: Recorded):
    for words in (("subscribe", "--name", "me", "build"), ("inbox", "--name", "me")):
        ran = machine.run(*words)
        assert (ran.returncode, ran.stdout) == (6, "")
        assert OTHERS in ran.stderr and WAY_OUT in ran.stderr
    assert broker.peers == {}


def test_after_its_end_a_session_leads_with_what_it_held_and_what_was_stored(
    machine: Machine, broker: Recorded
):
    session, me = joined(machine, broker, CLAUDE_PEERS_NAME="ours")
    broker.answer("/send-message", {"from_id": "cli", "to_id": me, "text": "held by ours"})
    session.wait_for_push("held by ours")
    other = _their_database(machine)

    broker.close()

    assert machine.wait_for_broker(timeout=10) == session.pid
    assert session.call("check_messages")[0].count("held by ours") == 1
    assert session.call("list_peers")[1] is False
    assert "Name: ours\n" in session.call("whoami")[0]
    assert "stored by theirs" in machine.run("inbox", "--of", other).stdout


def _their_database(machine: Machine) -> str:
    """Write what their broker would have in the database, with unread mail; return for whom."""
    other, stamp = "theirs01", "2026-01-01T00:00:00.000Z"
    database = sqlite3.connect(machine.database)
    database.executescript(
        "CREATE TABLE peers (id TEXT PRIMARY KEY, pid INTEGER NOT NULL, cwd TEXT NOT NULL,"
        " git_root TEXT, tty TEXT, summary TEXT NOT NULL DEFAULT '',"
        " registered_at TEXT NOT NULL, last_seen TEXT NOT NULL);"
        "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, from_id TEXT NOT NULL,"
        " to_id TEXT NOT NULL, text TEXT NOT NULL, sent_at TEXT NOT NULL,"
        " delivered INTEGER NOT NULL DEFAULT 0);"
    )
    pid = machine.bystander().pid
    row = (other, pid, "/w", None, None, "", stamp, stamp)
    database.execute("INSERT INTO peers VALUES (?,?,?,?,?,?,?,?)", row)
    database.execute(
        "INSERT INTO messages (from_id, to_id, text, sent_at) VALUES (?,?,?,?)",
        ("cli", other, "stored by theirs", stamp),
    )
    database.commit()
    database.close()
    return other
