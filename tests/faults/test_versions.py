"""Another version's broker: an older one that knows less, a newer one that says more."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from support import inproc
from support.http import post
from support.inproc import Running
from support.machine import Machine
from support.mcp import Session

from claude_peers.gateway import app, live
from claude_peers.host import files
from claude_peers.wire import codec, frames

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]

FIRST = {
    *("/register", "/heartbeat", "/set-summary", "/list-peers", "/unregister"),
    *("/send-message", "/poll-messages", "/ack-messages", "/release-messages"),
}
"""The requests that a session cannot do without."""
ONCE = {"id", "uid", "from_id", "to_id", "text", "sent_at"}
"""What was always told of a message."""
LATER = {"forecast": {"weather": ["dry", None]}, "from_the_future": 1e300}


class Speech:
    """The frames of another version, where the gateway has those of this one."""

    def __init__(self, *, newer: bool) -> None:
        self.newer = newer

    def __getattr__(self, name: str) -> Any:
        return getattr(frames, name)

    def answer(self, number: int, status: int, body: Any) -> bytes:
        told = more(body) if self.newer else less(body)
        return self._with_news(frames.answer(number, status, told))

    def push(self, message: dict[str, Any], sender: dict[str, Any] | None) -> bytes:
        told = more(message) if self.newer else less(message)
        return self._with_news(frames.push(told, more(sender) if self.newer else None))

    def _with_news(self, frame: bytes) -> bytes:
        return codec.dumps(LATER) + b"\n" + frame if self.newer else frame


def more(value: Any) -> Any:
    """Return an answer as a later version might give it."""
    match value:
        case dict():
            return {**LATER, **{name: more(each) for name, each in value.items()}}
        case list():
            return [more(each) for each in value]
        case _:
            return value


def less(value: Any) -> Any:
    """Return an answer as the first version gave it."""
    match value:
        case {"uid": _, "text": _}:
            return {name: value[name] for name in ONCE if name in value}
        case {"messages": messages}:
            return {"messages": less(messages)}
        case {"id": _, "token": _}:
            return {"id": value["id"], "token": value["token"]}
        case {"ok": True}:
            return {"ok": True}
        case list():
            return [less(each) for each in value]
        case _:
            return value


@pytest.fixture
def other(
    request: pytest.FixtureRequest, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    """Serve a broker of another version to the machine's sessions: `older` or `newer`."""
    newer = request.param == "newer"
    monkeypatch.setattr(live, "frames", Speech(newer=newer))
    monkeypatch.setattr("claude_peers.transports.live.frames", Speech(newer=newer))
    if not newer:
        known = {path: each for path, each in app._BY_PATH.items() if path in FIRST}
        monkeypatch.setattr(app, "_BY_PATH", known)
    folder = str(machine.database).removesuffix(".db") + ".d"
    files.private_folder(folder)
    files.keep_secret(folder, inproc.SECRET)
    with inproc.running() as broker:
        speak_http(broker, newer=newer)
        machine.environ["CLAUDE_PEERS_BROKER_URL"] = f"http://127.0.0.1:{broker.port}"
        yield broker
        machine.close()


def speak_http(broker: Running, *, newer: bool) -> None:
    """Let the broker's answers over HTTP be another version's as well."""
    as_now = broker.app.answer

    async def answer(*given: Any) -> app.Response:
        response = await as_now(*given)
        if response.content_type != app.JSON:
            return response
        told = (more if newer else less)(json.loads(response.body))
        return dataclasses.replace(response, body=json.dumps(told).encode())

    broker.app.answer = answer  # type: ignore[method-assign]


def somebody(broker: Running) -> str:
    """Register a peer that only polls."""
    body = {"pid": None, "cwd": "/proj/bob", "name": "bob", "summary": "waits"}
    return str(post(broker.port, "/register", body).json()["id"])


def joined(machine: Machine, broker: Running) -> tuple[Session, str]:
    session = machine.session()
    session.list_prompts()
    text, failed = session.call("whoami")
    assert not failed, text
    (peer,) = broker.do(broker.broker.roster.present)
    return session, str(peer.id)


def converse(machine: Machine, broker: Running) -> Session:
    """Do what sessions are for, both ways, and count."""
    session, me = joined(machine, broker)
    bob = somebody(broker)
    told, failed = session.call("list_peers")
    assert not failed and bob in told
    assert not session.call("set_summary", summary="tests versions")[1]
    shown = ""  # in whichever result comes next
    for number in range(3):
        told, failed = session.call("send_message", to_id=bob, message=f"to bob {number}")
        assert not failed, told
        shown += told
        body = {"from_id": bob, "to_id": me, "text": f"from bob {number}"}
        assert post(broker.port, "/send-message", body).json()["ok"]
    assert session.wait_for_push("from bob 2")
    shown += session.call("check_messages")[0]
    assert [shown.count(f"from bob {number}") for number in range(3)] == [1, 1, 1]
    assert session.call("check_messages")[0].startswith("No new messages")
    polled = post(broker.port, "/poll-messages", {"id": bob}).json()["messages"]
    assert [each["text"] for each in polled] == [f"to bob {number}" for number in range(3)]
    ledger = broker.run(broker.store.ledger())
    assert (ledger.accepted, ledger.balanced) == (6, True)
    return session


@pytest.mark.parametrize("other", ["older"], indirect=True)
@pytest.mark.fault("F40")
def test_a_session_of_this_version_works_with_less_at_an_older_broker(
    machine: Machine, other: Running
):
    session = converse(machine, other)

    for tool in ("message_status", "get_dead_letters"):
        arguments = {"message_id": 1} if tool == "message_status" else {}
        told, failed = session.call(tool, **arguments)
        assert failed
        assert "not found" in told
    assert not session.call("whoami")[1]


@pytest.mark.parametrize("other", ["newer"], indirect=True)
@pytest.mark.fault("F41")
def test_a_session_of_this_version_passes_over_what_a_newer_broker_adds(
    machine: Machine, other: Running
):
    session = converse(machine, other)

    assert not session.call("message_status", message_id=1)[1]
    assert not session.call("get_dead_letters")[1]


@pytest.mark.parametrize("other", ["older", "newer"], indirect=True)
@pytest.mark.fault("F40", "F41")
def test_the_command_line_of_this_version_works_at_other_brokers(machine: Machine, other: Running):
    bob = somebody(other)
    listed, sent = machine.cli("peers"), machine.cli("send", bob, "from the shell")
    assert (listed.returncode, sent.returncode) == (0, 0), listed.stderr + sent.stderr
    assert bob in listed.stdout
    polled = post(other.port, "/poll-messages", {"id": bob}).json()["messages"]
    assert [each["text"] for each in polled] == ["from the shell"]
    why = machine.cli("why", "1")
    assert (why.returncode, "Traceback" in why.stderr) in ((0, False), (1, False)), why.stderr
