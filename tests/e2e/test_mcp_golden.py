"""Our sessions against the recorded sessions of upstream, tool call by tool call.

Upstream's words come first and in its order; ours may add lines, or more behind a line. `OTHERWISE`
lists every answer that is another one, `ELSEWHERE` what is tested at another place because the
recorded event has no counterpart here. An entry that no longer differs fails.
"""

import json
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from support.golden import Bindings, load
from support.machine import Machine, git
from support.mcp import Session

RECORDING = load("mcp-upstream.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Otherwise:
    """Our answer and the reason; with a code it is a JSON-RPC error, without a tool result."""

    reason: str
    text: str = ""
    is_error: bool = False
    code: int = 0


CALLED_WRONG = "a model is told which argument is wrong, in words that it can act on"
LENIENT = "arguments may be absent or null; the defaults hold"
PROTOCOL = "JSON-RPC says what is wrong with a line; upstream's SDK says nothing"
SAYS_WHY = "the text is the error, and names the remedy"
SHORTER = "peers are agents of every vendor, not Claude Code instances alone"
LISTING = "Found 2 peer(s) (scope: machine):"
NOBODY = "No other peers found (scope: {}).<any>"

OTHERWISE = {
    "prompts-list": Otherwise(
        reason="we offer prompts, because a client that asks for them is one that stays"
    ),
    "not-json": Otherwise(reason=PROTOCOL, code=-32700, text="Parse error"),
    "not-jsonrpc": Otherwise(reason=PROTOCOL, code=-32600, text="Invalid request"),
    "batch": Otherwise(reason=PROTOCOL, code=-32600, text="Invalid request: an array"),
    "list-machine-alone": Otherwise(reason=SHORTER, text=NOBODY.format("machine")),
    "list-directory-alone": Otherwise(reason=SHORTER, text=NOBODY.format("directory")),
    "list-repo-alone": Otherwise(reason=SHORTER, text=NOBODY.format("repo")),
    "list-directory": Otherwise(reason=SHORTER, text=NOBODY.format("directory")),
    "C-list-repo-outside-git": Otherwise(reason=SHORTER, text=NOBODY.format("repo")),
    "list-galaxy": Otherwise(
        reason=CALLED_WRONG, text="`scope` cannot be 'galaxy'. Use one of <any>", is_error=True
    ),
    "list-scope-number": Otherwise(
        reason=CALLED_WRONG, text="`scope` cannot be '5'. Use one of <any>", is_error=True
    ),
    "list-empty-args": Otherwise(reason=LENIENT, text=LISTING),
    "list-no-args": Otherwise(reason=LENIENT, text=LISTING),
    "list-null-args": Otherwise(reason=LENIENT, text=LISTING),
    "send-unknown": Otherwise(
        reason=SAYS_WHY, text="Peer zzzzzzzz not found. <any>", is_error=True
    ),
    "send-no-message": Otherwise(
        reason=CALLED_WRONG, text="send_message needs `message`. <any>", is_error=True
    ),
    **dict.fromkeys(
        ("send-no-to", "send-empty-args", "send-no-args"),
        Otherwise(reason=CALLED_WRONG, text="send_message needs `to_id`. <any>", is_error=True),
    ),
    "send-object": Otherwise(
        reason=CALLED_WRONG, text="`message` must be a string<any>", is_error=True
    ),
    "set-summary-object": Otherwise(
        reason=CALLED_WRONG, text="`summary` must be a string<any>", is_error=True
    ),
    **dict.fromkeys(
        ("set-summary-missing", "set-summary-no-args"),
        Otherwise(reason=CALLED_WRONG, text="set_summary needs `summary`. <any>", is_error=True),
    ),
    "unknown-tool": Otherwise(
        reason="the client's mistake, not ours", code=-32602, text="Unknown tool: no_such_tool"
    ),
    "list_agents-absent": Otherwise(reason="agentmesh's name of list_peers", text=LISTING),
    **dict.fromkeys(
        ("call-no-name", "call-no-params"),
        Otherwise(reason="a sentence in place of a dump", code=-32602, text="<any>"),
    ),
}
ELSEWHERE = {
    **dict.fromkeys(
        (
            *(f"broker-down-{each}" for each in ("list", "send", "summary", "check")),
            *(f"broker-new-db-{each}" for each in ("list", "send", "check")),
        ),
        "another session becomes the broker: see the tests of the take-over",
    ),
    "stdin-closed": "we end with our client: every test's teardown asserts it",
}
WORDING = (
    ("  Summary: ", "  Summary (self-reported): "),
    *((f"From <id:{each}> (<ts>):", f"From <id:{each}> (<ts>)<any>") for each in "BC"),
)
"""What we put differently within an answer: a summary is a claim, a sender has marks."""


@dataclass(slots=True)
class World:
    """Three sessions where upstream's recorded three stood, and what happens around them."""

    machine: Machine
    bindings: Bindings = field(default_factory=Bindings)
    sessions: dict[str, Session] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def start(self, name: str, folder: str) -> Session:
        session = self.machine.session(cwd=self.machine.folder(folder), handshake=False)
        self.sessions[name] = session
        self.bindings.values[f"<pid:{name}>"] = str(session.pid)
        return session

    def register(self, name: str) -> None:
        self.sessions[name].list_prompts()
        self.bindings.values[f"<id:{name}>"] = self.machine.peer_id(self.sessions[name])

    def neighbours_arrive(self) -> None:
        for name, folder in (("B", "alpha/sub"), ("C", "beta")):
            self.start(name, folder)
            self.converse(name)
            self.register(name)
        self.sessions["B"].call("set_summary", summary="fixing the parser \U0001f389")
        self.register("A")

    def mail_for_b(self) -> None:
        id_b = self.id_of("B")
        self.sessions["B"].wait_for_push("hello from A")
        self.machine.post(
            "/send-message", {"from_id": "cli", "to_id": id_b, "text": "from no peer"}
        )
        for sender, text in (("A", "one"), ("C", "two"), ("A", "")):
            self.sessions[sender].call("send_message", to_id=id_b, message=text)

    def mail_for_a(self) -> None:
        for sender, text in (("B", "check one"), ("C", "check two\nlines")):
            self.sessions[sender].call("send_message", to_id=self.id_of("A"), message=text)

    def id_of(self, name: str) -> str:
        return self.bindings.values[f"<id:{name}>"]

    def converse(self, name: str) -> None:
        """Replay what session `name` was asked, and note what came out otherwise than agreed."""
        before: dict[str, Callable[[], None]] = {
            "list-machine": self.neighbours_arrive,
            "set-summary": self.mail_for_b,
            "check-two": self.mail_for_a,
        }
        for each in RECORDING:
            if each["session"] == name and each["case"] not in ELSEWHERE:
                before.get(each["case"], lambda: None)()
                self.complaints += [f"{each['case']}: {what}" for what in self.step(each)]

    def step(self, recorded: dict[str, Any]) -> list[str]:
        session = self.sessions[recorded["session"]]
        seen = len(session.received)
        if "in_text" in recorded:
            session.send_line(recorded["in_text"].encode())
        elif isinstance(recorded["in"], dict):
            session.send_line(self.bindings.fill(json.dumps(recorded["in"])).encode())
        else:
            return []  # an outside event
        ours = self.answer(session, recorded, seen)
        agreed = OTHERWISE.get(recorded["case"])
        differences = list(self.compare(recorded["out"], ours))
        if agreed is None:
            return differences
        if not differences:
            return ["is listed as a difference but answers as recorded"]
        return list(self.compare_agreed(agreed, ours))

    def answer(
        self, session: Session, recorded: dict[str, Any], seen: int
    ) -> dict[str, Any] | None:
        """Return the response to what was just sent; None if there is none.

        A ping proves silence: it is answered after everything that came before it.
        """
        if isinstance(recorded.get("in"), dict) and "id" in recorded["in"]:
            return session.answer(recorded["in"]["id"])
        session.answer(session.ask("ping", number=f"after {recorded['case']}"))
        others = [each for each in session.received[seen:] if "method" not in each]
        return others[0] if others[0].get("id") is None else None

    def compare(self, recorded: list[Any], ours: dict[str, Any] | None) -> Iterator[str]:
        if not recorded or ours is None:
            if bool(recorded) != bool(ours):
                yield f"answered {ours}, recorded {recorded}"
            return
        (wanted,) = recorded
        wanted = {**wanted, **({"result": known(wanted["result"])} if "result" in wanted else {})}
        text = text_of(wanted)
        if text is None:
            yield from self.bindings.differences(wanted, ours)
        else:
            is_error = bool(wanted["result"].get("isError"))
            yield from self.compare_texts(text, ours, is_error=is_error)

    def compare_agreed(self, agreed: Otherwise, ours: dict[str, Any] | None) -> Iterator[str]:
        if ours is None or ("error" in ours) != bool(agreed.code):
            yield f"answered {ours}"
        elif agreed.code:
            error = {"code": agreed.code, "message": agreed.text}
            yield from self.bindings.differences(error, ours["error"])
        elif agreed.text:
            yield from self.compare_texts(agreed.text, ours, is_error=agreed.is_error)

    def compare_texts(self, wanted: str, ours: dict[str, Any], *, is_error: bool) -> Iterator[str]:
        given = text_of(ours)
        if given is None or bool(ours["result"].get("isError")) != is_error:
            yield f"answered {ours}"
            return
        for recorded, replaced in WORDING:
            wanted = wanted.replace(recorded, replaced)
        lines = iter(given.split("\n"))
        first, *others = wanted.split("\n")
        if not self.bindings.matches(first, next(lines)):
            yield f"begins otherwise: {given!r}"
        for line in others:
            if not any(self.bindings.matches(line, each) for each in lines):
                yield f"lacks {line!r} (in this place): {given!r}"

    def pushed(self, name: str) -> list[str]:
        """Return how the pushes to `name` differ from the recorded ones."""
        recorded = [
            out["params"]
            for each in RECORDING
            if each["session"] == name
            for out in each["out"]
            if out.get("method") == "notifications/claude/channel"
        ]
        for each in recorded:  # absent beats empty: a client may drop what it cannot show
            each["meta"] = {name: value for name, value in each["meta"].items() if value}
        self.sessions[name].wait_for(lambda _: len(self.sessions[name].pushes) >= len(recorded))
        return list(self.bindings.differences(recorded, self.sessions[name].pushes))


def known(result: dict[str, Any]) -> dict[str, Any]:
    """Return what of a recorded result a later version owes: its words are its own."""
    kept = {name: value for name, value in result.items() if name != "instructions"}
    if "serverInfo" in kept:
        kept["serverInfo"] = {"name": kept["serverInfo"]["name"]}
    if "tools" in kept:
        kept.pop("tools")
    return kept


def text_of(response: dict[str, Any]) -> str | None:
    content = response.get("result", {}).get("content")
    return content[0]["text"] if content else None


def test_each_listed_difference_is_a_recorded_case() -> None:
    assert {*OTHERWISE, *ELSEWHERE} <= {each["case"] for each in RECORDING}


def test_the_sessions_answer_as_upstreams_but_for_the_listed_differences(machine: Machine) -> None:
    git("init", "-q", cwd=machine.folder("alpha"))
    machine.folder("alpha/sub")
    world = World(machine, Bindings({"<cwd>": str(machine.work)}))
    world.start("A", "alpha")

    world.converse("A")

    assert world.complaints == []
    assert world.pushed("B") == []
    assert world.pushed("C") == []
    for name, deadly in (("B", signal.SIGTERM), ("C", signal.SIGINT)):
        world.sessions[name].kill(deadly)
        assert world.sessions[name].process.wait(10) == 0


def test_the_tools_take_every_argument_that_upstreams_took(machine: Machine) -> None:
    recorded = next(each for each in RECORDING if each["case"] == "tools-list")["out"][0]["result"]
    ours = {tool["name"]: tool["inputSchema"] for tool in machine.session().list_tools()}
    for tool in recorded["tools"]:
        schema = ours[tool["name"]]
        assert set(tool["inputSchema"]["properties"]) <= set(schema["properties"])
        assert set(schema.get("required", ())) <= set(tool["inputSchema"].get("required", ()))
        assert re.fullmatch("[a-z_]+", tool["name"])
