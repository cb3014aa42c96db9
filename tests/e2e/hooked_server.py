"""An MCP server that notes how its tools are called.

argv[1] is the file for the notes, argv[2] what its tool `hook` says after tools were used.
"""

import json
import sys
from pathlib import Path
from typing import Any


def result(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """Return the answer to a request, None if it is not understood."""
    match method:
        case "initialize":
            return {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "hooked", "version": "0"},
            }
        case "tools/list":
            schema = {"type": "object", "properties": {}}
            return {"tools": [{"name": "ping", "inputSchema": schema}]}
        case "tools/call":
            with Path(sys.argv[1]).open("a", encoding="utf-8") as notes:
                notes.write(json.dumps(params) + "\n")
            batch = params["arguments"].get("event") == "PostToolBatch"
            text = "pong" if params["name"] == "ping" else sys.argv[2] if batch else "{}"
            return {"content": [{"type": "text", "text": text}]}
    return None


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        found = result(request["method"], request.get("params", {}))
        unknown = {"error": {"code": -32601, "message": "unknown"}}
        answer = unknown if found is None else {"result": found}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}), flush=True)
