"""A toy peers server, files in place of a broker, which shows a fault on demand.

By it the harness proves that it notices. argv[1] is the fault, or ok.
"""

import json
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

TOOLS = ("set_summary", "list_peers", "send_message", "check_messages")
FAULT = sys.argv[1]
FOLDER = Path(os.environ["CLAUDE_PEERS_DB"] + ".d")
ME = uuid.uuid4().hex[:8]


def put(kind: str, text: str) -> None:
    name = f"{kind}-{time.time_ns()}-{uuid.uuid4().hex}"
    draft = FOLDER / f"draft-{name}"
    draft.write_text(text)
    draft.rename(FOLDER / name)


def take(kind: str) -> list[str]:
    found = sorted(FOLDER.glob(f"{kind}-*"))
    texts = [each.read_text() for each in found] * (2 if FAULT == "twice" else 1)
    for each in found:
        each.unlink()
    return texts


def push() -> None:
    while True:
        time.sleep(0.1)
        for text in take(f"push-{ME}"):
            params = {"content": text, "meta": {"from_id": "x"}}
            write({"jsonrpc": "2.0", "method": "notifications/claude/channel", "params": params})


def write(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def call(name: str, arguments: dict[str, str]) -> str:
    match name:
        case "set_summary":
            (FOLDER / f"peer-{ME}").write_text(arguments["summary"])
            return "Summary updated"
        case "list_peers":
            others = [each for each in FOLDER.glob("peer-*") if each.name != f"peer-{ME}"]
            return "\n\n".join(f"ID: {each.name[5:]}\n  {each.read_text()}" for each in others)
        case "send_message":
            to_id = arguments["to_id"] if FAULT != "misroute" else ME
            kind = "push" if "PUSH" in arguments["message"] else "mail"
            if FAULT != "lossy":
                put(f"{kind}-{to_id}", arguments["message"])
            return "Message sent"
        case _:
            return "\n".join(take(f"mail-{ME}")) or "No new messages."


def result(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    match method:
        case "initialize":
            return {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}, "experimental": {"claude/channel": {}}},
                "serverInfo": {"name": "toy", "version": "0"},
            }
        case "server/discover" if FAULT == "modern":
            versions = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            return {"resultType": "complete", **versions}
        case "tools/list":
            schema = {"type": "object", "properties": {}}
            return {"tools": [{"name": name, "inputSchema": schema} for name in TOOLS]}
        case "tools/call":
            text = call(params["name"], params.get("arguments") or {})
            return {"content": [{"type": "text", "text": text}], "isError": FAULT == "error"}
        case _:
            return None


def answer(request: dict[str, Any]) -> None:
    if "id" not in request:
        return
    found = result(request["method"], request.get("params") or {})
    error = {"code": -32601, "message": "Method not found"}
    body = {"error": error} if found is None else {"result": found}
    write({"jsonrpc": "2.0", "id": request["id"], **body})


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    if FAULT == "orphan" and os.fork() == 0:
        os.setsid()
        for number in (0, 1, 2):
            os.close(number)
        time.sleep(60)
        os._exit(0)
    threading.Thread(target=push, daemon=True).start()
    for line in sys.stdin:
        answer(json.loads(line))


if __name__ == "__main__":
    main()
