"""Our sessions against the recorded sessions of agentmesh 0.4, tool call by tool call.

They are started with agentmesh's own variables and called by its tools' names. What its answers say
ours say too, block by block, in the words of `WORDING`. `OTHERWISE` lists every answer that is
another one, `ELSEWHERE` what has no counterpart here. An entry that no longer differs fails.
"""

import json
import re
import signal
from collections.abc import Iterator
from typing import Any

from e2e.test_mcp_golden import Otherwise, text_of
from support import http
from support.golden import Bindings, load
from support.machine import Machine, git
from support.mcp import Session
from support.waiting import eventually

RECORDING = load("mcp-agentmesh-0.4.jsonl")
CASES = {each["case"]: each for each in RECORDING}
TOOLS = {"list_agents": "list_peers"}
"""Tools that have another name here, and answer to both."""

CALLED_WRONG = "a model is told which argument is wrong, in words that it can act on"
LENIENT = "arguments may be absent; the defaults hold"
SHOWN = "what the result of another tool has shown whole is read"
LISTING = "Found 2 peer(s) (scope: machine):"

OTHERWISE = {
    "list-online": Otherwise(
        reason="P is connected as well: no session of ours is left to polling", text=LISTING
    ),
    **dict.fromkeys(("list-empty", "list-no-args"), Otherwise(reason=LENIENT, text=LISTING)),
    "list-odd": Otherwise(
        reason=CALLED_WRONG, text="`scope` cannot be 'galaxy'. Use one of <any>", is_error=True
    ),
    "send-unknown": Otherwise(
        reason="the text names the remedy", text="Peer zzzzzzzz not found. <any>", is_error=True
    ),
    "send-no-message": Otherwise(
        reason=CALLED_WRONG, text="send_message needs `message`. <any>", is_error=True
    ),
    **dict.fromkeys(
        ("send-empty", "send-no-args"),
        Otherwise(reason=CALLED_WRONG, text="send_message needs `to_id`. <any>", is_error=True),
    ),
    **{
        case: Otherwise(reason=CALLED_WRONG, text=f"{tool} needs `{name}`. <any>", is_error=True)
        for case, tool, name in (
            ("subscribe-no-topic", "subscribe", "topic"),
            ("broadcast-empty", "broadcast", "topic"),
            ("unsubscribe-empty", "unsubscribe", "topic"),
            ("set-summary-empty-args", "set_summary", "summary"),
        )
    },
    "dead-letters-no-args": Otherwise(reason=LENIENT, text="No dead letters."),
    "unknown-tool": Otherwise(
        reason="the client's mistake, not ours", code=-32602, text="Unknown tool: no_such"
    ),
    "list_peers-absent": Otherwise(reason="upstream's name of list_agents", text=LISTING),
    "P-check-after-dead": Otherwise(reason=SHOWN, text="No new messages."),
    "P-check-pending": Otherwise(
        reason=SHOWN,
        text="1 new message(s):<any>\n\nFrom <id:A> (<ts>)<any>:\n<any>polled one\n<any>",
    ),
}
ELSEWHERE = {
    **dict.fromkeys(
        (
            *("start-without-broker", "broker-down-list", "broker-down-send", "broker-down-check"),
            *("P-broker-new-db-send", "P-broker-new-db-list"),
        ),
        "a session becomes the broker: see the tests of the take-over",
    ),
    "A-channel-lwt-online-retained": "nothing happens in it",
}
WORDING = (
    (r"agent\(s\)", "peer(s)"),
    (r"^No agents found (.*)\.$", r"No other peers found \1.<any>"),  # whom else it would find
    (r"^  Type: claude-code — ", "  Name: "),  # any client's, and it is told as `Agent`
    (r"^  Summary: ", "  Summary (self-reported): "),
    (r"^  Online: .* \| Host: <host> \| Seen: ", "  Last seen: "),  # online_only says the one,
    (r"^Message sent to ", "Message sent to peer "),  # and a name with @host the other
    (r"^No pending messages", "No new messages"),
    (r"^(\d+) message\(s\):$", r"\1 new message(s):"),
    (r"^From (\S+) \[(.*)\] \(QoS \d, (.*)\):$", r"From \1 (\3)<any> · topic \2<any>:"),
    (r"^From (\S+) \(<ts>\) — TTL_EXPIRED", r"From \1 (<ts>)<any> — nobody read it in time"),
)
"""What we put differently within an answer, as regular expressions of lines."""
META = {"from_agent_name": "from_name"}
"""What a push says besides its text, where ours has another name."""
UNNAMED = {
    "qos": "nothing that its reader does depends on it",
    "fleet_id": "it is the reader's own",
    "device_id": "the same",
}
"""What ours does not say, and why."""
UNSAID = {
    "subscribe-lwt": "who comes publishes nothing: its last value would outlive it; list_agents "
    "shows who is there",
}
"""Recorded pushes that we do not have."""
WILL = '{"agent_name": "bob", "status": "offline"}'
"""Our text where a session is given none; whose it is, is told as `from_id`."""
ENVIRONMENT = {
    "A": {"AGENTMESH_AGENT_NAME": "claude-code"},
    "B": {
        "AGENTMESH_AGENT_NAME": "bob",
        "AGENTMESH_FLEET_ID": "prod",
        "AGENTMESH_DEVICE_ID": "edge-1",
        "AGENTMESH_CAPABILITIES": "review,deploy",
        "AGENTMESH_LWT_TOPIC": "fleet/status",
    },
    "P": {"AGENTMESH_AGENT_NAME": "polly"},
    "D": {},
}
FOLDERS = {"A": "alpha", "B": "alpha/sub", "P": "beta", "D": "alpha"}


