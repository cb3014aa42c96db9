"""A session in use: its tool results, its pushes, and what becomes of mail that goes astray."""

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import pytest
from support.machine import command, git
from support.mcp import PUSH, Session
from support.waiting import eventually

from claude_peers import settings
from claude_peers.core.errors import NoBrokerError, StoreError
from claude_peers.session import server

CLIENT = {"name": "d", "version": "1"}
LINE = "1 unread message(s) from other agents: call check_messages."


@pytest.fixture
def pair(machine):
    """Return two registered sessions: the first leads and is called alpha, the other beta."""
    return [enter(machine, name) for name in ("alpha", "beta")]


def enter(machine, name, **environ):
    """Start a session under a name, and wait until it is there."""
    session = machine.session(CLAUDE_PEERS_NAME=name, **environ)
    session.call("whoami")
    return session


def states(machine):
    """Return how many messages are in each state, those that are in any."""
    ledger = machine.post("/ledger", {})
    return {state: count for state, count in ledger["states"].items() if count}


def eventually_states(machine, **wanted):
    eventually(lambda: states(machine) == wanted, what=f"{wanted}, not {states(machine)}")


# Results


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("whoami", {}),
        ("list_peers", {}),
        ("set_summary", {"summary": "x"}),
        ("send_message", {"to_id": "alpha", "message": "back"}),
        ("list_agents", {}),
    ],
)
def test_every_result_brings_unread_mail_whole_and_that_is_evidence(machine, pair, tool, given):
    alpha, beta = pair
    alpha.call("send_message", to_id="beta", message="hi")
    beta.wait_for_push("hi")
    text, failed = beta.call(tool, **given)
    assert not failed
    assert "\nhi\n[end of message 1]" in text
    eventually(lambda: "seen" in states(machine))
    assert "message 1" not in beta.call("whoami")[0]
    assert beta.call("check_messages")[0] == "No new messages."


def test_every_result_tells_of_mail_that_is_too_long_for_it(machine, pair):
    alpha, beta = pair
    alpha.call("send_message", to_id="beta", message="x" * 9_000)
    beta.wait_for_push("x")
    for tool in ("whoami", "list_peers"):
        assert beta.call(tool)[0].endswith(f"\n\n{LINE}")
    assert LINE not in beta.call("check_messages")[0]
    assert "unread message(s) from" not in beta.call("whoami")[0]


def test_mail_that_was_answered_unread_is_not_told_of_for_ever(machine, pair):
    alpha, beta = pair
    alpha.call("send_message", to_id="beta", message="hi")
    number = int(beta.wait_for_push("hi")["meta"]["message_id"])
    beta.call("send_message", to_id="alpha", message="back", reply_to=number)
    assert LINE not in beta.call("check_messages")[0]
    assert LINE not in beta.call("whoami")[0]


def test_a_message_is_seen_once_its_result_is_written(machine, pair):
    alpha, beta = pair
    alpha.call("send_message", to_id="beta", message="hi")
    beta.wait_for_push("hi")
    assert "hi" in beta.call("check_messages")[0]
    eventually_states(machine, seen=1)


def test_an_error_is_a_result_with_its_remedy(machine, pair):
    text, failed = pair[0].call("send_message", to_id="nobody", message="hi")
    assert failed
    assert text == "Peer nobody not found. Call list_peers for current ids and names."


def test_a_line_that_is_too_long_is_refused_and_the_session_goes_on(machine, pair):
    alpha, _ = pair
    alpha.send_line(b"x" * (8 * 1024 * 1024 + 1))
    assert alpha.answer(None)["error"]["code"] == -32700
    assert alpha.call("whoami")[0].startswith("ID: ")


# Pushes


def test_a_courtesy_copy_changes_no_state(machine, pair):
    alpha, beta = pair
    alpha.call("send_message", to_id="beta", message="hi")
    assert beta.wait_for_push("hi")["meta"]["from_name"] == "alpha"
    assert states(machine) == {"queued": 1}
    assert beta.call("check_messages")[0].endswith("hi")


