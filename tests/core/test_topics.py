"""Topics match patterns as MQTT has it, and what cannot be meant is refused with a remedy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_peers.core.errors import BadRequestError
from claude_peers.core.limits import LEVELS, TOPIC
from claude_peers.core.topics import (
    Subscriptions,
    check_pattern,
    check_topic,
    example,
    matches,
    passed_on,
)

LEVEL = st.sampled_from(["", "a", "b", "$x", "ü"])
TOPICS = st.lists(LEVEL, min_size=1, max_size=5).map("/".join)
PATTERNS = st.tuples(
    st.lists(st.one_of(LEVEL, st.just("+")), max_size=5), st.sampled_from([[], ["#"]])
).map(lambda parts: "/".join([*parts[0], *parts[1]]))


def naive(pattern: str, topic: str) -> bool:
    """Match level by level, as the standard's sentences say it."""

    def rest(wanted: list[str], given: list[str]) -> bool:
        if wanted == ["#"]:
            return True
        if not wanted or not given:
            return not wanted and not given
        return wanted[0] in ("+", given[0]) and rest(wanted[1:], given[1:])

    hidden = topic.startswith("$") and pattern[:1] in ("+", "#") and pattern != ""
    return not hidden and rest(pattern.split("/"), topic.split("/"))


@given(PATTERNS, TOPICS)
def test_a_pattern_matches_what_the_naive_model_says(pattern, topic):
    assert matches(pattern, topic) == naive(pattern, topic)


@pytest.mark.parametrize(
    ("pattern", "topic", "matched"),
    [
        # MQTT 5.0, 4.7.1.2
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("sport/#", "sports", False),
        ("#", "anything/at/all", True),
        ("#", "/", True),
        # 4.7.1.3
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+", "/finance", False),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+/tennis/#", "sport/tennis", True),
        ("a/+/b", "a//b", True),
        ("+/#", "a", True),
        # 4.7.2
        ("#", "$SYS/monitor", False),
        ("+/monitor", "$SYS/monitor", False),
        ("$SYS/#", "$SYS/monitor", True),
        ("$SYS/monitor/+", "$SYS/monitor/clients", True),
        ("a/#", "a/$x", True),
        # 4.7.3
        ("ACCOUNTS", "Accounts", False),
        ("/finance", "finance", False),
        ("a", "a/", False),
    ],
)
def test_the_standards_examples_hold(pattern, topic, matched):
    check_pattern(pattern)
    check_topic(topic)
    assert matches(pattern, topic) is matched


@pytest.mark.parametrize(
    "pattern", ["", "a#", "a/b#", "#/a", "a/#/b", "a+", "+a/b", "a/++", "##", "a\0b", "a\nb",
                "a\ud800", "@repo", "x" * (TOPIC + 1), "/" * LEVELS],
)  # fmt: skip
def test_a_pattern_that_cannot_be_meant_is_refused_with_a_remedy(pattern):
    with pytest.raises(BadRequestError) as refused:
        check_pattern(pattern)
    assert refused.value.remedy
    with pytest.raises(BadRequestError):
        check_topic(pattern)


@pytest.mark.parametrize("topic", ["+", "#", "a/+", "a/#", "a+b", "a#"])
def test_wildcards_are_not_published_to(topic):
    with pytest.raises(BadRequestError, match="Wildcards are for subscribe"):
        check_topic(topic)


@pytest.mark.parametrize(
    "pattern", ["a", "/", "+", "#", "+/+/#", "a b/c", "$SYS/#", "größe/🎉", "x" * TOPIC,
                "/" * (LEVELS - 1)],
)  # fmt: skip
def test_what_the_standard_allows_is_allowed_up_to_the_limits(pattern):
    check_pattern(pattern)


STEPS = st.lists(
    st.tuples(st.booleans(), st.sampled_from("xyz"), PATTERNS.filter(bool)), max_size=30
)


@given(STEPS, TOPICS)
def test_whoever_has_a_pattern_is_found_once_and_nobody_else(steps, topic):
    known, model = Subscriptions(), set()
    for adding, peer, pattern in steps:
        there = (peer, pattern) in model
        if adding:
            assert known.add(peer, pattern) is not there
            model.add((peer, pattern))
        else:
            assert known.discard(peer, pattern) is there
            model.discard((peer, pattern))
    found = list(known.to(topic))
    assert sorted(found) == sorted({p for p, pattern in model if naive(pattern, topic)})
    assert set(known.peers()) == {peer for peer, _ in model}
    for peer in "xyz":
        assert sorted(known.of(peer)) == sorted(pattern for p, pattern in model if p == peer)


@given(PATTERNS.filter(bool))
def test_an_example_of_a_pattern_is_a_topic_that_it_matches(pattern):
    check_topic(example(pattern))
    assert matches(pattern, example(pattern))


def test_what_is_passed_on_from_elsewhere_has_its_topic_unless_a_peer_of_ours_says_so():
    assert passed_on(None, by_peer=True) is None
    assert passed_on("in/x", by_peer=False) == "in/x"
    with pytest.raises(BadRequestError, match="/broadcast"):
        passed_on("in/x", by_peer=True)
    with pytest.raises(BadRequestError, match="Wildcards"):
        passed_on("in/+", by_peer=False)