class World:
    """Four sessions where agentmesh's stood, and what happens around them.

    Attributes:
        played: the cases that were compared.
        complaints: what came out otherwise than agreed.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.bindings = Bindings({"<cwd>": str(machine.work)})
        self.sessions: dict[str, Session] = {}
        self.pushes: dict[str, int] = dict.fromkeys(FOLDERS, 0)
        self.played: list[str] = []
        self.complaints: list[str] = []

    def start(self, name: str) -> None:
        """Start a session and replay how its client introduces itself."""
        self.sessions[name] = self.machine.session(
            cwd=self.machine.folder(FOLDERS[name]), handshake=False, **ENVIRONMENT[name]
        )
        prefix = "" if name == "A" else f"{name}-"
        self.play(f"{prefix}initialize", f"{prefix}initialized")
        self.sessions[name].list_prompts()
        self.bindings.values[f"<id:{name}>"] = self.machine.peer_id(self.sessions[name])

    def play(self, *cases: str) -> None:
        """Replay these cases, and note what came out otherwise than agreed."""
        for case in cases:
            self.played.append(case)
            self.complaints += [f"{case}: {each}" for each in self.step(CASES[case])]

    def step(self, recorded: dict[str, Any]) -> Iterator[str]:
        session = self.sessions[recorded["session"]]
        if isinstance(recorded["in"], dict):
            session.send_line(self.bindings.fill(json.dumps(recorded["in"])).encode())
        out = [each for each in recorded["out"] if "method" not in each]
        if out and "exit_code" in out[0]:
            session.kill(signal.SIGTERM)
            if (code := session.process.wait(10)) != out[0]["exit_code"]:
                yield f"ended with {code}"
        elif out:
            yield from self.differences(recorded, out[0], session.answer(out[0]["id"]))
        if recorded["case"] not in UNSAID:
            for each in recorded["out"]:
                if "method" in each:
                    yield from self.pushed(recorded["session"], each["params"])

    # What comes back

    def differences(
        self, recorded: dict[str, Any], wanted: dict[str, Any], ours: dict[str, Any]
    ) -> Iterator[str]:
        case = recorded["case"]
        agreed = OTHERWISE.get(case)
        found = list(self.compare(wanted, ours))
        if agreed is None:
            yield from found
        elif not found:
            yield "is listed as a difference but answers as recorded"
        elif agreed.code:
            error = {"code": agreed.code, "message": agreed.text}
            yield from self.bindings.differences(error, ours.get("error"))
        else:
            yield from self.texts(agreed.text, ours, is_error=agreed.is_error)

    def compare(self, wanted: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
        result = wanted.get("result", {})
        if "content" in result:
            text = result["content"][0]["text"]
            for pattern, replaced in WORDING:
                text = re.sub(pattern, replaced, text, flags=re.MULTILINE)
            yield from self.texts(text, ours, is_error=bool(result.get("isError")))
        elif "tools" in result:
            yield from lacking(result["tools"], ours["result"]["tools"])
        else:  # the server's name and version are its own
            kept = {name: value for name, value in result.items() if name != "serverInfo"}
            yield from self.bindings.differences(
                {**wanted, "result": kept} if result else wanted, ours
            )

    def texts(self, wanted: str, ours: dict[str, Any], *, is_error: bool) -> Iterator[str]:
        """Compare block by block: ours may have more, and the lines of one in another order."""
        given = text_of(ours)
        if given is None or bool(ours["result"].get("isError")) != is_error:
            yield f"answered {ours}"
            return
        if not self.bindings.matches(*(each.partition("\n")[0] for each in (wanted, given))):
            yield f"begins otherwise: {given!r}"
        blocks = iter(given.split("\n\n"))
        for block in wanted.split("\n\n"):
            if not any(self.has(each, block) for each in blocks):
                yield f"lacks {block!r} (in this place): {given!r}"

    def has(self, given: str, wanted: str) -> bool:
        if self.bindings.matches(wanted, given):
            return True
        lines = given.split("\n")
        return all(
            any(self.bindings.matches(line, each) for each in lines) for line in wanted.split("\n")
        )

    def pushed(self, name: str, recorded: dict[str, Any]) -> Iterator[str]:
        """Compare the next push to a session."""
        seen, session = self.pushes[name], self.sessions[name]
        self.pushes[name] += 1
        session.wait_for(lambda _: len(session.pushes) > seen)
        ours = session.pushes[seen]
        meta = {
            META.get(field, field): value.replace('"', "")  # it is shown between two of them
            for field, value in recorded["meta"].items()
            if value and field not in UNNAMED
        }
        will = "offline" in recorded["content"]
        content = WILL if will else recorded["content"]
        yield from self.bindings.differences({"content": content, "meta": meta}, ours)


def lacking(recorded: list[dict[str, Any]], ours: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what agentmesh's tools take and ours do not."""
    schemas = {tool["name"]: tool["inputSchema"] for tool in ours}
    for tool in recorded:
        wanted, given = tool["inputSchema"], schemas[TOOLS.get(tool["name"], tool["name"])]
        for name, taken in wanted["properties"].items():
            about = given["properties"].get(name)
            if about is None:
                yield f"{tool['name']} takes no {name}"
            elif "enum" in about and not set(about["enum"]) >= set(taken["enum"]):
                yield f"{tool['name']} does not take every {name}"
        if not set(given.get("required", ())) <= set(wanted.get("required", ())):
            yield f"{tool['name']} needs more"