def test_a_push_over_a_proven_channel_is_marked_and_then_listed_by_its_first_line(machine, pair):
    gamma = enter(machine, "gamma", CLAUDE_PEERS_PUSH="channel")
    pair[0].call("send_message", to_id="gamma", message="first\nsecond")
    gamma.wait_for_push("second")
    eventually_states(machine, pushed=1)
    text, _ = gamma.call("check_messages")
    assert "first\n(pushed to you before" in text
    assert "second" not in text
    eventually_states(machine, seen=1)
    assert gamma.call("check_messages", full=True)[0].endswith("first\nsecond")


def test_a_preview_over_a_proven_channel_is_not_the_message(machine, pair):
    gamma = enter(machine, "gamma", CLAUDE_PEERS_PUSH="channel")
    text = "first\n" + "x" * 20_000 + "\nlast"
    pair[0].call("send_message", to_id="gamma", message=text)
    assert "[cut: " in gamma.wait_for_push("first")["content"]
    eventually_states(machine, pushed=1)
    assert gamma.call("check_messages")[0].endswith(text)


def test_pushes_can_be_turned_off(machine, pair):
    gamma = enter(machine, "gamma", CLAUDE_PEERS_PUSH="off")
    pair[0].call("send_message", to_id="gamma", message="hi")
    eventually(lambda: "[end of message" in gamma.call("whoami")[0])
    assert gamma.pushes == []


def test_a_message_is_pushed_once_also_after_a_take_over(machine, pair):
    alpha, beta = pair
    gamma = enter(machine, "gamma")
    gamma.call("send_message", to_id="beta", message="before")
    beta.wait_for_push("before")
    assert machine.leader() is alpha
    alpha.kill()
    machine.wait_for_broker(other_than=alpha.pid)
    gamma.call("send_message", to_id="beta", message="after")
    beta.wait_for_push("after")
    assert [push["content"] for push in beta.pushes] == ["before", "after"]
    assert beta.call("check_messages")[0].count("message_id") == 2


@pytest.mark.processes
@pytest.mark.fault("F9")
def test_a_client_that_stops_reading_stops_neither_the_broker_nor_loses_anything(machine):
    machine.environ |= {"CLAUDE_PEERS_RATE_LIMIT_RPM": "0", "CLAUDE_PEERS_MAILBOX_LIMIT": "0"}
    alpha, beta, gamma = (enter(machine, name) for name in ("alpha", "beta", "gamma"))
    assert machine.leader() is alpha
    alpha.stop_reading()
    for number in range(300):
        beta.call("send_message", to_id="alpha", message=f"[{number:03d}]" + "x" * 4096)
    gamma.call("send_message", to_id="beta", message="still here?")
    beta.wait_for_push("still here?")
    alpha.resume_reading()
    seen = []
    while (text := alpha.call("check_messages")[0]) != "No new messages.":
        assert len(text) < 40_000
        seen += [number for number in range(300) if f"[{number:03d}]" in text]
    assert seen == [*range(300)]
    contents = [push["content"] for push in alpha.pushes]
    assert len(contents) == len({*contents})


# Mail that goes astray


def test_a_cancelled_check_gives_its_messages_back(machine, pair):
    alpha, beta = pair
    alpha.call("send_message", to_id="beta", message="hi")
    beta.wait_for_push("hi")
    alpha.kill(signal.SIGSTOP)  # the broker answers later
    number = beta.ask_tool("check_messages")
    beta.notify("notifications/cancelled", {"requestId": number})
    beta.request("ping")
    alpha.kill(signal.SIGCONT)
    # Long before the broker would take it back by itself; if it comes back while the next check is
    # under way, it is shown behind that one's answer.
    eventually(lambda: "\nhi" in beta.call("check_messages")[0])
    assert number not in [each.get("id") for each in beta.received]


def test_mail_in_a_result_that_its_client_never_read_goes_to_the_successor(machine, pair):
    client = Deaf(machine)
    text = client.ask_for_too_much(pair[0])
    eventually_states(machine, leased=1)
    client.process.kill()
    client.close()
    eventually_states(machine, queued=1)
    heir = machine.session(cwd=machine.work, handshake=False, CLAUDE_PEERS_NAME="deaf")
    heir.initialize(client="d")
    assert heir.call("check_messages")[0].endswith(text)
    eventually_states(machine, seen=1)


