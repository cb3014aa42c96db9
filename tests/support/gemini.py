"""Real Gemini CLI, offline: its configuration, its model's API, one turn of it."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

from support.machine import Machine, command
from support.node_tools import gemini
from support.scripted import DONE, Api, Script, Use, offline, serving, sse

PREFIX = "mcp_claude-peers_"
"""What Gemini puts before the names of our tools."""
BOUND = 60
_QUIET = {
    "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
    "privacy": {"usageStatisticsEnabled": False},
    "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
}


class GeminiApi(Api):
    """The Gemini API, as far as Gemini CLI asks for it."""

    def reply(self, path: str, body: dict[str, Any]) -> tuple[str, str] | None:
        """See `Api`."""
        if "enerateContent" not in path:
            return None
        if "streamGenerateContent" not in path:  # which model to take, and other side questions
            choice = json.dumps({"complexity_reasoning": "", "complexity_score": 1})
            return "application/json", json.dumps(_answer({"text": choice}))
        said = list(_parts(body))
        outputs = [each["functionResponse"] for each in said if "functionResponse" in each]
        self.script.texts.append(json.dumps(body["contents"], ensure_ascii=False))
        self.script.offered |= {
            tool["name"].removeprefix(PREFIX)
            for each in body.get("tools", [])
            for tool in each.get("functionDeclarations", [])
            if tool["name"].startswith(PREFIX)
        }
        use = self.script.next([str(each["response"]) for each in outputs])
        return sse(_answer({"text": DONE} if use is None else _call(use)))


def _parts(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for content in body["contents"]:
        yield from content["parts"]


def _call(use: Use) -> dict[str, Any]:
    name = use.tool if use.own else PREFIX + use.tool
    return {"functionCall": {"name": name, "args": use.arguments}}


def _answer(part: dict[str, Any]) -> dict[str, Any]:
    content = {"role": "model", "parts": [part]}
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    candidate = {"content": content, "finishReason": "STOP", "index": 0}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "scripted"}


class Gemini:
    """A user's Gemini CLI.

    Args:
        machine: whose home and folders it has.
    """

    def __init__(self, machine: Machine) -> None:
        self.program = gemini()
        self.machine = machine
        self.settings = machine.home / ".gemini" / "settings.json"
        self.settings.parent.mkdir(exist_ok=True)
        self.work = machine.folder("gemini")

    def configure(self, *, server: bool = True, **more: Any) -> None:
        """Write its settings, with our server if wanted."""
        program, *arguments = command()
        entry = {"command": program, "args": arguments, "trust": True}
        servers = {"claude-peers": entry} if server else {}
        self.settings.write_text(json.dumps({**_QUIET, "mcpServers": servers, **more}))

    def run(self, *words: str, port: int = 9) -> subprocess.CompletedProcess[str]:
        """Run `gemini` to its end, its model on this port."""
        done = subprocess.run(
            [*self.program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            cwd=self.work, env=self.environ(port), timeout=BOUND, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    def start(self, port: int) -> subprocess.Popen[bytes]:
        """Start one turn, and leave its end to the machine."""
        with (self.machine.root / "gemini.log").open("ab") as log:
            process = subprocess.Popen(
                [*self.program, "-p", "GO"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.work, env=self.environ(port),
            )  # fmt: skip
        self.machine.processes.append(process)
        return process

    def play(self, script: Script) -> str:
        """Let it do one turn with this model; return everything the model was shown."""
        with serving(GeminiApi, script) as port:
            done = self.run("-p", "GO", port=port)
        shown = script.last()
        assert DONE in done.stdout, done.stderr
        return shown

    def environ(self, port: int) -> dict[str, str]:
        """Return what its process gets, and passes on to our server but for the key."""
        api = {"GEMINI_API_KEY": "none", "GOOGLE_GEMINI_BASE_URL": f"http://127.0.0.1:{port}"}
        # It would start itself again as a child, which it does not take along when it is killed.
        once = {"GEMINI_CLI_NO_RELAUNCH": "true"}
        return offline(self.machine.environment(**api, **once))
