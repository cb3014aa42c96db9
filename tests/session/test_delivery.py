"""A served session whose client swallows pushes, calls hooks, cancels and runs sub-agents."""

import json
import re
import signal

import pytest
from support.agents import shown
from support.waiting import eventually

FACES = ["own", "sdk"]
TOOL_USE = "claudecode/toolUseId"
SILENT = "{}"


@pytest.fixture
def alpha(machine):
    """Return a registered session that sends, and leads."""
    session = machine.session(CLAUDE_PEERS_NAME="alpha")
    session.call("whoami")
    return session


@pytest.fixture(params=FACES)
def beta(machine, alpha, request):
    """Return a registered session that is sent to, by each face in turn."""
    session = machine.session(CLAUDE_PEERS_NAME="beta", CLAUDE_PEERS_MCP=request.param)
    session.call("whoami")
    return session


def fields(event, **given):
    """Return a hook's arguments as Claude Code fills them in."""
    empty = dict.fromkeys(("session_id", "cwd", "agent_id", "tool_use_id", "prompt"), "")
    return {**empty, "event": event, **given}


def hook(session, event, **given):
    """Call a hook; return its answer."""
    text, failed = session.call("hook", **fields(event, **given))
    assert not failed
    return text


def context(answer):
    """Return what an answer puts into the agent's context, "" if nothing."""
    told = json.loads(answer)
    return told["hookSpecificOutput"]["additionalContext"] if told else ""


def call(session, tool, tool_use, **given):
    """Call a tool as the model does."""
    params = {"name": tool, "arguments": given, "_meta": {TOOL_USE: tool_use}}
    return session.outcome(session.ask("tools/call", params))[0]


def states(machine):
    ledger = machine.post("/ledger", {})
    assert ledger["balanced"]
    return {state: count for state, count in ledger["states"].items() if count}


def send(alpha, *texts):
    for text in texts:
        assert not alpha.call("send_message", to_id="beta", message=text)[1]


# Pushes that nobody sees


@pytest.mark.parametrize("push", ["auto", "channel"])
def test_a_client_that_swallows_every_push_gets_each_message_by_asking_once(machine, alpha, push):
    gamma = machine.session(CLAUDE_PEERS_NAME="beta", CLAUDE_PEERS_PUSH=push)
    gamma.call("whoami")
    texts = [f"[{number:02d}] for you" for number in range(20)]
    send(alpha, *texts)
    gamma.wait_for_push(texts[-1])
    if push == "auto":
        assert states(machine) == {"queued": 20}
    else:
        eventually(lambda: states(machine) == {"pushed": 20})
    results = []
    while (text := gamma.call("check_messages")[0]) != "No new messages.":
        results.append(text)
    found = re.findall(r"\[\d\d\] for you", "".join(results))
    assert found == texts
    eventually(lambda: states(machine) == {"seen": 20})


def test_calls_side_by_side_show_each_message_once(machine, alpha, beta):
    texts = [f"[{number:02d}] for you" for number in range(30)]
    for start in range(0, 30, 5):
        send(alpha, *texts[start : start + 5])
        tools = ("check_messages", "list_peers", "check_messages", "whoami")
        for number in [beta.ask_tool(tool) for tool in tools]:
            beta.outcome(number)
    while beta.call("check_messages")[0] != "No new messages.":
        pass
    assert [shown(beta, text) for text in texts] == [1] * 30
    eventually(lambda: states(machine) == {"seen": 30})


# Piggyback


def test_a_result_that_was_cancelled_is_no_evidence_and_its_mail_comes_again(machine, alpha, beta):
    send(alpha, "hello")
    beta.wait_for_push("hello")
    alpha.kill(signal.SIGSTOP)  # the broker answers later
    number = beta.ask_tool("list_peers")
    beta.notify("notifications/cancelled", {"requestId": number})
    beta.request("ping")
    alpha.kill(signal.SIGCONT)
    assert "hello" in beta.call("list_peers")[0]
    eventually(lambda: states(machine) == {"seen": 1})
    assert shown(beta, "hello") == 1


def test_a_message_that_expired_is_not_shown_any_more(machine, alpha, beta):
    to_id = machine.peer_id(beta)
    letter = {"from_id": "cli", "to_id": to_id, "text": "brief", "ttl_ms": 1}
    assert machine.post("/send-message", letter)["ok"]
    beta.wait_for_push("brief")
    assert "unread" not in beta.call("list_peers")[0]
    assert shown(beta, "brief") == 0


# Hooks


@pytest.mark.parametrize("event", ["UserPromptSubmit", "PostToolBatch"])
def test_a_hook_brings_mail_in_one_block_and_the_next_call_is_the_evidence(
    machine, alpha, beta, event
):
    assert hook(beta, event) == SILENT
    send(alpha, "hello")
    eventually(lambda: "hello" in (answer := hook(beta, event)) and len(answer) < 9_500)
    answers = [each["result"] for each in beta.received if "result" in each]
    blocks = [each["content"] for each in answers if "hello" in json.dumps(each)]
    assert [len(each) for each in blocks] == [1]
    eventually(lambda: states(machine) == {"pushed": 1})
    assert hook(beta, event) == SILENT
    eventually(lambda: states(machine) == {"seen": 1})
    assert beta.call("check_messages")[0] == "No new messages."


