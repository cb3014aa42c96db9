"""Our broker against the recorded broker of upstream, request by request.

`DELIBERATE` is the whole list of what we answer otherwise. A difference that is not in it fails,
and so does an entry that no longer differs.
"""

import subprocess

from support.golden import Bindings, Difference, Replay, load
from support.machine import Machine

RECORDING = load("http-upstream.jsonl")

UNLISTED = Difference(404, "GET and HEAD serve their own paths only; upstream greets on any")
METHOD = Difference(405, "a request is a POST; upstream greets on any other method")
PAGE = Difference(405, "a page takes GET and HEAD; upstream does not know it under POST")
PREFLIGHT = Difference(403, "no page of another origin may call, so none may ask whether it may")
MALFORMED = Difference(400, "a body that is not JSON is the caller's mistake, not our crash (500)")
NO_OBJECT = Difference(400, "a request is an object; upstream reads any JSON value as an empty one")
MISSING = Difference(
    400, "a missing field is named; upstream shows a database error or 'undefined'"
)
WRONG_TYPE = Difference(400, "a value of the wrong type is named, not stored or shown as a crash")
UNKNOWN_PATH = Difference(404, "an unknown path is unknown whatever its body is")
NOT_JSON = Difference(415, "only application/json, because a page may send the other types unasked")
ORIGIN = Difference(403, "a web page calls: no local program sends Origin")
PROXY = Difference(401, "a proxy speaks for somebody unknown; on loopback there is none")
ANONYMOUS = Difference(
    200, "pid, cwd and summary may be absent, as agentmesh 0.4 has it", undo=True
)
UNKNOWN_PID = Difference(
    200, "a pid unknown here may be a container's: its peer lives by its heartbeat", undo=True
)
FORWARDED = Difference(200, "the id of a peer that was replaced leads to its successor for a day")
SPARSE = Difference(200, "cwd and summary may be absent, as agentmesh 0.4 has it")

OPERATIONS = (
    "register", "heartbeat", "set-summary", "list-peers", "send-message", "poll-messages",
    "unregister",
)  # fmt: skip
CASES: dict[Difference, tuple[str, ...]] = {
    UNLISTED: ("get-unknown", "health-slash"),
    METHOD: (*(f"get-{each}" for each in OPERATIONS), "head-register",
             "put-register", "delete-register", "patch-register", "put-list-peers-body",
             "delete-health"),
    PREFLIGHT: ("options-register", "options-root"),
    PAGE: ("post-health-empty", "post-health-object", "post-root-object"),
    UNKNOWN_PATH: ("post-unknown-empty", "post-unknown-badjson"),
    MALFORMED: (
        *(f"{each}-body-{kind}" for each in OPERATIONS for kind in ("empty", "badjson")),
        "heartbeat-trailing", "heartbeat-nan", "heartbeat-single-quote", "send-nul-raw",
    ),
    NO_OBJECT: tuple(
        f"{each}-body-{kind}"
        for each in OPERATIONS
        for kind in ("null", "array", "string", "number")
    ),
    MISSING: (
        "set-summary-body-object-empty", "send-message-body-object-empty",
        "set-summary-missing", "set-summary-null",
        "send-to-missing", "send-to-null", "send-from-missing", "send-from-null",
        "send-text-missing", "send-text-null",
    ),
    WRONG_TYPE: (
        "register-cwd-array", "register-cwd-object",
        "register-pid-string", "register-pid-numeric-string", "register-pid-float",
        "register-pid-bool", "register-pid-array", "register-pid-huge", "register-pid-2e40",
        "heartbeat-object-id", "heartbeat-array-id", "set-summary-object", "list-exclude-array",
        "poll-object", "send-to-object", "send-to-array", "send-text-object", "send-text-array",
    ),
    NOT_JSON: ("heartbeat-header-text-plain", "heartbeat-header-form",
               "heartbeat-header-no-content-type"),
    ORIGIN: ("heartbeat-header-origin",),
    PROXY: ("heartbeat-header-host-foreign",),
    ANONYMOUS: ("register-body-object-empty", "register-no-pid", "register-pid-null"),
    FORWARDED: ("send-to-old-id", "poll-new-id-B2"),
    UNKNOWN_PID: ("register-pid-negative", "register-pid-dead"),
    SPARSE: ("register-no-cwd", "register-no-summary", "register-pid-cwd-only",
             "register-summary-null", "register-cwd-null"),
}  # fmt: skip
DELIBERATE = {case: difference for difference, cases in CASES.items() for case in cases}


def test_each_listed_difference_is_a_recorded_case() -> None:
    assert set(DELIBERATE) <= {each["case"] for each in RECORDING}
    assert sum(len(cases) for cases in CASES.values()) == len(DELIBERATE)


def test_the_broker_answers_as_upstream_did_but_for_the_listed_differences(
    machine: Machine,
) -> None:
    machine.serve(CLAUDE_PEERS_RATE_LIMIT_RPM="0", CLAUDE_PEERS_MAILBOX_LIMIT="0")
    living = {name: machine.bystander() for name in "ABCDEF"}
    replay = Replay(
        port=machine.port,
        bindings=Bindings({f"<pid:{name}>": str(each.pid) for name, each in living.items()}),
        deliberate=DELIBERATE,
        before={"send-to-dead": lambda: end(living["D"])},
    )

    complaints = replay.complaints(RECORDING)
    assert not complaints, "\n".join(complaints)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)
