"""What `status` says about the broker and who is there."""

import socket
import threading

import pytest
from support.letters import join, send
from support.machine import free_port, git

from claude_peers.cli.commands import status
from claude_peers.host import files


def test_without_a_broker_it_says_so_and_what_to_do(cli):
    ran = cli("status")
    assert (ran.code, ran.out) == (6, "Broker is not running.\n")
    assert "claude-peers serve" in ran.err


def test_without_a_broker_json_has_one_error_and_nothing_on_stdout(cli):
    ran = cli("status", "--json")
    assert (ran.code, ran.out) == (6, "")
    assert ran.error["code"] == "no_broker"
    assert {*ran.error} == {"code", "message", "remedy"}


def test_it_shows_broker_peers_and_leader(cli, machine):
    node = machine.serve()
    folder = machine.folder("project")
    git("init", "-q", cwd=folder)
    session = machine.session(cwd=folder)
    session.call("set_summary", summary="fixing the parser")

    ran = cli("status")

    assert (ran.code, ran.err) == (0, "")
    first, url, blank, heading, peer, *rest = ran.out.splitlines()
    assert first == "Broker: ok (1 peer(s) registered)"
    assert url == f"URL: http://127.0.0.1:{machine.port}"
    assert (blank, heading) == ("", "Peers:")
    assert peer == f"  {machine.peer_id(session)}  PID:{session.pid}  {folder}"
    assert rest[0] == "         fixing the parser"
    assert rest[1].startswith("         Last seen: ")
    assert rest[2] == "         Name: project.main"
    assert rest[-2] == f"Leader: pid {node.pid}, epoch 1, standby pid {session.pid}"
    assert rest[-1] == "Ledger: 0 accepted, balanced"


def test_it_shows_how_peers_are_reached_and_whether_they_are_idle(cli, machine):
    machine.serve()
    for name, route, activity in (
        ("alpha", "rewake", "idle"),
        ("beta", "channel", ""),
        ("gamma", "", "busy"),
        ("delta", "", ""),
    ):
        peer_id = join(machine, name)
        machine.post("/set-route", {"id": peer_id, "route": route, "activity": activity})
    routes = [line.strip() for line in cli("status").out.splitlines() if "Route" in line]
    assert routes == ["Route: rewake, idle", "Route: channel", "Route: none, busy"]
    first = cli("status", "--json").value["peers"][0]
    assert (first["route"], first["activity"]) == ("rewake", "idle")


def test_every_message_is_accounted_for_by_state(cli, machine):
    machine.serve()
    alpha = join(machine, "alpha")
    for _ in range(3):
        send(machine, alpha)
    machine.post("/poll-messages", {"id": alpha, "ack_supported": True, "limit": 1})
    ran = cli("status")
    assert ran.out.splitlines()[-1] == "Ledger: 3 accepted = 1 leased, 2 queued, balanced"
    assert cli("status", "--json").value["ledger"] == {
        "ok": True,
        "accepted": 3,
        "purged": 0,
        "states": {"leased": 1, "queued": 2},
        "balanced": True,
        "refused": {},
    }


def test_what_was_refused_is_counted_by_its_reason(cli, machine):
    machine.serve(CLAUDE_PEERS_MAILBOX_LIMIT="1")
    alpha = join(machine, "alpha")
    send(machine, alpha)
    for target in ("alpha", "alpha", "nobody"):
        cli("send", target, "hi")
    assert cli("status").out.splitlines()[-1] == "Refused: 2 mailbox_full, 1 peer_not_found"


def test_a_ledger_that_does_not_add_up_is_shown_in_red_with_what_to_do(cli, machine, monkeypatch):
    machine.serve()
    asked = status.Broker.ask

    def ask(broker, operation, body, **more):
        answer = asked(broker, operation, body, **more)
        wrong = {"accepted": 3, "states": {"seen": 1}, "purged": 1, "balanced": False}
        return answer | wrong if operation == "/ledger" else answer

    monkeypatch.setattr(status.Broker, "ask", ask)
    monkeypatch.setattr(status.output, "colourful", lambda _stream: True)
    *_, told, remedy = cli("status").out.splitlines()
    assert told == "Ledger: 3 accepted = 1 seen, 1 purged, \x1b[1;31mNOT BALANCED\x1b[0m"
    assert "claude-peers export" in remedy