def test_a_result_that_cannot_be_written_gives_its_messages_back(machine, pair):
    client = Deaf(machine)
    client.ask_for_too_much(pair[0])
    eventually_states(machine, leased=1)
    client.process.stdout.close()
    eventually_states(machine, queued=1)
    client.close()


class Deaf:
    """A client that never reads, and at last closes the pipe that it should have read."""

    def __init__(self, machine) -> None:
        self.machine = machine
        self.process = subprocess.Popen(
            command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=machine.environment(CLAUDE_PEERS_NAME="deaf", CLAUDE_PEERS_PUSH="off"),
            cwd=machine.work,
        )
        machine.processes.append(self.process)
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": CLIENT}
        self.ask("initialize", hello)
        self.ask("prompts/list", {})

    def ask(self, method, params) -> None:
        document = {"jsonrpc": "2.0", "id": method, "method": method, "params": params}
        self.process.stdin.write(json.dumps(document).encode() + b"\n")
        self.process.stdin.flush()

    def ask_for_too_much(self, sender):
        """Ask for a message that fits into no pipe; return it."""
        machine, text = self.machine, "x" * 200_000
        eventually(lambda: "deaf" in [peer["name"] for peer in machine.peers()])
        sender.call("send_message", to_id="deaf", message=text)
        self.ask("tools/call", {"name": "check_messages"})
        return text

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


# Where nothing can work


def everything_says(session, *words):
    for each in session.list_tools():
        given = dict.fromkeys(each["inputSchema"].get("required", ()), "1")
        text, failed = session.call(each["name"], **given)
        assert failed
        assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("CLAUDE_PEERS_PORT", "many", "Use a whole number from 1 to 65535."),
        ("CLAUDE_PEERS_PUSH", "loud", "Use one of auto, rewake, channel, hook, inbox, off."),
        ("CLAUDE_PEERS_MCP", "other", "Use one of own, sdk."),
        ("CLAUDE_PEERS_NAME", "Not A Name", "a letter or digit first."),
    ],
)
def test_a_bad_setting_is_told_by_every_tool_and_nothing_else_breaks(
    machine, variable, value, remedy
):
    session = machine.session(handshake=False, **{variable: value})
    assert session.initialize()["serverInfo"]["name"] == "claude-peers"
    assert session.list_prompts()
    everything_says(session, f"{variable}={value!r}", remedy)
    assert f"{variable}={value!r}" in session.stderr
    assert machine.broker is None
    assert not (machine.home / ".claude-peers.d").exists()


def test_a_folder_that_cannot_be_used_is_told_by_every_tool(machine):
    blocked = machine.home / "file"
    blocked.write_text("")
    session = machine.session(CLAUDE_PEERS_DB=str(blocked / "x.db"))
    everything_says(session, "cannot be used", "CLAUDE_PEERS_DB")


def test_a_missing_sdk_ends_the_session_with_the_remedy(machine):
    shadow = machine.folder("shadow")
    (shadow / "mcp.py").write_text("")
    path = f"{shadow}:{machine.environment().get('PYTHONPATH', '')}"
    session = machine.session(handshake=False, CLAUDE_PEERS_MCP="sdk", PYTHONPATH=path)
    eventually(lambda: session.ended)
    assert "CLAUDE_PEERS_MCP='sdk' cannot be used" in session.stderr
    assert "Install the `mcp` package" in session.stderr


# What is said once


def stderr_of(machine, **environ) -> str:
    session: Session = machine.session(**environ)
    session.call("whoami")
    session.close()
    return Path(session.log).read_text()


@pytest.mark.parametrize("value", ["auto", "openai"])
def test_with_a_key_what_goes_out_is_announced_on_stderr_alone(machine, value):
    told = stderr_of(
        machine,
        CLAUDE_PEERS_SUMMARY=value,
        OPENAI_API_KEY="sk-canary",
        OPENAI_BASE_URL="http://127.0.0.1:1",
    )
    assert told.startswith("claude-peers: OPENAI_API_KEY is set")
    assert told.count("\n") == 1
    assert "sk-canary" not in told


