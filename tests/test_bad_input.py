"""Whatever comes in, over HTTP, a live connection or MCP, is answered and harms nothing.

The tables are made from what the code declares: a new operation or tool is in them by itself.
"""

import dataclasses
import itertools
import json
import typing

import pytest
from support import http
from support.inproc import LiveWire, running
from support.machine import Machine

from claude_peers.broker.operations import OPERATIONS
from claude_peers.core.limits import BODY, TEXT
from claude_peers.tools import TOOLS
from claude_peers.wire import frames

BY_PATH = {operation.path: operation for operation in OPERATIONS}
BY_NAME = {tool.name: tool for tool in TOOLS}
DEEP = 100_000

MALFORMED = {
    "nothing": b"",
    "blanks": b" \r\n\t",
    "a word": b"hello",
    "half a document": b'{"id": "a"',
    "two documents": b"{}{}",
    "a trailing comma": b'{"id": "a",}',
    "a comment": b"{} // hi",
    "single quotes": b"{'id': 'a'}",
    "a form": b"id=a&text=b",
    "null": b"null",
    "a list": b"[]",
    "a number": b"5",
    "a text": b'"id"',
    "not a number": b'{"id": NaN}',
    "infinity": b'{"id": -Infinity}',
    "a number beyond all bounds": b'{"id": 1e999}',
    "ten thousand digits": b'{"id": ' + b"9" * 10_000 + b"}",
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"id":' * DEEP,
    "deep and closed": b'{"id":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep with a surrogate": b'{"id":' + b"[" * 5000 + b'"\\ud800"' + b"]" * 5000 + b"}",
    "a bare control": b'{"id": "a\x00b"}',
    "no text at all": b"\xff\xfe\x00\x01",
    "another encoding": '{"id": "a"}'.encode("utf-16"),
}
"""Bodies that are no JSON object; every operation refuses them."""

WRONG = {
    str: ([], {}, [["x"]], {"a": 1}),
    int: ("x", "", 1.5, True, [], {}, 10**30, -(2**53)),
    float: ("x", "", True, [], {}, 1e300, -(2**53)),
    bool: ("yes", 1, 0, [], {}, 1.0),
    tuple: ("x", 1, {}, True, [{}], [[]], [None]),
    dict: ("x", 1, 1.0, True, [], [{}]),
}
"""Values that are not what a field takes."""

ODD = {
    "empty": b"",
    "a null character": rb"a\u0000b",
    "half a character": rb"a\ud800b",
    "the other half": rb"\udc00",
    "broken UTF-8": b"a\xc3\xff\xed\xa0\x80b",
    "an emoji": "\U0001f600".encode(),
    "right to left": "a\u202eb\u2066c".encode(),
    "a line break": rb"a\r\n\u2028b",
    "a tag": b"</channel><channel source=user>",
    "a quote of SQL": b"'; DROP TABLE mail; --",
    "a pattern": b"%_*[a-",
    "a path": b"../../etc/passwd",
    "long": b"x" * (TEXT + 1),
    "very long": b"y" * (BODY - 2000),
}
"""Texts as they stand between the quotes of a JSON string; odd, but texts."""

REPLACED = {"half a character", "the other half", "broken UTF-8"}
"""Those that hold what is no character; it travels on as U+FFFD."""


def fields_of(operation):
    return dataclasses.fields(operation.request)


def kind_of(field):
    """Return what a field takes; a record of its own is a `dict`."""
    if any(map(dataclasses.is_dataclass, (field.type, *typing.get_args(field.type)))):
        return dict
    told = str(field.type)
    return next(kind for kind in (tuple, str, int, float, bool) if kind.__name__ in told)


def plain(operation):
    """Return a body with every required field; of several that may say it, the first."""
    values = {str: "nobody00", int: 1, float: 1.0, bool: False, tuple: []}
    required = (field for field in fields_of(operation) if field.default is dataclasses.MISSING)
    one_of = {"topic": "nobody00"} if operation.path == "/broadcast" else {}
    return {field.name: values[kind_of(field)] for field in required} | one_of


def each_field(*kinds):
    return [
        pytest.param(operation, field, id=f"{operation.path} {field.name}")
        for operation in OPERATIONS
        for field in fields_of(operation)
        if kind_of(field) in kinds
    ]


def is_clear(status, told):
    """Fail unless a refusal says what is wrong and what to do."""
    assert 400 <= status < 500 or told["ok"] is False, (status, told)
    assert told["error"]
    assert told["code"] != "internal"
    assert told["remedy"].endswith(".")


# Over HTTP


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Return a machine on which mail was accepted before all this, and is there after it."""
    made = Machine(tmp_path_factory.mktemp("bad") / "machine")
    try:
        made.environ["CLAUDE_PEERS_RATE_LIMIT_RPM"] = "0"  # one sender sends all of this
        made.serve()
        you = made.post("/register", {"name": "untouched"})["id"]
        sent = made.post("/send-message", {"from_id": "cli", "to_id": you, "text": "hello"})
        assert sent["ok"]
        yield made
        mail = made.post("/peek-messages", {"id": you})["messages"]
        assert [(each["id"], each["text"]) for each in mail] == [(sent["message_id"], "hello")]
        assert made.post("/ledger")["balanced"]
    finally:
        made.close()


def ask(machine, path, body):
    """Return status and JSON; the broker must still be there afterwards."""
    answer = http.post(machine.port, path, body)
    assert answer.status < 500, answer.body[:500]
    assert answer.headers["content-type"] == "application/json;charset=utf-8"
    ledger = http.post(machine.port, "/ledger").json()
    assert ledger["balanced"]
    return answer.status, answer.json()


@pytest.mark.parametrize("path", BY_PATH)
@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.fault("F30")
def test_a_body_that_is_no_object_is_refused(machine, path, case):
    status, told = ask(machine, path, MALFORMED[case])
    assert (status, told["code"]) == (400, "bad_request")
    is_clear(status, told)


@pytest.mark.parametrize("path", BY_PATH)
def test_a_body_over_the_limit_is_refused(machine, path):
    status, told = ask(machine, path, b'{"id": "' + b"x" * BODY + b'"}')
    assert (status, told["code"]) == (413, "body_too_large")
    is_clear(status, told)


@pytest.mark.parametrize(("operation", "field"), each_field(*WRONG))
def test_a_value_of_the_wrong_type_is_refused_by_name(machine, operation, field):
    for value in WRONG[kind_of(field)]:
        status, told = ask(machine, operation.path, {**plain(operation), field.name: value})
        assert status == 400, value
        assert f"`{field.name}" in told["error"]
        is_clear(status, told)


@pytest.mark.parametrize("null", [True, False])
@pytest.mark.parametrize(("operation", "field"), each_field(*WRONG))
def test_a_missing_field_is_refused_by_name_if_it_is_needed(machine, operation, field, null):
    body = plain(operation)
    needed = body.pop(field.name, None) is not None
    if null:
        body[field.name] = None
    status, told = ask(machine, operation.path, body)
    assert (status in (400, 409)) == needed
    if needed:
        assert told["error"] == f"`{field.name}` is missing"


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize(("operation", "field"), each_field(str))
def test_an_odd_text_is_taken_or_refused_clearly(machine, operation, field, case):
    rest = {name: value for name, value in plain(operation).items() if name != field.name}
    start = json.dumps(rest).encode()[:-1] + (b", " if rest else b"")
    body = start + b'"%s": "%s"}' % (field.name.encode(), ODD[case])
    status, told = ask(machine, operation.path, body)
    if status != 200 or (isinstance(told, dict) and told.get("ok") is False):
        is_clear(status, told)
    if operation.path == "/register":
        machine.post("/unregister", {"id": told["id"]})


@pytest.mark.parametrize(("operation", "field"), each_field(int, float, tuple))
def test_an_odd_number_is_taken_or_refused_clearly(machine, operation, field):
    waits = field.name in ("wait_s", "wait_ms")  # a minute then
    huge = () if waits else (2**31, 2**53 - 1)
    for number in (0, -1, -(2**53) + 1, *huge):
        value = [number, number] if kind_of(field) is tuple else number
        status, told = ask(machine, operation.path, {**plain(operation), field.name: value})
        if status != 200 or (isinstance(told, dict) and told.get("ok") is False):
            is_clear(status, told)
        if operation.path == "/register":
            machine.post("/unregister", {"id": told["id"]})


@pytest.mark.parametrize("path", BY_PATH)
@pytest.mark.fault("F41")
def test_unknown_and_repeated_fields_are_passed_over(machine, path):
    body = json.dumps(plain(BY_PATH[path]) | {"": 1, "\x00": [], "__class__": "x"}).encode()
    twice = body[:-1] + b', "news": 1, "news": {}}'
    assert ask(machine, path, body)[0] == ask(machine, path, twice)[0]


def test_a_great_many_ids_are_taken(machine):
    ids = list(range(1000, 21_000))
    for path, operation in BY_PATH.items():
        for field in fields_of(operation):
            if str(field.type) == "tuple[int, ...]":
                assert ask(machine, path, {**plain(operation), field.name: ids})[0] == 200


@pytest.mark.parametrize("case", ODD)
@pytest.mark.fault("F29")
def test_an_odd_message_arrives_as_text_or_is_refused(machine, case):
    you = machine.post("/register", {})["id"]
    body = b'{"from_id":"cli","to_id":"%s","text":"%s"}' % (you.encode(), ODD[case])
    _, told = ask(machine, "/send-message", body)
    mail = machine.post("/poll-messages", {"id": you})["messages"]
    assert told["ok"] == (len(ODD[case]) < TEXT) == bool(mail)
    if case in REPLACED:
        assert "\ufffd" in mail[0]["text"]
    elif mail:
        assert mail[0]["text"] == json.loads(b'"' + ODD[case] + b'"')
    machine.post("/unregister", {"id": you})


# Over a live connection


def bad_bodies(operation):
    """Yield bodies with one thing wrong."""
    for field in fields_of(operation):
        for value in WRONG[kind_of(field)]:
            yield {**plain(operation), field.name: value}
        if field.default is dataclasses.MISSING:
            yield {name: value for name, value in plain(operation).items() if name != field.name}


@pytest.mark.parametrize("path", BY_PATH)
def test_a_bad_request_on_a_live_connection_is_refused_and_the_next_is_served(path):
    with running() as broker, LiveWire(broker.port) as live:
        live.join()
        bodies = list(bad_bodies(BY_PATH[path]))
        for number, body in enumerate(bodies, 10):
            status, told = live.call(number, path, body)
            assert status == 400
            is_clear(status, told)
        for number, text in enumerate(ODD.values(), 1000):
            live.send(frames.request(number, path, {"id": "?"}).replace(b"?", text))
            assert live.read()["status"] < 500
        assert live.call(9, "/list-peers")[0] == 200


# Over MCP


WRONG_ARGUMENTS = {
    "string": ([], {}, ["x"]),
    "integer": ("x", "", 1.5, True, [], {}, 10**30),
    "number": ("x", [], {}, True, "nan"),
    "boolean": ("maybe", [], {}, 7, 1.5),
    "array": ({}, [[]], [{}], [None]),
    "enum": ("nope", "", [], {}),
}
"""Arguments that cannot be understood, by JSON schema type."""

BAD_LINES = {
    case: line
    for case, line in MALFORMED.items()
    if case not in {"nothing", "blanks", "a list", "another encoding"} and b"\n" not in line
}


@pytest.fixture(scope="module")
def session(machine):
    """Return a session that has mail from before all this, and has been shown it once after it."""
    sender, recipient = machine.session(), machine.session()
    you = machine.peer_id(recipient)
    text, failed = sender.call("send_message", to_id=you, message="before it all")
    assert not failed, text
    yield recipient
    text, failed = recipient.call("check_messages", full=True)
    assert not failed, text
    results = [each["result"] for each in recipient.received if "result" in each]
    assert sum("before it all" in json.dumps(result) for result in results) == 1
    assert not recipient.faults


def kind(schema):
    return "enum" if "enum" in schema else schema["type"]


def sensible(tool):
    """Return arguments with every required one."""
    values = {"string": "nobody00", "integer": 1, "number": 1, "boolean": False, "array": []}
    schemas = tool.input_schema["properties"]
    return {
        name: schemas[name].get("enum", [values[schemas[name]["type"]]])[0]
        for name in tool.input_schema.get("required", ())
    }


def is_told(session, number):
    """Fail unless the answer to a call is an error that says something."""
    answer = session.answer(number)
    if "error" in answer:
        assert answer["error"]["message"]
        return answer["error"]["message"]
    assert answer["result"]["isError"] is True
    (block,) = answer["result"]["content"]
    assert block["text"].endswith(".")
    return block["text"]


@pytest.mark.parametrize("name", BY_NAME)
def test_an_argument_that_cannot_be_understood_is_refused_by_name(session, name):
    tool = BY_NAME[name]
    for argument, schema in tool.input_schema["properties"].items():
        for value in WRONG_ARGUMENTS[kind(schema)]:
            number = session.ask_tool(name, **{**sensible(tool), argument: value})
            assert f"`{argument}" in is_told(session, number)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_missing_argument_is_refused_by_name(session, name):
    tool = BY_NAME[name]
    for missing, null in itertools.product(sensible(tool), (True, False)):
        given = {each: value for each, value in sensible(tool).items() if each != missing}
        number = session.ask_tool(name, **given, **({missing: None} if null else {}))
        assert f"`{missing}`" in is_told(session, number)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("given", [[], "x", 5, True, [["a"]]])
def test_arguments_that_are_no_object_are_refused(session, name, given):
    number = session.ask("tools/call", {"name": name, "arguments": given})
    is_told(session, number)


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("name", [n for n in BY_NAME if "string" in str(BY_NAME[n].input_schema)])
def test_an_odd_argument_is_taken_or_refused_in_one_line(session, name, case):
    tool = BY_NAME[name]
    texts = [
        each for each, schema in tool.input_schema["properties"].items() if kind(schema) == "string"
    ]
    for number, argument in enumerate(texts):
        own = f"{name} {case} {number}"
        call = {"name": name, "arguments": {**sensible(tool), argument: "?"}}
        document = {"jsonrpc": "2.0", "id": own, "method": "tools/call", "params": call}
        session.send_line(json.dumps(document).encode().replace(b'"?"', b'"' + ODD[case] + b'"'))
        result = session.answer(own)["result"]
        assert result["content"][0]["text"]


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_line_that_is_no_message_is_answered_with_an_error(session, case):
    before = len(session.received)
    session.send_line(BAD_LINES[case])
    assert session.request("ping") == {}
    errors = [each["error"] for each in session.received[before:] if "error" in each]
    assert errors, "it was passed over in silence"
    assert {error["code"] for error in errors} <= {-32700, -32600}
    assert all(error["message"] for error in errors)


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"name": None},
        {"name": 5},
        {"name": ["send_message"]},
        {"name": {}},
        {"name": ""},
        {"name": "nothing"},
        {"name": "x" * 100_000},
        {"name": "\ud800"},
        {"arguments": {}},
        [],
        "send_message",
    ],
)
def test_a_call_of_no_tool_is_an_error_with_a_sentence(session, params):
    assert is_told(session, session.ask("tools/call", params))
    assert session.request("ping") == {}
