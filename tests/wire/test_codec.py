"""JSON in and out: strict about JSON, lenient about what upstream's clients rely on."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_peers.core.errors import BadRequestError
from claude_peers.wire.codec import decode, dumps, load_object, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One field of every kind that a request may have."""

    label: str
    note: str | None = None
    count: int = 0
    weight: int | None = None
    length: float = 0.0
    fragile: bool = False
    stamps: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()


@given(value=VALUES)
@settings(deadline=None)
def test_a_value_comes_back_as_it_went(value):
    assert loads(dumps(value)) == value


@given(value=VALUES)
@settings(deadline=None)
def test_json_is_always_a_single_line(value):
    assert b"\n" not in dumps(value)


def test_json_is_compact_and_not_escaped():
    assert dumps({"a": [1, "é\U0001f600"]}) == '{"a":[1,"é\U0001f600"]}'.encode()


def test_a_lone_surrogate_goes_out_as_valid_utf8():
    assert dumps("a\ud800b").decode() == '"a?b"'


@given(data=st.binary(max_size=40))
@settings(deadline=None)
def test_any_bytes_are_json_or_refused(data):
    try:
        loads(data)
    except BadRequestError as refusal:
        assert refusal.fact.startswith("The body is not JSON: ")  # noqa: PT017 - JSON is fine too


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000,
        b'{"a":' + b"1" * 10_000 + b"}",
        b"NaN",
        b"[Infinity]",
        b'{"a":-Infinity}',
        b"",
        b"x",
        b'{"a":1',
        b'{"a":1}{}',
        b"{'a':1}",
        b'"a\nb"',
        b"\x00",
    ],
    ids=lambda bomb: repr(bomb[:12]),
)
def test_what_is_not_json_is_refused_with_a_short_reason(bomb):
    with pytest.raises(BadRequestError, match=r"The body is not JSON: .") as refusal:
        loads(bomb)
    assert len(str(refusal.value)) < 250


@pytest.mark.parametrize("depth", [600, 3_000, 100_000])
def test_deep_nesting_around_a_surrogate_is_read_or_refused_but_no_crash(depth):
    bomb = b"[" * depth + b'"\\ud800"' + b"]" * depth
    try:
        loads(bomb)
    except BadRequestError as refusal:
        assert "too deeply nested" in refusal.fact  # noqa: PT017 - reading it is fine too


def test_of_two_equal_names_the_last_one_counts_as_for_upstream():
    assert loads(b'{"id":"a","id":"b"}') == {"id": "b"}


def test_a_byte_order_mark_is_ignored():
    assert loads(b"\xef\xbb\xbf{}") == {}


def test_bytes_that_are_no_utf8_become_replacement_characters():
    assert loads(b'"a\xff\xc3"') == "a\ufffd\ufffd"


def test_escaped_lone_surrogates_become_replacement_characters_wherever_they_are():
    text = rb'{"\ud800":["\udfffx",{"k":"\uD83d"},1,null,true]}'
    assert loads(text) == {"\ufffd": ["\ufffdx", {"k": "\ufffd"}, 1, None, True]}


def test_an_escaped_pair_of_surrogates_is_one_character():
    assert loads(rb'"\ud83d\ude00"') == "\U0001f600"


def test_raw_surrogates_are_no_utf8_and_become_replacement_characters():
    assert set(loads(b'"\xed\xa0\x80"')) == {"\ufffd"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"null", "null"),
        (b"true", "boolean"),
        (b"5", "number"),
        (b"5.5", "number"),
        (b'"x"', "string"),
        (b"[]", "array"),
    ],
)
def test_a_body_that_is_no_object_is_refused_by_what_it_is(text, kind):
    with pytest.raises(BadRequestError, match=f"The body is a JSON {kind}, not an object"):
        load_object(text)


def test_a_body_that_is_an_object_is_returned():
    assert load_object(b'{"a":1}') == {"a": 1}


def test_a_record_takes_each_field_of_its_type():
    body = {
        "label": "l",
        "note": "n",
        "count": 1,
        "weight": -2,
        "fragile": True,
        "stamps": ["a", "b"],
        "numbers": [1, 2],
    }
    assert decode(Parcel, body) == Parcel(
        label="l", note="n", count=1, weight=-2, fragile=True, stamps=("a", "b"), numbers=(1, 2)
    )


def test_a_missing_and_a_null_field_take_their_default():
    assert decode(Parcel, {"label": "l", "count": None, "stamps": None}) == Parcel(label="l")


def test_an_unknown_field_is_ignored():
    assert decode(Parcel, {"label": "l", "colour": {"x": 1}}) == Parcel(label="l")


@pytest.mark.parametrize("body", [{}, {"label": None}])
def test_a_missing_field_without_a_default_is_named(body):
    with pytest.raises(BadRequestError, match="`label` is missing"):
        decode(Parcel, body)


@pytest.mark.parametrize(
    ("scalar", "text"), [(42, "42"), (3.5, "3.5"), (5.0, "5"), (True, "1"), (False, "0"), ("", "")]
)
def test_a_scalar_is_text_where_text_is_wanted(scalar, text):
    assert decode(Parcel, {"label": scalar, "stamps": [scalar]}) == Parcel(
        label=text, stamps=(text,)
    )


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("label", [], "`label` must be a string, not a JSON array"),
        ("note", {}, "`note` must be a string, not a JSON object"),
        ("count", "1", "`count` must be a whole number below 2.53, not a JSON string"),
        ("count", 1.5, "`count` must be a whole number below 2.53, not a JSON number"),
        ("count", True, "`count` must be a whole number below 2.53, not a JSON boolean"),
        ("weight", 1 << 53, "`weight` must be a whole number"),
        ("weight", -(1 << 53), "`weight` must be a whole number"),
        ("length", "1", "`length` must be a number below 2.53, not a JSON string"),
        ("length", True, "`length` must be a number below 2.53, not a JSON boolean"),
        ("length", 2.0**53, "`length` must be a number below 2.53, not a JSON number"),
        ("fragile", 1, "`fragile` must be true or false, not a JSON number"),
        ("stamps", "ab", "`stamps` must be a list, not a JSON string"),
        ("stamps", ["a", []], r"`stamps\[1\]` must be a string, not a JSON array"),
        (
            "numbers",
            [1, None],
            r"`numbers\[1\]` must be a whole number below 2.53, not a JSON null",
        ),
    ],
)
def test_a_field_of_the_wrong_type_is_named_with_what_it_must_be(field, value, complaint):
    with pytest.raises(BadRequestError, match=complaint):
        decode(Parcel, {"label": "l", field: value})


@pytest.mark.parametrize("number", [(1 << 53) - 1, -(1 << 53) + 1, 0, 3.0, -0.0])
def test_a_whole_number_that_every_client_can_hold_is_taken(number):
    count = decode(Parcel, {"label": "l", "count": number}).count
    assert (count, type(count)) == (number, int)


@pytest.mark.parametrize("number", [1.5, 2, -0.5])
def test_a_number_may_have_a_fraction(number):
    length = decode(Parcel, {"label": "l", "length": number}).length
    assert (length, type(length)) == (number, float)


@given(body=st.dictionaries(st.sampled_from(["label", "count", "fragile", "numbers"]), VALUES))
@settings(deadline=None)
def test_any_object_is_a_record_or_refused(body):
    try:
        decode(Parcel, json.loads(json.dumps(body)))
    except BadRequestError as refusal:
        assert refusal.fact.startswith("`")  # noqa: PT017 - a record is fine too
