"""A dedupe key is short, whichever way it comes: a broadcast keeps one for each recipient."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.inproc import Running, Wire, post, running

from claude_peers.core.limits import DEDUPE_KEY
from claude_peers.gateway.mcp import Mcp
from claude_peers.session import hosted

LONG = "k" * (DEDUPE_KEY + 1)
SEND = {"from_id": "cli", "to_id": "bob", "text": "hi"}
BROADCAST = {"from_id": "cli", "topic": "t", "text": "hi", "retain": True}


@pytest.fixture
def broker() -> Iterator[Running]:
    with running() as serving:
        serving.app.mcp = Mcp(serving.app, load=hosted.load)
        yield serving


@pytest.fixture
def bob(broker: Running) -> Iterator[dict[str, Any]]:
    with Wire(broker.port) as wire:
        joined = wire.ask("/register", {"name": "bob"})[1]
        wire.ask("/subscribe", {"id": joined["id"], "topic": "t"})
        yield joined


def stored(broker: Running) -> int:
    return int(broker.run(broker.store.ledger()).accepted)


@pytest.mark.parametrize(("path", "body"), [("/send-message", SEND), ("/broadcast", BROADCAST)])
def test_a_longer_key_is_refused_and_stores_nothing(
    broker: Running, bob: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    with Wire(broker.port) as wire:
        status, told = wire.ask(path, {**body, "dedupe_key": LONG})
        assert (status, told["code"]) == (400, "bad_request")
        assert told["error"] == "`dedupe_key` has 257 characters, 256 are the most"
        assert told["remedy"] == "Use a shorter one."
        assert stored(broker) == 0 and not broker.run(broker.store.retained())
        assert wire.ask(path, {**body, "dedupe_key": LONG[1:]})[0] == 200
        assert stored(broker) == 1


@pytest.mark.parametrize("name", [hosted.KEY, hosted.TOOL_USE])
def test_a_longer_key_in_the_meta_of_a_call_is_refused(
    broker: Running, bob: dict[str, Any], name: str
) -> None:
    headers = {
        "Authorization": f"Bearer {bob['token']}",
        "Accept": "application/json, text/event-stream",
    }
    params = {
        "name": "send_message",
        "arguments": {"to_id": "bob", "message": "hi"},
        "_meta": {name: LONG},
    }
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    with Wire(broker.port) as wire:
        wire.send(post(wire.port, "/mcp", call, **headers))
        status, _, answer = wire.answer()
    assert status == 200 and b'"isError":true' in answer.replace(b": ", b":")
    assert b"256 are the most. Use a shorter one." in answer
    assert stored(broker) == 0
