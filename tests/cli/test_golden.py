"""Our command line against upstream's recorded one: what it printed, ours prints first.

`OTHERWISE` lists every case in which stdout or the exit code is another one, with the reason; an
entry that no longer differs fails.
"""

from dataclasses import dataclass

from support.golden import Bindings, load, parse

RECORDING = load("cli-upstream.jsonl")
OVERVIEW = "claude-peers <any>\n\nWithout arguments it is an MCP server<any>"
NOTICE = "scripts notice a failure by its exit code"
NO_BROKER = f"{NOTICE}: 6 is no broker"
USAGE = f"{NOTICE}: 2 is wrong usage, everywhere"
OWN_WORDS = "our commands are others, and the program has another name"


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What we do instead, and why.

    Attributes:
        stdout: what ours begins with, where it is not what was recorded.
    """

    code: int
    reason: str
    stdout: str | None = None


OTHERWISE = {
    "down-status": Otherwise(6, NO_BROKER),
    "down-peers": Otherwise(6, NO_BROKER),
    "down-send": Otherwise(6, NO_BROKER),
    "down-kill-broker": Otherwise(6, NO_BROKER),
    "no-args": Otherwise(0, OWN_WORDS, OVERVIEW),
    "help-flag": Otherwise(0, OWN_WORDS, OVERVIEW),
    "unknown-command": Otherwise(2, USAGE, ""),
    "send-no-args": Otherwise(2, USAGE),
    "send-no-message": Otherwise(2, USAGE),
    "up-send-unknown": Otherwise(4, f"{NOTICE}: 4 is no such peer"),
    "up-send-empty": Otherwise(2, USAGE),
    "up-kill-broker": Otherwise(0, "the command signals nobody, itself included"),
}
STDERR = {
    "down-send": "the remedy replaces what Bun says",
    "send-no-args": "the usage is our own",
    "send-no-message": "the usage is our own",
    "up-send-empty": "the usage is our own",
}
"""Cases whose stderr is not what was recorded; all others begin with it."""
PEERS = (
    (
        "P",
        {
            "cwd": "/proj/alpha",
            "git_root": None,
            "tty": "pts/3",
            "summary": "alpha work \U0001f389",
        },
    ),
    ("Q", {"cwd": "/proj/beta", "git_root": None, "tty": None, "summary": ""}),
)


class Replayed:
    """Upstream's conversation held with our command line."""

    def __init__(self, cli, machine) -> None:
        self.cli, self.machine = cli, machine
        self.bindings = Bindings({"<port>": str(machine.port)})
        self.complaints: list[str] = []

    def run(self) -> None:
        before = {"up-empty-status": self.machine.serve, "up-status": self.peers_arrive}
        for each in RECORDING:
            before.get(each["case"], lambda: None)()
            if each["argv"] is not None:
                self.step(each)
            elif "http" in each:
                self.poll(each)

    def peers_arrive(self) -> None:
        for name, body in PEERS:
            pid = self.machine.bystander().pid
            joined = self.machine.post("/register", {"pid": pid, **body})
            self.bindings.values |= {f"<id:{name}>": joined["id"], f"<pid:{name}>": str(pid)}

    def step(self, each) -> None:
        ran = self.cli(*(self.bindings.fill(word) for word in each["argv"] or ("cli",)))
        agreed = OTHERWISE.get(each["case"])
        good = ran.code == each["exit_code"] and self.printed(each["stdout"], ran.out)
        if agreed is not None:
            wanted = each["stdout"] if agreed.stdout is None else agreed.stdout
            good = not good and ran.code == agreed.code and self.printed(wanted, ran.out)
        heard = not each["stderr"] or self.printed(each["stderr"], ran.err)
        if not good or heard is (each["case"] in STDERR):
            self.complaints.append(f"{each['case']}: {ran}")

    def printed(self, wanted, given) -> bool:
        """Whether ours begins like the recording and has its lines in order, perhaps among more."""
        if not wanted or not given:
            return wanted == given
        lines = iter(given.splitlines())
        first, *rest = wanted.splitlines()
        return self.bindings.matches(first, next(lines)) and all(
            any(self.bindings.matches(line, ours) for ours in lines) for line in rest
        )

    def poll(self, each) -> None:
        given = self.machine.post("/poll-messages", {"id": self.bindings.values["<id:P>"]})
        self.complaints += self.bindings.differences(parse(each["http"]), given)


def test_upstreams_conversation_comes_out_as_recorded_or_as_agreed(cli, machine):
    replayed = Replayed(cli, machine)
    replayed.run()
    assert replayed.complaints == []


def test_what_is_agreed_is_about_cases_that_were_recorded():
    recorded = {each["case"] for each in RECORDING}
    assert {*OTHERWISE, *STDERR} <= recorded
    assert all(agreed.reason for agreed in OTHERWISE.values())


def test_the_broker_and_its_peers_live_on(cli, machine):
    """What upstream's recording has as the death of its broker, and of whoever spoke to it."""
    node = machine.serve()
    assert cli("kill-broker").code == 0
    assert node.poll() is None