def shown(session: Session) -> list[str]:
    """Return the numbers of the messages that a session's tools showed, each time they did."""
    texts = [text_of(each) or "" for each in session.received if "result" in each]
    return re.findall(r" · message_id (\d+) · ", "\n".join(texts))


# The conversation


def opening(world: World) -> None:
    """P is there, A comes and looks around, then B comes and A looks again."""
    for name in "PA":
        world.start(name)
    world.play("tools-list", "ping", "unknown-method")
    world.play("list-machine-one", "list-repo-alone", "list-directory-alone")
    world.start("B")
    world.play("B-set-summary")
    world.play("list-machine", "list-repo", "list-fleet", "list-device", "list-caps", "list-type")
    world.play("list-online", "list-empty", "list-odd", "list-no-args")


def letters_and_topics(world: World) -> None:
    """A and B write to each other, and publish."""
    world.play("send-unknown", "send-no-message", "send-empty", "send-no-args")
    world.play("send-B", "B-channel", "send-B-qos0", "B-channel-qos0")
    world.play("subscribe", "subscribe-no-topic")
    world.play("broadcast", "A-channel-topic", "broadcast-retain", "A-channel-retain")
    world.play("broadcast-nobody", "broadcast-empty", "unsubscribe", "unsubscribe-empty")
    world.play("subscribe-lwt", "set-summary", "set-summary-empty-args", "check-empty")
    world.play("dead-letters-none", "dead-letters-no-args", "unknown-tool", "list_peers-absent")


