"""A signature fits one request, at one time, on one connection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_peers.wire import signature
from claude_peers.wire.signature import Target

TOKEN = "t" * 43
HERE = Target("POST", "/send-message", b"connection")
BODY = b'{"a":1}'
MADE = {
    "token": TOKEN,
    "method": "POST",
    "path": "/send-message",
    "at": 1_800_000_000.9,
    "number": 3,
    "digest": signature.digest_of(BODY),
    "binding": b"connection",
}


def made(**changed):
    given = {**MADE, **changed}
    target = Target(*(given.pop(name) for name in ("method", "path", "binding")))
    return signature.sign(given.pop("token"), target, **given)


def fits(value):
    found = signature.read(value)
    return found is not None and found.fits(HERE)


def test_a_signature_fits_what_it_was_made_for():
    found = signature.read(made())
    assert found is not None
    assert (found.token, found.at, found.number) == (TOKEN, 1_800_000_000, 3)
    assert found.fits(HERE)
    assert found.covers(BODY)


@pytest.mark.parametrize(
    "changed",
    [{"method": "GET"}, {"path": "/join"}, {"binding": b"another"}, {"binding": b""}],
)
def test_it_fits_no_other_request_and_no_other_connection(changed):
    assert not fits(made(**changed))


@pytest.mark.parametrize("place", range(1, 6))
def test_no_part_of_it_can_be_changed(place):
    parts = made().split(" ")
    last = parts[place][-1]
    parts[place] = parts[place][:-1] + ("1" if last != "1" else "2")
    assert not fits(" ".join(parts))


def test_it_covers_no_other_body():
    found = signature.read(made())
    assert found is not None
    assert not found.covers(BODY + b" ")
    assert not found.covers(b"")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        made() + " ",
        made() + "\n",
        made().replace("1 ", "2 ", 1),
        made().upper(),
        "x" * 500,
    ],
)
def test_what_is_no_signature_is_told(value):
    assert signature.read(value) is None


@given(st.text(max_size=300) | st.text("01 abcdef-_", max_size=300))
def test_nothing_that_is_sent_breaks_the_reader(value):
    found = signature.read(value)
    assert found is None or not found.fits(Target("GET", "/", b""))
