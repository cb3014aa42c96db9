"""How the API document describes the one answer that has no end (`gateway.events`)."""

from typing import Any

from claude_peers.wire.schema import Schema


def described(refusals: Schema, headers: Schema) -> Schema:
    """Return the operation of `/events`; `refusals` by status, and the headers of its answer."""
    return {
        "operationId": "events",
        "summary": "Read a peer's mail as Server-Sent Events, as it comes.",
        "description": (
            "One event for each message: `id` is the message's, `data` the message as "
            "/peek-messages shows it. Coming back with the last id that arrived acknowledges "
            "what was sent up to it; the rest comes again. See docs/any-agent.md."
        ),
        "tags": ["messages"],
        "parameters": [
            _parameter("id", "query", "whose mail; not needed with its token", {"type": "string"}),
            _parameter("last_id", "query", "the last event's id", _WHOLE),
            _parameter("Last-Event-ID", "header", "the same; it wins over `last_id`", _WHOLE),
        ],
        "responses": {
            "200": {
                "description": "The stream, for as long as both sides stay.",
                "headers": headers,
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **refusals,
        },
    }


_WHOLE: Schema = {"type": "integer", "minimum": 0}


def _parameter(name: str, where: str, about: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": where, "description": about, "schema": schema}