def losses(world: World) -> None:
    """B is killed, and the user writes to A."""
    world.sessions["B"].kill()
    world.play("A-channel-lwt-offline")
    assert world.machine.cli("send", world.bindings.fill("<id:A>"), "hello there").returncode == 0
    world.play("A-channel-cli")


def polling(world: World) -> None:
    """P, which polls there, gets last values and a message whose time is soon over."""
    post, fill = world.machine.post, world.bindings.fill
    kept = {"from_id": "cli", "topic": "cfg/kept", "text": "retained for P", "retain": True}
    assert post("/broadcast", kept)["ok"]
    world.play("P-subscribe-retained", "P-poll-channel")
    world.sessions["A"].call("send_message", to_id=fill("<id:P>"), message="polled one")
    world.play("P-channel-polled", "P-check-pending", "P-check-again")
    assert post("/broadcast", {"from_id": "cli", "topic": "cfg/late", "text": "late"})["ok"]
    expire_unread(world, "expires soon")
    world.play("P-channel-expired", "P-dead-letters", "P-dead-letters-limit", "P-check-after-dead")


def expire_unread(world: World, text: str) -> None:
    """Let X send P a message, and return when its time is over."""
    machine, p = world.machine, world.bindings.fill("<id:P>")
    x = machine.post("/register", {"cwd": "/x", "agent_type": "custom", "agent_name": "ttl"})
    world.bindings.values["<id:X>"] = x["id"]
    told = {"Content-Type": "application/json", "Authorization": f"Bearer {x['token']}"}
    letter = {"from_id": x["id"], "to_id": p, "text": text, "ttl_ms": 5000}
    assert http.post(machine.port, "/send-message", letter, told).json()["ok"]
    session = world.sessions["P"]
    session.wait_for_push(text)  # before that it would not be pushed any more
    # The broker looks every 15 s, and the time must not be over before the push.
    eventually(lambda: machine.post("/ledger")["states"].get("dead"), timeout=60)


def test_the_sessions_answer_as_agentmeshs_but_for_the_listed_differences(
    machine: Machine,
) -> None:
    machine.serve()
    git("init", "-q", cwd=machine.folder("alpha"))
    world = World(machine)
    for act in (opening, letters_and_topics, losses, polling):
        act(world)
    world.start("D")
    world.play("D-sigterm", "sigterm")

    assert not world.complaints, "\n".join(world.complaints)
    assert {name: len(each.pushes) for name, each in world.sessions.items()} == world.pushes
    for name, count in {"A": 4, "B": 2, "P": 3}.items():  # and what expired unread is none
        numbers = shown(world.sessions[name])
        assert len(numbers) == len(set(numbers)) == count
    assert sorted([*world.played, *ELSEWHERE]) == sorted(CASES)
    text, _ = world.sessions["P"].call("subscribe", topic="build/+")
    assert "1 last value(s)" in text  # that of `broadcast-retain`


def test_the_tools_send_with_the_quality_that_they_are_asked_for(machine: Machine) -> None:
    machine.serve()
    session = machine.session()
    body = {"cwd": "/x", "agent_type": "custom", "agent_name": "x"}
    x = machine.post("/register", body)
    told = {"Content-Type": "application/json", "Authorization": f"Bearer {x['token']}"}
    topic = {"id": x["id"], "topic": "t"}
    assert http.post(machine.port, "/subscribe", topic, told).status == 200
    for qos in (0, 1):
        session.call("send_message", to_id=x["id"], message=f"{qos}", qos=qos)
        session.call("broadcast", topic="t", message=f"{qos}", qos=qos)

    peeked = http.post(machine.port, "/peek-messages", {"id": x["id"]}, told).json()["messages"]

    told_apart = [(each["text"], each["topic"], each["qos"]) for each in peeked]
    assert told_apart == [("0", None, 0), ("0", "t", 0), ("1", None, 1), ("1", "t", 1)]


def test_each_listed_difference_is_a_recorded_case() -> None:
    assert {*OTHERWISE, *ELSEWHERE, *UNSAID} <= {*CASES}
