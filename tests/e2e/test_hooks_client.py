"""A real Claude Code takes the settings file that we wrote, and does what our hooks say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.stub_api import KEY, Model, blocks, say, serve, shown
from support.machine import Machine, command
from support.node_tools import claude

from claude_peers.wire import hooks

SERVER = Path(__file__).with_name("hooked_server.py")
SAID = 'HOOK-SAYS <b> "quoted" Jürgen \U0001f389'


class Caller(Model):
    """Calls our tool once, then is content."""

    def turn(self, who: int, body: dict[str, Any]) -> list[dict[str, Any]]:
        if any(block["type"] == "tool_result" for _, block in blocks(body)):
            return say("done")
        call = {"type": "tool_use", "id": "toolu_1", "name": "mcp__claude-peers__ping"}
        return [{**call, "input": {}}]


@pytest.fixture
def model():
    played = Caller()
    server = serve(played)
    played.port = server.server_port
    yield played
    server.shutdown()
    server.server_close()


def environment(machine: Machine, program: str, model: Caller) -> dict[str, str]:
    """Return an environment in which `claude` is this program, offline."""
    (machine.folder("bin") / "claude").symlink_to(program)
    return machine.environment(
        ANTHROPIC_API_KEY=f"{KEY}0",
        ANTHROPIC_BASE_URL=f"http://127.0.0.1:{model.port}",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        CLAUDE_CODE_TMPDIR=str(machine.folder("tmp")),
        DISABLE_AUTOUPDATER="1",
        PATH=os.pathsep.join((str(machine.folder("bin")), os.environ["PATH"])),
    )


def run(words: list[str], environ: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environ,
        cwd=folder,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
def test_claude_takes_the_file_calls_our_tool_and_does_not_wait(machine, model):
    program = claude()
    environ = environment(machine, program, model)
    folder, marker, notes = machine.folder("project"), machine.root / "marker", machine.root / "n"
    mine = {"type": "command", "command": f'printf %s "$FROM_SETTINGS" >"{marker}"'}
    file = machine.home / ".claude" / "settings.json"
    file.parent.mkdir()
    settings = {"env": {"FROM_SETTINGS": "yes"}, "hooks": {"SessionStart": [{"hooks": [mine]}]}}
    file.write_text(json.dumps(settings, indent=2))

    installed = json.loads(run([*command(), "hooks", "install", "--json"], environ, folder))
    version = hooks.version(run([program, "--version"], environ, folder))
    assert version is not None
    assert installed["claude_version"] == ".".join(map(str, version))

    answer = hooks.context("PostToolBatch", SAID)
    server = {"command": sys.executable, "args": [str(SERVER), str(notes), answer]}
    configuration = json.dumps({"mcpServers": {"claude-peers": server}})
    options = ["--mcp-config", configuration, "--strict-mcp-config"]
    allowed = ["--allowedTools", "mcp__claude-peers__ping"]
    assert run([program, "-p", "go", *options, *allowed], environ, folder) == "done\n"

    # One entry that it did not know would have voided all of the file, the user's part as well.
    assert marker.read_text() == "yes"
    calls = [json.loads(line) for line in notes.read_text().splitlines()]
    called = [call["arguments"].get("event", call["name"]) for call in calls]
    everything = ["UserPromptSubmit", "PreToolUse", "ping", "PostToolBatch"]
    assert called == (everything if version >= hooks.EVERYTHING else ["ping"])
    if version >= hooks.EVERYTHING:
        assert {call["name"] for call in calls} == {hooks.TOOL, "ping"}
        assert calls[0]["arguments"]["prompt"] == "go"
        assert calls[1]["arguments"]["tool_use_id"] == "toolu_1"
        assert SAID in shown(model.bodies(0)[-1])
