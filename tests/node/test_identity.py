"""Who gets which mailbox: real processes, each the parent of its servers.

A session's server is registered under an id and a name, and a message for it lies unread. Then:

| what happens                                                        | the newcomer is  |
|---------------------------------------------------------------------|------------------|
| the server crashes and its client starts it again                   | the same         |
| the client starts it through a shell                                | the same         |
| /clear tells the record another session; server crash               | the same         |
| /clear tells a hook another session; server crash                   | the same         |
| client and server crash; --resume                                   | the same         |
| client and server end; --resume                                     | the same         |
| /clear tells the record; both crash; --resume of the new session    | the same         |
| /clear tells a hook; both crash; --resume of the new session        | the same         |
| a script's server crashes and the script starts it again            | the same         |
| a second terminal resumes the session while it is open              | another, suffix  |
| a program that the agent runs inherits its environment              | another, suffix  |
| the same, and the agent's server has crashed                        | another          |
| both crash; another session in the same directory                   | another          |
| both crash; a script in the same directory, with that environment   | another          |
| another script starts a server in the same directory                | another, suffix  |

Two servers of one running agent share a mailbox: `test_second_server.py`.
"""

import signal
from collections.abc import Callable

import pytest
from support.agents import Agent, Claude, Hosted, identity, shown
from support.machine import Machine
from support.mcp import Session
from support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]
TEXT = "for whoever was here first"
GEMINI = "gemini-cli-mcp-client"
CODEX = "codex-mcp-client"


class Scene:
    """A machine, the agent that was here first, and somebody who writes to it."""

    def __init__(self, machine: Machine, kind: Callable[..., Agent], *given: str) -> None:
        self.machine = machine
        self.sender = machine.session(CLAUDE_PEERS_NAME="sender")
        self.sender.call("whoami")
        self.agent = kind(machine, *given)
        self.server = self.agent.serve()
        self.id, self.name = identity(self.server)

    def send(self, text: str = TEXT) -> None:
        assert not self.sender.call("send_message", to_id=self.id, message=text)[1]

    def crash(self) -> None:
        """Kill the server; its client lives on."""
        self.server.kill(signal.SIGKILL)

    def resume(self, session_id: str) -> Hosted:
        return Claude(self.machine, session_id).serve()


def hook(server: Session, **given: str) -> str:
    """Call the hook tool as Claude Code does."""
    fields = {"session_id": "", "cwd": "", "agent_id": "", "tool_use_id": "", "prompt": ""}
    return server.call("hook", **{**fields, **given})[0]


def keys_change(scene: Scene) -> Callable[[], bool]:
    """Return whether, since the call, the broker has been told of another session."""
    before = keys(scene)
    return lambda: keys(scene) != before


def keys(scene: Scene) -> str:
    """Return the keys that are stored for the first peer."""
    import sqlite3

    database = sqlite3.connect(f"file:{scene.machine.database}?mode=ro", uri=True)
    try:
        rows = database.execute("SELECT * FROM peer WHERE id = ?", (scene.id,)).fetchall()
    finally:
        database.close()
    return str(rows)


# What happens


def server_crash(scene: Scene) -> Hosted:
    scene.crash()
    return scene.agent.serve()


def start_through_a_shell(scene: Scene) -> Hosted:
    scene.crash()
    return scene.agent.serve(shell=True)


def cleared_by_record(scene: Scene) -> None:
    changed = keys_change(scene)
    scene.agent.record("s-2")
    eventually(changed, what="another session's key")


def cleared_by_hook(scene: Scene) -> None:
    changed = keys_change(scene)
    hook(scene.server, event="UserPromptSubmit", session_id="s-2")
    eventually(changed, what="another session's key")


def clear_and_crash(scene: Scene) -> Hosted:
    cleared_by_record(scene)
    return server_crash(scene)


def clear_by_hook_and_crash(scene: Scene) -> Hosted:
    cleared_by_hook(scene)
    return server_crash(scene)


def both_crash(scene: Scene) -> Hosted:
    scene.agent.kill()
    return scene.resume("s-1")


