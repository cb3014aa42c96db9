"""Ids, names, and who takes over a mailbox."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_peers.core.identity import as_name, free_name, is_name, key, mint, predecessor
from claude_peers.core.models import Peer, PeerId, Presence

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


def away(peer_id: str, *keys: str, presence: Presence = Presence.AWAY) -> Peer:
    return Peer(id=PeerId(peer_id), name=peer_id, keys=keys, presence=presence)


@given(draws=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_an_id_has_eight_lower_case_letters_or_digits(draws):
    assert re.fullmatch(r"[a-z0-9]{8}", mint(draws.randrange))


def test_an_id_that_is_taken_is_drawn_again():
    draws = iter([0] * 8 + [1] * 8)
    assert mint(lambda _: next(draws), taken={"aaaaaaaa"}) == "bbbbbbbb"


@pytest.mark.parametrize("name", ["a", "0", "repo.main", "a-b_c.d", "x" * 64, "a."])
def test_a_name_is_letters_digits_dots_dashes_and_underscores(name):
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "A", ".a", "-a", "_a", "a b", "a@b", "é", "a\n", "x" * 65])
def test_anything_else_is_no_name(name):
    assert not is_name(name)


@given(text=st.text())
@settings(deadline=None)
def test_any_text_becomes_a_name(text):
    assert is_name(as_name(text))


@given(start=st.text(max_size=80), dots=st.text(".-_", max_size=80), end=st.text(max_size=80))
@settings(deadline=None)
def test_a_long_text_cut_among_its_dots_still_becomes_a_name(start, dots, end):
    assert is_name(as_name(start + dots + end))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("claude-peers.main", "claude-peers.main"),
        ("My Repo.Feature/Login", "my-repo.feature-login"),
        ("--x--", "x"),
        ("日本", "peer"),
        ("", "peer"),
        ("../..", "peer"),
        ("a" * 63 + ".b", "a" * 63),
    ],
)
def test_a_text_keeps_what_can_be_used_of_it(text, name):
    assert as_name(text) == name


@given(name=NAMES)
@settings(deadline=None)
def test_a_name_that_is_free_is_given_as_wanted(name):
    assert free_name(name, set()) == name


@given(name=NAMES, taken=st.sets(NAMES), crowd=st.integers(0, 120))
@settings(deadline=None)
def test_a_given_name_is_a_name_that_nobody_has(name, taken, crowd):
    taken = taken | {name}
    for _ in range(crowd):
        taken.add(free_name(name, taken))
    given_name = free_name(name, taken)
    assert given_name not in taken
    assert is_name(given_name)


def test_a_name_that_is_taken_gets_the_first_free_suffix():
    assert free_name("main", {"main", "main-2", "main-4"}) == "main-3"


@given(kind=st.sampled_from(["live", "resume", "launch"]), parts=st.lists(st.text(), min_size=1))
@settings(deadline=None)
def test_a_key_tells_its_kind_and_nothing_else(kind, parts):
    assert re.fullmatch(rf"{kind}:[0-9a-f]{{32}}", key(kind, *parts))


def test_a_key_of_a_path_that_is_no_utf8_is_a_key():
    assert key("launch", "/home/\udcff") != key("launch", "/home/\udcfe")


def test_a_key_depends_on_each_of_its_parts_and_their_order():
    made = {key("live", *parts) for parts in [("a", "b"), ("b", "a"), ("a", ""), ("ab",)]}
    assert len(made) == 4
    assert key("live", "a", "b") == key("live", "a", "b")


def test_a_newcomer_adopts_the_mailbox_that_waits_for_its_key():
    assert predecessor(["k2"], [away("a", "k1"), away("b", "k2")]).id == "b"


def test_the_strongest_key_decides_before_the_order_of_the_peers():
    assert predecessor(["strong", "weak"], [away("a", "weak"), away("b", "strong")]).id == "b"


@pytest.mark.parametrize("presence", [Presence.PRESENT, Presence.DEPARTED])
def test_a_mailbox_that_is_held_or_given_up_is_not_adopted(presence):
    assert predecessor(["k"], [away("a", "k", presence=presence)]) is None


@pytest.mark.parametrize("presence", [Presence.PRESENT, Presence.AWAY])
def test_a_token_is_replaced_also_while_its_mailbox_is_held(presence):
    assert predecessor(["token:k"], [away("a", "token:k", presence=presence)]).id == "a"


def test_a_token_brings_no_mailbox_back_that_was_given_up():
    departed = away("a", "token:k", presence=Presence.DEPARTED)
    assert predecessor(["token:k"], [departed]) is None


def test_a_newcomer_without_a_known_key_adopts_nothing():
    assert predecessor(["k"], [away("a", "other"), away("b")]) is None
    assert predecessor([], [away("a", "k")]) is None