def test_a_tool_call_is_evidence_for_what_a_hook_told_before(machine, alpha, beta):
    hook(beta, "UserPromptSubmit")
    send(alpha, "hello")
    eventually(lambda: "hello" in hook(beta, "PostToolBatch"))
    assert "hello" not in call(beta, "list_peers", "toolu_1")
    eventually(lambda: states(machine) == {"seen": 1})


def test_a_hook_that_is_cancelled_before_its_answer_is_written_gives_its_mail_back(machine, alpha):
    beta = machine.session(CLAUDE_PEERS_NAME="beta")
    beta.call("whoami")
    hook(beta, "UserPromptSubmit")
    send(alpha, "hello")
    beta.kill(signal.SIGSTOP)
    number = beta.ask_tool("hook", **fields("PostToolBatch"))
    beta.notify("notifications/cancelled", {"requestId": number})
    beta.kill(signal.SIGCONT)
    beta.request("ping")
    assert number not in beta._answers
    eventually(lambda: "hello" in hook(beta, "PostToolBatch"))
    assert shown(beta, "hello") == 1


@pytest.mark.parametrize("tool", ["list_peers", "check_messages"])
def test_a_hook_that_is_cancelled_after_its_answer_was_written_gives_its_mail_back(
    machine, alpha, beta, tool
):
    hook(beta, "UserPromptSubmit")
    send(alpha, "hello")

    def answered():
        number = beta.ask_tool("hook", **fields("PostToolBatch"))
        return number if "hello" in beta.outcome(number)[0] else None

    beta.notify("notifications/cancelled", {"requestId": eventually(answered)})
    assert "hello" in call(beta, tool, "toolu_1")
    eventually(lambda: states(machine) == {"seen": 1})
    assert beta.call("check_messages")[0] == "No new messages."


def test_a_hook_is_answered_while_another_call_waits(machine, alpha, beta):
    waiting = beta.ask_tool("wait_for_message", timeout_s=60)
    assert hook(beta, "PreToolUse", tool_use_id="toolu_1") == SILENT
    assert hook(beta, "PostToolBatch", agent_id="a1") == SILENT
    assert waiting not in beta._answers
    send(alpha, "hello")
    assert "hello" in beta.outcome(waiting)[0]
    assert hook(beta, "PostToolBatch") == SILENT


@pytest.mark.parametrize("event", ["UserPromptSubmit", "PostToolBatch", "PreToolUse", "Stop"])
@pytest.mark.parametrize("face", FACES)
def test_a_hook_is_answered_where_a_setting_is_wrong(machine, event, face):
    session = machine.session(CLAUDE_PEERS_PORT="many", CLAUDE_PEERS_MCP=face)
    assert hook(session, event, session_id="s-1", agent_id="a", tool_use_id="t") == SILENT


@pytest.mark.parametrize("face", FACES)
def test_a_hook_is_answered_before_there_is_a_broker(machine, face):
    # A broker of that address is never started, so there is none to register with.
    url = f"http://127.0.0.1:{machine.port}"
    session = machine.session(CLAUDE_PEERS_BROKER_URL=url, CLAUDE_PEERS_MCP=face)
    assert hook(session, "UserPromptSubmit", session_id="s-1", prompt="go") == SILENT
    assert hook(session, "PostToolBatch") == SILENT


def test_where_pushes_are_off_hooks_are_silent(machine, alpha):
    beta = machine.session(CLAUDE_PEERS_NAME="beta", CLAUDE_PEERS_PUSH="off")
    beta.call("whoami")
    send(alpha, "hello")
    assert hook(beta, "PostToolBatch") == SILENT
    eventually(lambda: "hello" in beta.call("list_peers")[0])


# Sub-agents


@pytest.mark.parametrize("tool", ["check_messages", "wait_for_message"])
def test_a_sub_agent_only_peeks_and_the_main_agent_still_gets_the_mail(machine, alpha, beta, tool):
    send(alpha, "hello")
    beta.wait_for_push("hello")
    assert hook(beta, "PreToolUse", agent_id="a1", tool_use_id="toolu_1") == SILENT
    assert "hello" in call(beta, tool, "toolu_1")
    assert states(machine) == {"queued": 1}
    assert hook(beta, "PostToolBatch", agent_id="a1") == SILENT
    assert hook(beta, "PreToolUse", tool_use_id="toolu_2") == SILENT
    assert "hello" in call(beta, "check_messages", "toolu_2")
    eventually(lambda: states(machine) == {"seen": 1})


def test_a_sub_agents_result_brings_no_mail_along(machine, alpha, beta):
    send(alpha, "hello")
    beta.wait_for_push("hello")
    hook(beta, "PreToolUse", agent_id="a1", tool_use_id="toolu_1")
    assert "hello" not in call(beta, "list_peers", "toolu_1")
    assert "hello" in call(beta, "list_peers", "toolu_2")


def test_no_prompt_is_logged(machine, alpha):
    beta = machine.session("--verbose", CLAUDE_PEERS_NAME="beta")
    beta.call("whoami")
    hook(beta, "UserPromptSubmit", prompt="canary-prompt")
    send(alpha, "hello")
    eventually(lambda: "hello" in hook(beta, "UserPromptSubmit", prompt="canary-prompt"))
    beta.close()
    logs = "".join(each.read_text() for each in machine.home.rglob("*.log*"))
    assert "canary-prompt" not in logs + beta.stderr
    stored = b"".join(each.read_bytes() for each in machine.home.glob(".claude-peers.db*"))
    assert b"canary-prompt" not in stored
