"""Real Codex, offline: its configuration, its model's API (OpenAI Responses), one turn of it."""

import json
import subprocess
from pathlib import Path
from typing import Any

from support.machine import Machine, command
from support.node_tools import codex
from support.scripted import DONE, Api, Script, Use, offline, serving, sse

NAMESPACE = "mcp__claude_peers"
"""What Codex makes of our server's name: our tools lie under it."""
BOUND = 60
_CONFIG = """\
model = "scripted"
model_provider = "scripted"
check_for_update_on_startup = false
[analytics]
enabled = false
[model_providers.scripted]
name = "scripted"
base_url = "http://127.0.0.1:{port}/v1"
wire_api = "responses"
"""
_SERVER = """\
[mcp_servers.claude-peers]
command = {command}
args = {arguments}
[mcp_servers.claude-peers.env]
CLAUDE_PEERS_PORT = "{port}"
"""


class ResponsesApi(Api):
    """The OpenAI Responses API, as far as Codex asks for it."""

    def reply(self, path: str, body: dict[str, Any]) -> tuple[str, str] | None:
        """See `Api`."""
        if not path.endswith("/responses"):
            return None
        said = body["input"]
        outputs = [each["output"] for each in said if each["type"] == "function_call_output"]
        self.script.texts.append(json.dumps(said, ensure_ascii=False))
        for tool in body.get("tools", []):
            if tool.get("name") == NAMESPACE:
                self.script.offered |= {each["name"] for each in tool["tools"]}
        item = self._item(self.script.next([_flat(each) for each in outputs]), len(outputs))
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        return sse(
            {"type": "response.created", "response": {"id": "r"}},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": {"id": "r", "usage": usage}},
        )

    def _item(self, use: Use | None, number: int) -> dict[str, Any]:
        if use is None:
            said = [{"type": "output_text", "text": DONE}]
            return {"type": "message", "id": "m", "role": "assistant", "content": said}
        name = {"name": use.tool} if use.own else {"name": use.tool, "namespace": NAMESPACE}
        call = {"id": f"fc_{number}", "call_id": f"call_{number}"}
        return {"type": "function_call", **call, **name, "arguments": json.dumps(use.arguments)}


def _flat(output: Any) -> str:
    if isinstance(output, str):
        return output
    return "\n".join(str(each.get("text", "")) for each in output)


class Codex:
    """A user's Codex.

    Args:
        machine: whose home and folders it has.
    """

    def __init__(self, machine: Machine) -> None:
        self.program = codex()
        self.machine = machine
        self.home = machine.home / ".codex"
        self.home.mkdir(exist_ok=True)
        self.work = machine.folder("codex")

    def configure(self, port: int = 9, *, server: bool = True) -> None:
        """Write its configuration: a model on this port and, if wanted, our server."""
        program, *arguments = command()
        entry = _SERVER.format(
            command=json.dumps(program), arguments=json.dumps(arguments), port=self.machine.port
        )
        text = _CONFIG.format(port=port) + entry * server
        (self.home / "config.toml").write_text(text)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `codex` to its end."""
        done = subprocess.run(
            [self.program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            cwd=self.work, env=self.environ, timeout=BOUND, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start one turn, and leave its end to the machine."""
        with (self.machine.root / "codex.log").open("ab") as log:
            process = subprocess.Popen(
                [self.program, *self._turn(words)], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, cwd=self.work, env=self.environ,
            )  # fmt: skip
        self.machine.processes.append(process)
        return process

    def play(self, script: Script, *words: str) -> str:
        """Let it do one turn with this model; return everything the model was shown."""
        with serving(ResponsesApi, script) as port:
            self.configure(port)
            done = self.run(*self._turn(words))
        shown = script.last()
        assert DONE in done.stdout, done.stderr
        return shown

    @property
    def environ(self) -> dict[str, str]:
        """What its own process gets; it passes on little of that."""
        return offline(self.machine.environment())

    @staticmethod
    def _turn(words: tuple[str, ...]) -> list[str]:
        return ["exec", "--skip-git-repo-check", "--json", *words, "GO"]


def environ_of(pid: int) -> dict[str, str]:
    """Return the environment a process was started with."""
    raw = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    return dict(each.partition("=")[::2] for each in raw.split("\0") if each)
