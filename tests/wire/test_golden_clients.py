"""Every request that upstream's own server and command line send is accepted by our broker."""

from typing import Any

from support.golden import Bindings, Replay, load, parse
from support.machine import Machine

REFUSED = {
    "server-031-post-send-message": "no text",
    "server-032-post-send-message": "no recipient",
    "server-033-post-send-message": "neither text nor recipient",
    "server-037-post-send-message": "a text that is an object",
    "server-059-post-set-summary": "no summary",
    "server-062-post-set-summary": "a summary that is an object",
}
"""Requests of a model that called a tool wrongly, which upstream's client passes on unread.

Half of them fail with upstream as well; all of them are answered with what is wrong.
"""


def test_upstreams_clients_are_served_as_they_are(machine: Machine) -> None:
    machine.serve()
    for name in ("server", "cli"):
        requests = [each for each in load("client-requests-upstream.jsonl") if sent(each, name)]
        assert requests
        replay = Replay(port=machine.port, bindings=prepared(machine, name))

        assert [each for each in requests if not accepted(replay, each)] == []


def test_every_refused_request_is_recorded() -> None:
    assert set(REFUSED) <= {each["case"] for each in load("client-requests-upstream.jsonl")}


def sent(recorded: dict[str, Any], session: str) -> bool:
    return "request" in recorded and recorded["session"] == session


def prepared(machine: Machine, session: str) -> Bindings:
    """Return bindings for a conversation; the command line's peers register outside of it."""
    known = {f"<pid:{name}>": str(machine.bystander().pid) for name in "ABCPQ"}
    known |= {"<cwd>": str(machine.work), "<port>": str(machine.port), "<len>": ""}
    if session == "cli":
        for name in "PQ":
            body = {"pid": int(known[f"<pid:{name}>"]), "cwd": "/proj/alpha", "summary": ""}
            known[f"<id:{name}>"] = machine.post("/register", body)["id"]
    return Bindings(known)


def accepted(replay: Replay, recorded: dict[str, Any]) -> bool:
    answer = replay.send(recorded["request"])
    if recorded["request"]["path"] == "/register":
        list(replay.bindings.differences(parse(recorded["response"]["body_text"]), answer.json()))
    wanted = 400 if recorded["case"] in REFUSED else 200
    return answer.status == wanted and (wanted == 200 or "error" in answer.json())
