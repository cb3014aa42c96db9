"""The join string says all, and a part of it nothing."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_peers.core.errors import BadRequestError
from claude_peers.wire import invitation
from claude_peers.wire.invitation import Address, Invitation

PIN = hashlib.sha256(b"certificate").digest()
CODE = invitation.make_code(bytes(range(16)))
INVITED = Invitation(
    addresses=(Address("10.0.0.1", 7899), Address("fd00::1", 7900), Address("mac.lan", 1)),
    pin=PIN,
    code=CODE,
)
WORD = str(INVITED)


def test_a_join_string_is_one_word_that_every_channel_leaves_alone():
    assert re.fullmatch(r"cp1_[A-Za-z0-9_-]+", WORD)
    assert invitation.read(WORD) == INVITED
    assert invitation.read(f"  {WORD}\n") == INVITED


@given(
    st.lists(
        st.builds(
            Address,
            st.sampled_from(["10.0.0.1", "a.example", "::1", "fe80::2"]),
            st.integers(1, 65535),
        ),
        min_size=1,
        max_size=8,
    ),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
)
def test_whatever_was_written_is_read(addresses, pin, code):
    made = Invitation(addresses=tuple(addresses), pin=pin, code=invitation.make_code(code))
    assert invitation.read(str(made)) == made


@given(st.integers(4, len(WORD) - 1), st.characters())
def test_a_changed_character_is_noticed(place, other):
    changed = WORD[:place] + other + WORD[place + 1 :]
    if changed != WORD:
        with pytest.raises(BadRequestError, match="is no join string"):
            invitation.read(changed)


@given(st.integers(0, len(WORD) - 1))
def test_a_part_is_noticed(length):
    with pytest.raises(BadRequestError, match="Copy the whole word"):
        invitation.read(WORD[:length])


@given(st.text(max_size=200) | st.text("cp1_Ab-", max_size=200).map(lambda text: "cp1_" + text))
def test_nothing_that_is_pasted_breaks_the_reader(text):
    with pytest.raises(BadRequestError):
        invitation.read(text)


def spoilt(places):
    """Return a join string whose addresses are these bytes."""
    made = invitation._text(hashlib.sha256(PIN + bytes(16) + places).digest()[:4])
    raw = invitation.base64.urlsafe_b64decode(made + "==") + PIN + bytes(16) + places
    return "cp1_" + invitation._text(raw)


@pytest.mark.parametrize(
    "places",
    [
        b"10.0.0.1",
        b"10.0.0.1:0",
        b"10.0.0.1:65536",
        b":7899",
        b"a:1,",
        b"[x]:1",
        b"a b:1",
        b"\xff:1",
    ],
)
def test_what_is_no_address_is_told(places):
    with pytest.raises(BadRequestError, match="it names no address"):
        invitation.read(spoilt(places))


def test_no_address_at_all_is_not_whole():
    with pytest.raises(BadRequestError, match="a part of it is missing"):
        invitation.read(spoilt(b""))


def test_a_word_without_end_is_not_read():
    with pytest.raises(BadRequestError, match="too long"):
        invitation.read("cp1_" + "A" * invitation.MOST)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:7899", Address("10.0.0.1", 7899)),
        ("[fd00::1]:7899", Address("fd00::1", 7899)),
        ("mac:7899", Address("mac", 7899)),
        ("mac", None),
        ("fd00::1:7899", None),
    ],
)
def test_an_address_is_read_as_it_is_written(text, address):
    assert invitation.read_address(text) == address
    assert address is None or str(address) == text
