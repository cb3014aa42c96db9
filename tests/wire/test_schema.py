"""A request's schema takes exactly what its record is decoded from."""

from dataclasses import dataclass, field, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from claude_peers.broker.operations import OPERATIONS
from claude_peers.core.errors import BadRequestError
from claude_peers.wire.codec import decode
from claude_peers.wire.quirks import renamed
from claude_peers.wire.schema import FORM, answer_schema, request_schema

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**54), 2**54),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed:
    """A record whose only field may be left out, and has a form of its own."""

    name: str | None = field(default=None, metadata={FORM: "name"})


def test_a_field_of_a_form_of_its_own_may_be_null_if_it_may_be_absent():
    schema = request_schema(Renamed, {})
    assert schema["required"] == []
    valid = Draft202012Validator(schema).is_valid
    told = {each: valid({"name": each}) for each in (None, "a-b", "A", 5, -5, 1.5)}
    assert [each for each, taken in told.items() if taken] == [None, "a-b", 5, 1.5]


@pytest.mark.parametrize("shape", [set, tuple[int, ...], bytes])
def test_what_is_no_json_is_no_answer(shape):
    with pytest.raises(LookupError, match="no shape of JSON"):
        answer_schema(shape, {})


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.path)
@given(data=st.data())
def test_a_body_is_taken_exactly_if_the_schema_says_so(operation, data):
    # What a form narrows is refused by the operation, not by the decoder.
    names = [each.name for each in fields(operation.request) if FORM not in each.metadata]
    given_ = st.dictionaries(st.sampled_from([*names, *operation.also, "else"]), VALUES)
    narrow = {
        each.name: [] if each.type == tuple[str, ...] else "a"
        for each in fields(operation.request)
        if each.name not in names
    }
    schema = request_schema(operation.request, operation.also)
    for name in narrow:
        schema["properties"].pop(name)
    body = data.draw(given_) | narrow
    try:
        decode(operation.request, renamed(body, operation.also))
        taken = True
    except BadRequestError:
        taken = False
    assert Draft202012Validator(schema).is_valid(body) == taken