def both_end(scene: Scene) -> Hosted:
    scene.agent.end()
    return scene.resume("s-1")


def clear_and_both_crash(scene: Scene) -> Hosted:
    cleared_by_record(scene)
    scene.agent.kill()
    return scene.resume("s-2")


def clear_by_hook_and_both_crash(scene: Scene) -> Hosted:
    cleared_by_hook(scene)
    scene.agent.kill()
    return scene.resume("s-2")


def second_terminal(scene: Scene) -> Hosted:
    return scene.resume("s-1")


def nested_program(scene: Scene) -> Hosted:
    return scene.agent.serve(client=GEMINI)


def nested_program_after_a_crash(scene: Scene) -> Hosted:
    scene.crash()
    return scene.agent.serve(client=GEMINI)


def another_session(scene: Scene) -> Hosted:
    scene.agent.kill()
    return scene.resume("s-9")


def script_with_that_environment(scene: Scene) -> Hosted:
    scene.agent.kill()
    return Agent(scene.machine, "claude-code", **scene.agent.environ).serve()


def another_script(scene: Scene) -> Hosted:
    return Agent(scene.machine, CODEX).serve()


CLAUDE = (Claude, "s-1")
SCRIPT = (Agent, CODEX)
SAME = [
    (CLAUDE, server_crash),
    (CLAUDE, start_through_a_shell),
    (CLAUDE, clear_and_crash),
    (CLAUDE, clear_by_hook_and_crash),
    (CLAUDE, both_crash),
    (CLAUDE, both_end),
    (CLAUDE, clear_and_both_crash),
    (CLAUDE, clear_by_hook_and_both_crash),
    (SCRIPT, server_crash),
]
OTHER = [
    (CLAUDE, second_terminal),
    (CLAUDE, nested_program),
    (CLAUDE, nested_program_after_a_crash),
    (CLAUDE, another_session),
    (CLAUDE, script_with_that_environment),
    (SCRIPT, another_script),
]


def named(case: object) -> str:
    return case.__name__ if callable(case) else str(case[1])  # type: ignore[index]  # a pair else


@pytest.mark.parametrize(("first", "happens"), SAME, ids=named)
def test_the_same_agent_has_its_id_its_name_and_its_mail_again(machine, first, happens):
    scene = Scene(machine, *first)
    scene.send()
    heir = happens(scene)
    assert identity(heir) == (scene.id, scene.name)
    heir.call("check_messages")
    assert shown(heir, TEXT) == 1
    scene.send("and a new one")
    heir.wait_for_push("and a new one")
    assert balanced(machine)


@pytest.mark.parametrize(("first", "happens"), OTHER, ids=named)
def test_anybody_else_is_a_peer_of_its_own_and_gets_none_of_the_mail(machine, first, happens):
    scene = Scene(machine, *first)
    scene.send()
    stranger = happens(scene)
    number, name = identity(stranger)
    assert number != scene.id
    open_still = scene.server.process.poll() is None
    assert name == f"{scene.name}-2" or not open_still
    stranger.call("check_messages")
    assert shown(stranger, TEXT) == 0
    heir = scene.server if open_still else back(scene)
    heir.call("check_messages")
    assert shown(heir, TEXT) == 1
    assert balanced(machine)


def back(scene: Scene) -> Session:
    """Return the first session, come back beside the stranger."""
    if scene.agent.process.poll() is None:
        return scene.agent.serve()
    return scene.resume("s-1")


def balanced(machine: Machine) -> bool:
    ledger = machine.post("/ledger", {})
    counted = sum(ledger["states"].values()) + ledger["purged"]
    return bool(ledger["balanced"]) and ledger["accepted"] == counted


@pytest.mark.parametrize("client", ["codex-mcp-client", "claude-code"])
def test_ten_sessions_of_one_script_are_ten_peers(machine: Machine, client: str):
    script = Agent(machine, client)
    servers = [script.serve() for _ in range(10)]
    told = [identity(server) for server in servers]
    assert len({number for number, _ in told}) == 10
    assert sorted(name for _, name in told) == sorted(
        ["project", *(f"project-{n}" for n in range(2, 11))]
    )
