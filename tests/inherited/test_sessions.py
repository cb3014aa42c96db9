"""How sessions of the predecessors failed, by the symptoms that their users saw."""

import json
import os
import socket
import sqlite3
import subprocess

import pytest
from support.machine import Machine, command, free_port, git
from support.waiting import eventually

from claude_peers.host import files
from claude_peers.node.leader import Office
from claude_peers.settings import load

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]


@pytest.mark.bug("U1", "B4-3")
def test_a_message_that_was_pushed_to_a_client_that_ignores_it_is_still_unread(machine: Machine):
    reader, writer = machine.session(), machine.session()
    me = machine.peer_id(reader)
    machine.peer_id(writer)

    told, bad = writer.call("send_message", to_id=me, message="seen by nobody")
    reader.wait_for_push("seen by nobody")

    assert not bad, told
    assert "seen by nobody" in machine.run("inbox", "--of", me).stdout
    assert reader.call("check_messages")[0].count("seen by nobody") == 1
    assert reader.call("check_messages")[0].startswith("No new messages")


@pytest.mark.bug("U7")
def test_a_session_whose_output_nobody_reads_any_more_is_the_broker_all_the_same(machine: Machine):
    machine.environ |= {
        "OPENAI_API_KEY": "none",  # makes it announce on stderr where a summary comes from
        "OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}",
        "CLAUDE_PEERS_SUMMARY": "auto",
    }
    git("init", "--quiet", cwd=machine.work)
    git("commit", "--quiet", "--allow-empty", "-m", "x", cwd=machine.work)
    reading, writing = os.pipe()
    session = subprocess.Popen(
        command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writing,
        env=machine.environment(), cwd=machine.work,
    )  # fmt: skip
    machine.processes.append(session)
    os.close(writing)
    os.close(reading)
    assert session.stdin is not None and session.stdout is not None
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x"}}
    for number, method in enumerate(("initialize", "prompts/list")):
        line = {"jsonrpc": "2.0", "id": number, "method": method, "params": hello}
        session.stdin.write(json.dumps(line).encode() + b"\n")
        session.stdin.flush()
        answer = json.loads(session.stdout.readline())
        assert (answer["id"], "result" in answer) == (number, True), answer

    assert machine.wait_for_broker() == session.pid
    eventually(lambda: [each["summary"] for each in machine.peers()] != [""], what="a summary")
    session.stdin.close()
    assert session.wait(10) == 0
    session.stdout.close()


@pytest.mark.bug("U8")
def test_the_handshake_is_answered_although_whoever_has_the_port_says_nothing(machine: Machine):
    with socket.create_server(("127.0.0.1", machine.port)):
        session = machine.session(handshake=False)
        session.initialize()
        assert session.list_tools()
    assert machine.wait_for_broker() == session.pid


@pytest.mark.bug("U14")
def test_sessions_in_two_work_trees_see_each_other_in_their_repository(machine: Machine):
    main, side = machine.folder("main"), machine.work / "side"
    git("init", "--quiet", cwd=main)
    git("commit", "--quiet", "--allow-empty", "-m", "x", cwd=main)
    git("worktree", "add", "--quiet", "-b", "side", str(side), cwd=main)
    here, there, apart = (machine.session(cwd=each) for each in (main, side, machine.folder("z")))
    ids = [machine.peer_id(each) for each in (here, there, apart)]

    listed = here.call("list_peers", scope="repo")[0]

    assert [each in listed for each in ids] == [False, True, False]


@pytest.mark.bug("P1")
def test_the_broker_that_a_variable_names_is_the_one_that_is_used(machine: Machine):
    machine.serve()
    named = {"CLAUDE_PEERS_BROKER_URL": f"http://127.0.0.1:{machine.port}"}
    usual = {**named, "CLAUDE_PEERS_PORT": str(free_port())}

    session = machine.session(**usual)
    session.list_prompts()

    assert machine.peer_id(session) in session.call("whoami")[0]
    assert str(session.pid) in machine.run("peers", **usual).stdout


@pytest.mark.bug("U23")
@pytest.mark.anyio
async def test_who_does_not_get_the_port_leaves_the_database_as_it_is(machine: Machine):
    settings = load(machine.environment())
    files.private_folder(settings.state_folder)

    def office() -> Office:
        secret = files.secret(settings.state_folder)
        return Office(settings, port=settings.port, secret=secret)

    first = office()
    assert await first.take()
    await first.give_up()
    with sqlite3.connect(machine.database) as database:
        database.execute("CREATE TABLE peers (id TEXT PRIMARY KEY, pid INTEGER)")
        database.execute("INSERT INTO peers VALUES ('upstream', ?)", (2**22 + 1,))
    database.close()
    before = _dump(machine)

    with socket.create_server(("127.0.0.1", settings.port)):
        assert not await office().take()

    assert _dump(machine) == before


def _dump(machine: Machine) -> list[str]:
    database = sqlite3.connect(machine.database)
    try:
        return list(database.iterdump())
    finally:
        database.close()
