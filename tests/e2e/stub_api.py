"""A Messages API on loopback whose model plays a part: it calls our tools in a fixed order.

    1. set_summary   {"summary": "HARNESS-SUMMARY-<i>"}
       (barrier: everybody has a summary)
    2. list_peers    {"scope": "machine"}   -> finds the next client's id in the result
    3. send_message  {"to_id": <id>, "message": "HARNESS-MSG-<i>-TO-<j>"}
       (barrier: everybody has sent)
    4. check_messages {}

A client prompted with HARNESS-SEND-PUSH later sends one message more.
"""

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOOLS = ("set_summary", "list_peers", "send_message", "check_messages")
KEY = "sk-ant-dummy-"
"""The API key's beginning; the client's number follows."""
USAGE = {
    "input_tokens": 10,
    "output_tokens": 10,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
}


class Model:
    """A model that notes what it is asked, and has nothing to say.

    Attributes:
        requests: time, client and body of every request for a reply.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[float, int, dict[str, Any]]] = []

    def reply(self, who: int, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the content blocks of the next reply to client `who`."""
        self.requests.append((time.time(), who, body))
        if not body.get("tools"):
            return say("ok")  # titles and other side requests
        return self.turn(who, body)

    def turn(self, who: int, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the reply within a turn, that is where there are tools to call."""
        del who, body
        return say("?")

    def bodies(self, who: int) -> list[dict[str, Any]]:
        """Return the requests of client `who` that offered tools."""
        return [body for _, client, body in self.requests if client == who and body.get("tools")]


class Script(Model):
    """What the model says to client i, and what it was shown.

    Attributes:
        peer_ids: by client, the id under which it found its neighbour.
        notes: what went wrong on the way.
    """

    def __init__(self, clients: int, server: str, *, timeout: float, settle: float) -> None:
        super().__init__()
        self.clients = clients
        self.server = server
        self.timeout = timeout
        self.settle = settle
        self.peer_ids: dict[int, str] = {}
        self.notes: list[str] = []
        self._everybody = [threading.Barrier(clients), threading.Barrier(clients)]

    def turn(self, who: int, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the next call of the fixed order."""
        calls, results = conversation(body, self.server)
        done = [name for name, _ in calls]
        if len(results) < len(calls):
            return say("HARNESS-LOST-RESULT")
        if not done:
            wanted = "HARNESS-GO" in prompts(body)
            return self._tool("set_summary", summary=summary_of(who)) if wanted else say("?")
        if tuple(done) == TOOLS[: len(done)] and len(done) < len(TOOLS):
            return self._next(who, len(done), results)
        if "HARNESS-SEND-PUSH" in prompts(body) and "send_message" not in done[3:]:
            to_id = self.peer_ids.get(who)
            return self._tool("send_message", to_id=to_id, message="HARNESS-PUSH")
        return say("HARNESS-DONE")

    def _next(self, who: int, step: int, results: list[Any]) -> list[dict[str, Any]]:
        if step == 1:
            self._wait_for_everybody(0, who)
            return self._tool("list_peers", scope="machine")
        if step == 2:
            peer = self._find_neighbour(who, results[-1][1])
            if peer is None:
                self._wait_for_everybody(1, who)
                return self._tool("check_messages")
            self.peer_ids[who] = peer
            return self._tool("send_message", to_id=peer, message=self.message_of(who))
        self._wait_for_everybody(1, who)
        time.sleep(self.settle)
        return self._tool("check_messages")

    def message_of(self, who: int) -> str:
        """Return the text that client `who` sends to its neighbour."""
        return f"HARNESS-MSG-{who}-TO-{(who + 1) % self.clients}"

    def _find_neighbour(self, who: int, listing: str) -> str | None:
        """Return the id nearest before the neighbour's summary in the listing."""
        before, mark, _ = listing.partition(summary_of((who + 1) % self.clients))
        ids = re.findall(r"(?:^|\n)[^\n]*?\bID:\s*`?([A-Za-z0-9_-]+)", before)
        return ids[-1] if mark and ids else None

    def _tool(self, name: str, **arguments: Any) -> list[dict[str, Any]]:
        call = f"toolu_{uuid.uuid4().hex[:20]}"
        name = f"mcp__{self.server}__{name}"
        return [{"type": "tool_use", "id": call, "name": name, "input": arguments}]

    def _wait_for_everybody(self, barrier: int, who: int) -> None:
        try:
            self._everybody[barrier].wait(self.timeout)
        except threading.BrokenBarrierError:
            self.notes.append(f"client {who}: barrier {barrier} broke: a client never got there")


def summary_of(who: int) -> str:
    """Return the summary by which client `who` is found."""
    return f"HARNESS-SUMMARY-{who}"


def say(text: str) -> list[dict[str, Any]]:
    """Return a reply of text."""
    return [{"type": "text", "text": text}]


def flat(content: Any) -> str:
    """Return the text of a message's content, whichever of its two shapes it has."""
    if isinstance(content, str):
        return content
    return "\n".join(each.get("text", "") for each in content or [] if isinstance(each, dict))


def blocks(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield role and block of everything said so far."""
    for message in body.get("messages", []):
        content = message["content"]
        for block in say(content) if isinstance(content, str) else content:
            yield message["role"], block


def conversation(body: dict[str, Any], server: str) -> tuple[list[Any], list[Any]]:
    """Return the calls of our tools, and the results as (tool, text, is it an error)."""
    calls: list[tuple[str, Any]] = []
    results: list[tuple[str, str, bool]] = []
    names: dict[str, str] = {}
    for _, block in blocks(body):
        if block["type"] == "tool_use" and block["name"].startswith(f"mcp__{server}__"):
            names[block["id"]] = block["name"].rpartition("__")[2]
            calls.append((names[block["id"]], block["input"]))
        elif block["type"] == "tool_result" and block.get("tool_use_id") in names:
            text, bad = flat(block.get("content")), bool(block.get("is_error"))
            results.append((names[block["tool_use_id"]], text, bad))
    return calls, results


def prompts(body: dict[str, Any]) -> str:
    """Return what the user said."""
    return "\n".join(block.get("text", "") for role, block in blocks(body) if role == "user")


def shown(body: dict[str, Any]) -> str:
    """Return everything the model was shown, without what it wrote itself."""
    return "\n".join(
        flat(block.get("content")) if block["type"] == "tool_result" else block.get("text", "")
        for role, block in blocks(body)
        if role != "assistant"
    )


def serve(model: Model) -> ThreadingHTTPServer:
    """Start the API on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Api,), {"model": model}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: Model

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        error = {"type": "not_found_error", "message": "stub"}
        self._json(404, {"type": "error", "error": error})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        who = (self.headers.get("x-api-key") or "").removeprefix(KEY)
        if "count_tokens" in self.path:
            self._json(200, {"input_tokens": 10})
        elif self.path.startswith("/v1/messages") and who.isdigit():
            self._reply(int(who), json.loads(raw))
        else:
            self.do_GET()

    def _reply(self, who: int, body: dict[str, Any]) -> None:
        content = self.model.reply(who, body)
        calls = any(block["type"] == "tool_use" for block in content)
        stop = "tool_use" if calls else "end_turn"
        message = {
            "id": f"msg_{uuid.uuid4().hex[:20]}",
            "type": "message",
            "role": "assistant",
            "model": body.get("model"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": USAGE,
        }
        if body.get("stream"):
            self._stream(list(_events(message, content, stop)))
        else:
            self._json(200, {**message, "content": content, "stop_reason": stop})

    def _stream(self, events: list[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have gone away
            for event in events:
                data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()

    def _json(self, status: int, document: dict[str, Any]) -> None:
        raw = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def _events(
    message: dict[str, Any], content: list[dict[str, Any]], stop: str
) -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": message}
    for index, block in enumerate(content):
        start: dict[str, Any] = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": block.get("text")}
        if block["type"] == "tool_use":
            start = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield {"type": "content_block_start", "index": index, "content_block": start}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {"stop_reason": stop, "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 10}}
    yield {"type": "message_stop"}
