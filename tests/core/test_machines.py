"""Which machines may come, and what the rest is told."""

from dataclasses import replace

import pytest

from claude_peers.core import machines
from claude_peers.core.machines import (
    ClockSkewError,
    InviteExpiredError,
    InviteUsedError,
    Machine,
    MachineIdleError,
    MachineRefusedError,
    MachineRevokedError,
    Membership,
    ReplayedError,
    UnknownInviteError,
)

NOW = 1_800_000_000.0
INVITED = Machine(name="mac", code_hash="c", expires_at=NOW + 60)
JOINED = replace(INVITED, token_hash="t", joined_at="then")
REVOKED = replace(JOINED, code_hash=None, revoked_at="later")
INVITED_AGAIN = replace(REVOKED, code_hash="d", expires_at=NOW + 60)


@pytest.mark.parametrize(
    ("machine", "membership"),
    [
        (INVITED, Membership.INVITED),
        (JOINED, Membership.JOINED),
        (REVOKED, Membership.REVOKED),
        (INVITED_AGAIN, Membership.INVITED),
        (replace(INVITED, code_hash=None, revoked_at="later"), Membership.REVOKED),
    ],
)
def test_a_machine_is_what_last_happened_to_it(machine, membership):
    assert machine.membership is membership


def test_a_machine_that_has_joined_may_come():
    assert machines.check_token(JOINED, now=NOW) is JOINED


@pytest.mark.parametrize(("days", "comes"), [(89.9, True), (90, False), (900, False)])
def test_a_token_expires_that_is_not_used_for_months(days, comes):
    machine = replace(JOINED, seen_at=NOW - days * 86_400)
    if comes:
        assert machines.check_token(machine, now=NOW) is machine
    else:
        with pytest.raises(MachineIdleError, match=r"mac has expired.*90 days") as refused:
            machines.check_token(machine, now=NOW)
        assert refused.value.code == "machine_expired"
        assert "claude-peers invite" in refused.value.remedy


@pytest.mark.parametrize(
    ("machine", "ends_at"),
    [
        (INVITED, NOW + 60),
        (JOINED, None),
        (replace(JOINED, seen_at=NOW), NOW + machines.IDLE),
    ],
)
def test_an_invite_and_a_token_have_an_end(machine, ends_at):
    assert machine.ends_at == ends_at
    assert machine.has_ended(NOW + 10 * machines.IDLE) is (ends_at is not None)
    assert not machine.has_ended(NOW)


@pytest.mark.parametrize("machine", [REVOKED, INVITED_AGAIN])
def test_a_revoked_one_is_told_since_when(machine):
    with pytest.raises(MachineRevokedError, match="mac was revoked at later") as refused:
        machines.check_token(machine, now=NOW)
    assert refused.value.code == "machine_revoked"
    assert refused.value.http_status == 401
    assert "claude-peers invite" in refused.value.remedy


def test_an_unknown_one_is_told_how_to_join():
    with pytest.raises(MachineRefusedError, match="claude-peers join") as refused:
        machines.check_token(None, now=NOW)
    assert refused.value.code == "unknown_machine"


@pytest.mark.parametrize(
    ("machine", "token_hash"),
    [(INVITED, "t"), (INVITED, None), (INVITED_AGAIN, "u"), (JOINED, "t"), (JOINED, None)],
)
def test_an_invite_lets_one_machine_in_however_often_it_says_so(machine, token_hash):
    assert machines.check_invite(machine, now=NOW, token_hash=token_hash) is machine


def test_a_used_invite_lets_nobody_else_in():
    with pytest.raises(InviteUsedError, match="used already, at then"):
        machines.check_invite(JOINED, now=NOW, token_hash="another")


def test_an_invite_ends_with_its_time():
    machines.check_invite(INVITED, now=NOW + 59.9)
    with pytest.raises(InviteExpiredError, match="expired at 2027-01-15T08:01:00Z"):
        machines.check_invite(INVITED, now=NOW + 60)


def test_a_code_that_nobody_was_given_is_no_invite():
    with pytest.raises(UnknownInviteError, match="revoked, or a newer one replaced it"):
        machines.check_invite(None, now=NOW)


@pytest.mark.parametrize("off", [-60.0, 0.0, 60.0])
def test_clocks_may_differ_a_little(off):
    machines.check_clock(NOW + off, now=NOW)


@pytest.mark.parametrize("off", [-61.0, 61.0, -3600.0])
def test_clocks_that_differ_more_are_both_told(off):
    with pytest.raises(ClockSkewError) as refused:
        machines.check_clock(NOW + off, now=NOW)
    assert f"differ by {abs(off):.0f} s" in refused.value.fact
    assert "the broker's 2027-01-15T08:00:00Z" in refused.value.fact
    assert "NTP" in refused.value.remedy


def test_a_replay_is_called_one():
    assert "replayed" in ReplayedError().fact


@pytest.mark.parametrize(
    ("wanted", "lifetime"),
    [(None, 86400.0), (0, 86400.0), (-1.0, 86400.0), (60.0, 60.0), (1e9, 7 * 86400.0)],
)
def test_an_invite_lives_a_day_or_as_asked_and_a_week_at_most(wanted, lifetime):
    assert machines.invite_lifetime(wanted) == lifetime