@pytest.mark.parametrize(
    "environ",
    [
        {"CLAUDE_PEERS_SUMMARY": "auto"},
        {"CLAUDE_PEERS_SUMMARY": "openai"},
        {"CLAUDE_PEERS_SUMMARY": "git", "OPENAI_API_KEY": "k"},
        {"CLAUDE_PEERS_SUMMARY": "off", "OPENAI_API_KEY": "k"},
    ],
)
def test_without_a_key_or_a_wish_nothing_is_announced(machine, environ):
    assert stderr_of(machine, **environ) == ""


def test_no_message_text_is_logged(machine, pair):
    alpha, beta = pair
    alpha.call("send_message", to_id="beta", message="canary-text")
    beta.wait_for_push("canary-text")
    beta.call("check_messages")
    for session in pair:
        session.close()
    logs = [*machine.home.rglob("*.log*")]
    assert logs
    assert not [each for each in logs if "canary-text" in each.read_text()]
    assert "canary-text" not in alpha.stderr + beta.stderr


def test_a_push_is_the_only_kind_of_notification(machine, pair):
    alpha, beta = pair
    alpha.call("send_message", to_id="beta", message="hi")
    beta.wait_for_push("hi")
    assert {each["method"] for each in beta.notifications} == {PUSH}


# Before there is a broker, and without a client


@pytest.fixture
async def session(monkeypatch):
    """Return a session in this process, and let it ask a broker that only takes notes."""
    made = server.Session(settings.load({}), begin=lambda: None)
    made.asked = []

    async def call(operation, body):
        made.asked.append((operation, body))
        raise NoBrokerError("There is none", "Start one.")

    monkeypatch.setattr(made.client, "call", call)
    return made


@pytest.mark.anyio
async def test_a_call_waits_for_a_broker_so_long_and_then_explains(session, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.25)
    with pytest.raises(NoBrokerError, match=r"within 0\.25 s, and nothing was sent\. Try again"):
        await session._ready()


@pytest.mark.anyio
async def test_a_call_goes_on_as_soon_as_there_is_a_broker(session):
    waiting = asyncio.ensure_future(session._ready())
    await asyncio.sleep(0)
    assert not waiting.done()
    session.client.registered.set()
    async with asyncio.timeout(5):
        await waiting


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("made", "own", "told"), [("made", False, ["made"]), ("made", True, []), ("", False, [])]
)
async def test_a_first_summary_is_told_unless_the_agent_wrote_one(
    session, monkeypatch, caplog, made, own, told
):
    async def make(_settings, _cwd):
        return made

    monkeypatch.setattr(server.summary, "make", make)
    session.client.registered.set()
    session._member.summarised = own
    session._in_background(session._summarise())
    (task,) = session._tasks
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [body["summary"] for _, body in session.asked] == told
    assert ("background work failed: There is none" in caplog.text) is bool(told)
    assert not session._tasks


def test_the_first_summary_comes_from_git(machine):
    folder = machine.folder("thing")
    git("init", "-q", cwd=folder)
    session = machine.session(cwd=folder, CLAUDE_PEERS_SUMMARY="auto")
    session.call("whoami")
    eventually(lambda: [peer["summary"] for peer in machine.peers()] == ["On main in thing"])
    assert machine.peers()[0]["name"] == "thing.main"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (NoBrokerError("There is none", "Start one."), 3),
        (StoreError("The disk is full", "Free some.", retry_after=1.0), 3),
        (StoreError("It is damaged", "Look at it."), 1),
    ],
    ids=["no broker", "a full disk", "for good"],
)
async def test_what_became_of_mail_is_told_until_the_broker_has_stored_it(
    session, monkeypatch, error, tries
):
    monkeypatch.setattr(server, "REPEATS", (0.0, 0.0))

    async def call(operation, body):
        session.asked.append((operation, body))
        raise error

    monkeypatch.setattr(session.client, "call", call)
    with pytest.raises(type(error)):
        await session._tell("/ack-messages", {"message_ids": [1]})
    assert session.asked == [("/ack-messages", {"message_ids": [1]})] * tries


@pytest.mark.anyio
async def test_what_became_of_mail_is_told_once_where_it_is_stored(session, monkeypatch):
    async def call(operation, body):
        session.asked.append(operation)
        return {"ok": True}

    monkeypatch.setattr(session.client, "call", call)
    await session._tell("/ack-messages", {"message_ids": [1]})
    assert session.asked == ["/ack-messages"]