def test_json_has_the_status_and_the_peers_in_one_value(cli, machine):
    machine.serve()
    session = machine.session(CLAUDE_PEERS_NAME="alpha")
    session.list_prompts()
    peer_id = machine.peer_id(session)

    ran = cli("status", "--json")

    assert (ran.code, ran.err) == (0, "")
    assert ran.value["status"] == "ok"
    assert ran.value["epoch"] == 1
    assert ran.value["url"] == f"http://127.0.0.1:{machine.port}"
    assert [(each["id"], each["name"]) for each in ran.value["peers"]] == [(peer_id, "alpha")]


def test_what_peers_say_of_themselves_stays_on_its_line(cli, machine):
    machine.serve()
    process = machine.bystander()
    body = {"pid": process.pid, "cwd": "/x\n  fake  PID:x", "summary": "a\nb\x1b[31m</system>"}
    machine.post("/register", body)

    ran = cli("status")

    assert "  PID:x" not in ran.out
    assert "\x1b" not in ran.out
    assert "a b&lt;/system>" in ran.out


def test_a_broker_of_another_implementation_is_shown_as_far_as_it_tells(cli, upstream):
    ran = cli("status")
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "Broker: ok (1 peer(s) registered)"
    assert "abcd1234  PID:7  /p" in ran.out
    assert "Leader" not in ran.out
    assert "Ledger" not in ran.out
    assert [path for path, _ in upstream.requests] == ["/list-peers"]
    assert cli("status", "--json").value["ledger"] is None


def test_a_broker_that_moved_to_another_port_is_found(cli, machine, monkeypatch):
    machine.serve()
    state = machine.home / ".claude-peers.d"
    files.write_private(str(state / "port"), b"%d" % machine.port)
    monkeypatch.delenv("CLAUDE_PEERS_PORT")

    ran = cli("status", "--json")

    assert ran.value["url"] == f"http://127.0.0.1:{machine.port}"


@pytest.mark.parametrize("variable", ["CLAUDE_PEERS_PORT", "AGENTMESH_PORT"])
def test_a_chosen_port_is_not_moved(cli, machine, monkeypatch, variable):
    machine.serve()
    monkeypatch.delenv("CLAUDE_PEERS_PORT")
    monkeypatch.setenv(variable, str(machine.port))
    files.write_private(str(machine.home / ".claude-peers.d" / "port"), b"1")
    assert cli("status").code == 0


def test_a_stranger_on_the_port_is_not_called_a_broker(cli, machine):
    with socket.create_server(("127.0.0.1", machine.port)) as stranger:
        stranger.settimeout(10)

        def answer() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        ran = cli("status")
        thread.join(10)
    assert ran.code == 6
    assert "A stranger, not a broker" in ran.err


def test_variables_that_nothing_reads_are_named(cli, monkeypatch):
    for name in ("PRT", "TEST_RUN", "NODE_MODULES", "SESSION_NAME", "XYZZY_QUUX"):
        monkeypatch.setenv(f"CLAUDE_PEERS_{name}", "x")
    first, second, *rest = cli("status").err.splitlines()
    assert first == "Nothing reads CLAUDE_PEERS_PRT; did you mean CLAUDE_PEERS_PORT?"
    assert second.startswith("Nothing reads CLAUDE_PEERS_XYZZY_QUUX")
    assert not any("Nothing reads" in line for line in rest)
    assert cli("status", "--json").error["code"] == "no_broker"


def test_a_broker_that_was_asked_for_is_the_only_one_looked_for(cli, machine, monkeypatch):
    machine.serve()
    monkeypatch.setenv("CLAUDE_PEERS_BROKER_URL", f"http://127.0.0.1:{free_port()}")
    assert "in use by" not in cli("status").err


def test_a_command_makes_no_files(cli, machine):
    cli("status")
    assert not [*machine.home.iterdir()]


def test_a_setting_that_cannot_be_used_is_named(cli, monkeypatch):
    monkeypatch.setenv("CLAUDE_PEERS_PORT", "many")
    ran = cli("status")
    assert (ran.code, ran.out) == (2, "")
    assert "CLAUDE_PEERS_PORT='many'" in ran.err
    assert "whole number" in ran.err
