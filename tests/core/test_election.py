"""The life of a node, and how long it waits between two attempts."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_peers.core.election import (
    RECONNECT_FIRST,
    RECONNECT_MOST,
    TRANSITIONS,
    Event,
    Role,
    after,
    campaign_delay,
    first_look_delay,
    reconnect_delay,
)
from claude_peers.core.errors import IllegalTransitionError


@pytest.mark.parametrize(("pair", "role"), TRANSITIONS.items(), ids=str)
def test_a_role_and_an_event_of_the_table_lead_to_the_next_role(pair, role):
    assert after(*pair) is role


@pytest.mark.parametrize(
    ("role", "event"), [pair for pair in product(Role, Event) if pair not in TRANSITIONS], ids=str
)
def test_any_other_pair_is_a_bug(role, event):
    with pytest.raises(IllegalTransitionError, match=f"{event} as {role}"):
        after(role, event)


@given(events=st.lists(st.sampled_from(Event), max_size=30))
@settings(deadline=None)
def test_nobody_leads_without_having_won_lock_and_port_as_a_candidate(events):
    role = Role.CANDIDATE
    for event in events:
        before, role = role, TRANSITIONS.get((role, event), role)
        if role is Role.LEADER and before is not Role.LEADER:
            assert (before, event) == (Role.CANDIDATE, Event.LOCK_AND_PORT_WON)


@given(events=st.lists(st.sampled_from(Event)))
@settings(deadline=None)
def test_a_stopped_node_stays_stopped(events):
    role = Role.STOPPED
    for event in events:
        role = TRANSITIONS.get((role, event), role)
    assert role is Role.STOPPED


@pytest.mark.parametrize("role", [Role.CANDIDATE, Role.FOLLOWER, Role.LEADER])
def test_every_running_node_can_be_stopped(role):
    assert after(role, Event.STOP) is Role.STOPPED


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_the_standby_campaigns_at_once(jitter):
    assert campaign_delay(standby=True, jitter=jitter) == 0.0


@given(jitter=st.floats(0.0, 1.0))
@settings(deadline=None)
def test_everybody_else_gives_the_standby_a_head_start(jitter):
    assert 0.030 <= campaign_delay(standby=False, jitter=jitter) <= 0.050


@given(jitter=st.floats(0.0, 1.0))
@settings(deadline=None)
def test_an_idle_follower_leaves_the_standby_the_time_it_needs_to_lead(jitter):
    assert 0.020 <= first_look_delay(jitter) <= 0.070


def test_reconnection_starts_fast():
    assert reconnect_delay(0) == RECONNECT_FIRST


@given(attempt=st.integers(0, 10_000))
@settings(deadline=None)
def test_reconnection_slows_down_to_a_bound(attempt):
    assert reconnect_delay(attempt) <= reconnect_delay(attempt + 1) <= RECONNECT_MOST


def test_reconnection_reaches_its_bound():
    assert reconnect_delay(100) == RECONNECT_MOST
