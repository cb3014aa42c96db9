"""The life of a message: what ends it, and what cannot."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_peers.core.delivery import (
    DIRECT_TTL,
    EXPIRED,
    MOST_TTL,
    TRANSITIONS,
    Event,
    cause,
    given_up,
    lifetime,
    proved_by,
    sources,
    target,
)
from claude_peers.core.models import UNREAD, State

EVENTS = st.lists(st.sampled_from(Event), max_size=30)


def live(state: State, events: list[Event]) -> list[State]:
    """Return every state on the way; an event without a key changes nothing."""
    path = [state]
    for event in events:
        path.append(TRANSITIONS.get((path[-1], event), path[-1]))
    return path


@pytest.mark.parametrize("end", [State.DEAD, State.ANSWERED])
@given(events=EVENTS)
@settings(deadline=None)
def test_no_path_leads_out_of_an_end(end, events):
    assert set(live(end, events)) == {end}


@given(events=EVENTS)
@settings(deadline=None)
def test_a_seen_message_is_never_unread_again(events):
    path = live(State.QUEUED, events)
    if State.SEEN in path:
        assert set(path[path.index(State.SEEN) :]) <= {State.SEEN, State.ANSWERED}


@given(state=st.sampled_from(UNREAD), events=EVENTS)
@settings(deadline=None)
def test_a_message_that_nothing_ends_never_dies(state, events):
    others = [each for each in events if target(each) is not State.DEAD]
    assert State.DEAD not in live(state, others)


@given(state=st.sampled_from(UNREAD), events=EVENTS)
@settings(deadline=None)
def test_handing_out_alone_never_ends_a_message(state, events):
    handed = [e for e in events if e in (Event.LEASE, Event.PUSH, Event.RETURN)]
    assert set(live(state, handed)) <= set(UNREAD)


@pytest.mark.parametrize("state", UNREAD)
@pytest.mark.parametrize(
    ("event", "end"),
    [(Event.SEE, State.SEEN), (Event.ANSWER, State.ANSWERED), (Event.EXPIRE, State.DEAD)],
)
def test_evidence_and_time_reach_a_message_in_any_unread_state(state, event, end):
    assert TRANSITIONS[state, event] is end


@pytest.mark.parametrize("event", Event)
def test_each_event_leads_to_its_target_from_each_of_its_sources(event):
    assert sources(event)
    assert all(TRANSITIONS[state, event] is target(event) for state in sources(event))


@pytest.mark.parametrize("event", Event)
def test_no_event_is_legal_outside_its_sources(event):
    assert not [s for s in State if (s, event) in TRANSITIONS and s not in sources(event)]


def test_only_a_repeated_push_leads_to_where_it_started():
    stays = [pair for pair, to in TRANSITIONS.items() if pair[0] is to]
    assert stays == [(State.PUSHED, Event.PUSH)]


@pytest.mark.parametrize(
    ("wanted", "given"),
    [(None, DIRECT_TTL), (0, DIRECT_TTL), (-5, DIRECT_TTL), (60.0, 60.0), (1e9, MOST_TTL)],
)
def test_a_message_lives_as_long_as_its_sender_wants_but_a_week_at_most(wanted, given):
    assert lifetime(wanted) == given


def test_a_seen_message_can_still_be_answered():
    assert TRANSITIONS[State.SEEN, Event.ANSWER] is State.ANSWERED


def test_a_returned_lease_is_queued_again():
    assert live(State.QUEUED, [Event.LEASE, Event.RETURN])[-1] is State.QUEUED


def test_a_reply_to_its_sender_answers_a_message_and_one_to_others_shows_that_it_was_read():
    assert proved_by("ann", "ann") is Event.ANSWER
    assert proved_by("ann", "cid") is Event.SEE


@pytest.mark.parametrize(("deliveries", "times"), [(1, "once"), (2, "2 times"), (20, "20 times")])
def test_who_gave_up_says_after_how_many_hand_outs(deliveries, times):
    assert given_up(deliveries) == f"handed out {times} without a sign that it was read"


@given(deliveries=st.integers(1, 10**6))
def test_a_reason_tells_what_ended_the_message_whatever_was_set(deliveries):
    assert cause(given_up(deliveries)) is Event.GIVE_UP
    assert cause(EXPIRED) is Event.EXPIRE


@pytest.mark.parametrize("reason", ["", "handed out", "handed out to nobody", EXPIRED + "."])
def test_a_reason_that_is_not_ours_tells_nothing(reason):
    assert cause(reason) is None
