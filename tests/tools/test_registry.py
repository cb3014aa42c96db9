"""A tool's schema and its arguments come from the function that is the tool."""

from typing import Annotated, Literal, Optional

import pytest

from claude_peers.core.errors import BadRequestError
from claude_peers.core.limits import BODY
from claude_peers.tools.registry import DESCRIPTION, Progress, Shown, arguments, tool


@tool(
    aliases={"to": "to_id", "peer_id": "to_id"},
    always_load=True,
    also=("post",),
    to_id="Whom",
    message={"description": "What", "maxLength": 9},
)
async def send(
    peer: "Undefined",  # noqa: F821 - a context's type need not be known at run time
    to_id: str,
    message: str,
    full: bool = False,
    reply_to: int | None = None,
    weight: float = 1.5,
    scope: Literal["machine", "repo"] = "machine",
    tags: list[str] | None = None,
) -> str | Shown:
    """Send something.

    More about it.
    """
    return f"{to_id} {message}"


@tool(listed=False)
async def bare(peer: object) -> str:
    """Do it."""
    return ""


def given(**values):
    return arguments(send, {"to_id": "a", "message": "b", **values})


def test_a_function_becomes_a_tool():
    assert send.name == "send"
    assert send.description == "Send something.\n\nMore about it."
    assert send.always_load
    assert send.listed
    assert send.also == ("post",)
    assert not bare.always_load
    assert not bare.listed


def test_annotations_and_defaults_become_the_schema_and_the_context_stays_out():
    assert send.input_schema == {
        "type": "object",
        "properties": {
            "to_id": {"type": "string", "description": "Whom"},
            "message": {"type": "string", "description": "What", "maxLength": 9},
            "full": {"type": "boolean", "default": False},
            "reply_to": {"type": "integer"},
            "weight": {"type": "number", "default": 1.5},
            "scope": {"type": "string", "enum": ["machine", "repo"], "default": "machine"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["to_id", "message"],
    }
    assert bare.input_schema == {"type": "object", "properties": {}}


@pytest.mark.anyio
async def test_a_tool_runs_with_what_was_read():
    assert await send.run(None, **given()) == "a b"


def test_the_way_to_tell_progress_is_no_argument():
    @tool()
    async def slow(peer: object, progress: Progress, times: int = 1) -> str:
        """Do it."""
        return ""

    assert slow.reports
    assert not bare.reports
    assert slow.input_schema["properties"] == {"times": {"type": "integer", "default": 1}}
    assert arguments(slow, {"progress": 1}) == {}


def test_old_ways_to_say_optional_are_understood():
    @tool()
    async def old(peer: object, name: Optional[str] = None) -> str:  # noqa: UP045 - the subject
        """Do it."""
        return ""

    assert old.input_schema["properties"] == {"name": {"type": "string"}}


def test_a_mistake_in_a_declaration_is_found_at_once():
    async def silent(peer: object) -> str:
        return ""

    async def odd(peer: object, when: Annotated[set[str], "x"]) -> str:
        """Do it."""
        return ""

    async def either(peer: object, value: int | str) -> str:
        """Do it."""
        return ""

    silent_long = type(silent)(silent.__code__, {}, "long")
    silent_long.__doc__ = "x" * DESCRIPTION
    for wrong in (silent, silent_long):
        with pytest.raises(TypeError, match="docstring"):
            tool()(wrong)
    for wrong in (odd, either):
        with pytest.raises(TypeError, match="no JSON schema"):
            tool()(wrong)
    with pytest.raises(TypeError, match="nobody"):
        tool(nobody="x")(bare.run)
    with pytest.raises(TypeError, match="nobody"):
        tool(aliases={"x": "nobody"})(bare.run)


def test_no_arguments_is_an_empty_object():
    assert arguments(bare, None) == {}
    assert arguments(bare, {}) == {}


@pytest.mark.parametrize("value", [[], "x", 5, True, [{"to_id": "a"}]])
def test_arguments_that_are_no_object_are_refused(value):
    with pytest.raises(BadRequestError, match="object"):
        arguments(send, value)


def test_unknown_arguments_are_ignored():
    assert given(color="red") == {"to_id": "a", "message": "b"}


def test_aliases_count_unless_the_argument_itself_is_there():
    assert arguments(send, {"to": "x", "message": "b"})["to_id"] == "x"
    assert arguments(send, {"to": "x", "to_id": "y", "message": "b"})["to_id"] == "y"
    assert arguments(send, {"to": "x", "to_id": None, "message": "b"})["to_id"] == "x"


def test_a_missing_argument_is_named():
    with pytest.raises(BadRequestError, match="`message`"):
        arguments(send, {"to_id": "a"})
    with pytest.raises(BadRequestError, match="`to_id`"):
        arguments(send, {"to_id": None, "message": "b"})


def test_null_counts_as_absent():
    assert given(full=None, reply_to=None) == {"to_id": "a", "message": "b"}


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("message", 5, "5"),
        ("message", 5.0, "5"),
        ("message", 3.5, "3.5"),
        ("message", True, "1"),
        ("message", "", ""),
        ("message", "a\ud800b", "a\ufffdb"),
        ("message", "🎉", "🎉"),
        ("full", True, True),
        ("full", "true", True),
        ("full", " False ", False),
        ("full", 1, True),
        ("full", "0", False),
        ("reply_to", 5, 5),
        ("reply_to", "5", 5),
        ("reply_to", " -5 ", -5),
        ("reply_to", 5.0, 5),
        ("weight", 2, 2.0),
        ("weight", "2.5", 2.5),
        ("scope", "repo", "repo"),
        ("tags", ["a", 1], ["a", "1"]),
        ("tags", "a", ["a"]),
        ("tags", [], []),
    ],
)
def test_what_is_plainly_meant_is_understood(name, value, read):
    assert given(**{name: value})[name] == read
    assert type(given(**{name: value})[name]) is type(read)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("message", ["x"]),
        ("message", {}),
        ("full", "maybe"),
        ("full", 2),
        ("full", 1.5),
        ("full", []),
        ("reply_to", "five"),
        ("reply_to", 5.5),
        ("reply_to", True),
        ("reply_to", 2**53),
        ("reply_to", "9" * 40),
        ("reply_to", []),
        ("weight", "heavy"),
        ("weight", "nan"),
        ("weight", float("inf")),
        ("weight", 10**400),
        ("weight", True),
        ("weight", []),
        ("tags", [["a"]]),
        ("tags", {}),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(name, value):
    with pytest.raises(BadRequestError, match=f"`{name}"):
        given(**{name: value})


def test_a_wrong_choice_is_told_the_choices():
    with pytest.raises(BadRequestError, match="Use one of machine, repo"):
        given(scope="galaxy")


def test_a_text_over_the_limit_of_a_body_is_refused():
    assert len(given(message="x" * BODY)["message"]) == BODY
    for text in ("x" * (BODY + 1), "é" * (BODY // 2 + 1)):
        with pytest.raises(BadRequestError, match="file"):
            given(message=text)
