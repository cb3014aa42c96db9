"""What a request to `/mcp` may have in its body: versions, arrays, and what is no message."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.inproc import Running, Wire, post, running

from claude_peers.gateway.mcp import Mcp
from claude_peers.session import bodies, hosted

ACCEPT = "application/json, text/event-stream"
MINE = "2025-03-26"
NOTICE = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LIBRARY = ("pydantic", "validation error", "input_value", "_meta")
"""What shows that an answer is a library's and not ours."""


@pytest.fixture
def broker() -> Iterator[Running]:
    with running() as serving:
        serving.app.mcp = Mcp(serving.app, load=hosted.load)
        yield serving


class Asker:
    """An MCP client over one connection."""

    def __init__(self, broker: Running, **registration: Any) -> None:
        self.wire = Wire(broker.port)
        joined = self.wire.ask("/register", {"name": "robot", "cwd": "/w", **registration})[1]
        self.id = str(joined["id"])
        self._token = str(joined["token"])

    def ask(self, body: Any, version: str | None = None) -> tuple[int, Any]:
        """Return status and JSON of an answer, None for an empty one."""
        headers = {"Authorization": f"Bearer {self._token}", "Accept": ACCEPT}
        headers |= {"MCP-Protocol-Version": version} if version else {}
        self.wire.send(post(self.wire.port, "/mcp", body, **headers))
        status, _, told = self.wire.answer()
        assert not [each for each in LIBRARY if each in told.decode().lower()], told
        return status, json.loads(told) if told else None


@pytest.fixture
def robot(broker: Running) -> Iterator[Asker]:
    asker = Asker(broker, fleet_id="red")
    yield asker
    asker.wire.socket.close()


def ping(number: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "ping"}


def call(number: int, tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def error(told: Any) -> str:
    return str(told["error"]["message"])


@pytest.mark.parametrize("version", ["2024-11-05", MINE, None])
def test_an_array_is_answered_by_an_array_where_the_version_has_them(robot, version):
    status, told = robot.ask([ping(1), NOTICE, ping(2)], version)
    assert status == 200
    assert [(each["id"], each["result"]) for each in told] == [(1, {}), (2, {})]


def test_an_array_of_notices_is_taken_without_an_answer(robot):
    assert robot.ask([NOTICE, NOTICE], MINE) == (202, None)


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25"])
def test_an_array_is_refused_where_the_version_has_none(robot, version):
    status, told = robot.ask([ping(1)], version)
    assert (status, told["id"]) == (400, None)
    assert f"Version {version} of MCP has no arrays" in error(told)
    assert "Send each message by itself" in error(told)


@pytest.mark.parametrize("count", [0, bodies.MOST + 1])
def test_an_array_of_none_or_too_many_is_refused(robot, count):
    status, told = robot.ask([ping(number) for number in range(count)], MINE)
    assert (status, f"this one has {count}" in error(told)) == (400, True)
    assert robot.ask([ping(number) for number in range(bodies.MOST)], MINE)[0] == 200


def test_what_is_no_message_in_an_array_is_answered_beside_the_others(robot):
    status, told = robot.ask([ping(1), 5, {"foo": 1}, ping(2)], MINE)
    assert status == 200
    assert [each["id"] for each in told] == [1, None, None, 2]
    assert "This is no JSON-RPC message" in error(told[1]) == error(told[2])


def test_mail_that_an_array_shows_is_shown_once_and_is_read(broker, robot):
    for text in ("first", "second"):
        letter = {"from_id": "cli", "to_id": robot.id, "text": text}
        robot.wire.ask("/send-message", letter)
    _, told = robot.ask([call(1, "check_messages"), call(2, "check_messages")], MINE)
    shown = [each["result"]["content"][0]["text"] for each in told]
    assert [shown[0].count(text) for text in ("first", "second")] == [1, 1]
    assert shown[1].startswith("No new messages")
    assert robot.ask(call(3, "check_messages"))[1]["result"]["content"][0]["text"].startswith(
        "No new messages"
    )
    ledger = broker.run(broker.store.ledger())
    assert {str(state): count for state, count in ledger.states.items() if count} == {"seen": 2}


@pytest.mark.parametrize("version", ["1.0", "2027-01-01"])
@pytest.mark.parametrize("body", [ping(7), [ping(7)], NOTICE])
def test_a_version_that_is_not_spoken_is_named_with_those_that_are(robot, version, body):
    status, told = robot.ask(body, version)
    assert (status, told["error"]["code"]) == (400, -32022)
    assert told["id"] == (7 if body == ping(7) else None)
    assert f"does not speak version {version} of MCP" in error(told)
    assert "MCP-Protocol-Version" in error(told)
    assert told["error"]["data"]["requested"] == version
    assert "2025-11-25" in told["error"]["data"]["supported"]
    assert all(each in error(told) for each in told["error"]["data"]["supported"])


@pytest.mark.parametrize(
    "body", [{"foo": 1}, "x", None, 5, {**ping(1), "params": 5}, {**ping(1), "id": [1]}]
)
def test_what_is_no_message_is_refused_in_a_sentence(robot, body):
    status, told = robot.ask(body)
    assert (status, told["error"]["code"]) == (400, -32600)
    assert "This is no JSON-RPC message" in error(told)


def test_what_is_no_json_is_refused_in_a_sentence(robot):
    status, told = robot.ask(b"[1")
    assert (status, told["error"]["code"]) == (400, -32700)
    assert "The body is not JSON" in error(told)


def test_a_peer_is_in_the_fleet_and_on_the_device_that_the_roster_shows(broker, robot):
    other = Asker(broker, name="other", fleet_id="red", device_id="edge")
    text = robot.ask(call(1, "list_peers", scope="fleet"))[1]["result"]["content"][0]["text"]
    assert "Found 1 peer(s) (scope: fleet)" in text
    assert other.id in text
    told = other.ask(call(1, "list_peers", scope="device"))[1]["result"]
    assert "No other peers found (scope: device)" in told["content"][0]["text"]
    other.wire.socket.close()
