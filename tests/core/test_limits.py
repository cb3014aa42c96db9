"""Everything that comes in is bounded, unless the user has lifted the bound."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_peers.core.errors import MailboxFullError, RateLimitedError, TextTooLongError
from claude_peers.core.limits import TEXT, Bucket, Limits, check_mailbox, check_text, spend

GAPS = st.lists(st.floats(0.0, 5.0), min_size=1, max_size=200)


def accepted(limits: Limits, times: list[float]) -> list[float]:
    """Return the times at which a message was let through."""
    bucket: Bucket | None = None
    passed = []
    for now in times:
        try:
            bucket = spend(bucket, limits, now=now)
        except RateLimitedError:
            continue
        passed.append(now)
    return passed


@given(gaps=GAPS, rate=st.integers(1, 600), burst=st.integers(1, 30))
@settings(deadline=None)
def test_a_sender_never_gets_more_than_burst_and_rate_allow(gaps, rate, burst):
    times = [sum(gaps[:n]) for n in range(len(gaps))]
    passed = accepted(Limits(per_minute=rate, burst=burst), times)
    for first, start in enumerate(passed):
        for count, now in enumerate(passed[first:], 1):
            assert count <= burst + (now - start) * rate / 60 + 1e-6


@given(rate=st.integers(1, 600), burst=st.integers(1, 30), start=st.floats(0.0, 1e6))
@settings(deadline=None)
def test_a_full_burst_is_let_through_at_once_and_no_more(rate, burst, start):
    limits = Limits(per_minute=rate, burst=burst)
    assert len(accepted(limits, [start] * (burst + 5))) == burst


@given(rate=st.integers(1, 600), burst=st.integers(1, 30))
@settings(deadline=None)
def test_a_sender_that_waits_as_told_is_let_through(rate, burst):
    limits = Limits(per_minute=rate, burst=burst)
    bucket = None
    for _ in range(burst):
        bucket = spend(bucket, limits, now=10.0)
    with pytest.raises(RateLimitedError) as refusal:
        spend(bucket, limits, now=10.0)
    assert spend(bucket, limits, now=10.0 + refusal.value.retry_after + 1e-6)


def test_a_pause_refills_no_more_than_the_burst():
    limits = Limits(per_minute=60, burst=2)
    assert spend(Bucket(0.0, 0.0), limits, now=3600.0) == Bucket(1.0, 3600.0)


def test_a_rate_of_zero_lets_everything_through():
    limits = Limits(per_minute=0, burst=2)
    assert len(accepted(limits, [0.0] * 100)) == 100


def test_a_sender_starts_with_the_whole_burst():
    assert spend(None, Limits(burst=60), now=5.0) == Bucket(59.0, 5.0)


@pytest.mark.parametrize("text", ["", "a" * TEXT, "é" * (TEXT // 2), "\U0001f600" * (TEXT // 4)])
def test_a_text_up_to_the_limit_in_bytes_passes(text):
    check_text(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("a" * (TEXT + 1), TEXT + 1), ("é" * (TEXT // 2) + "a", TEXT + 1)],
    ids=["ascii", "two bytes each"],
)
def test_a_text_over_the_limit_in_bytes_is_refused_with_its_size(text, size):
    with pytest.raises(TextTooLongError, match=f"{size} bytes, the limit is {TEXT}"):
        check_text(text)


def test_a_long_text_of_lone_surrogates_is_measured_and_not_a_crash():
    with pytest.raises(TextTooLongError):
        check_text("\ud800" * (TEXT + 1))


def test_a_mailbox_takes_messages_up_to_its_count():
    limits = Limits(mailbox=3)
    check_mailbox("a", limits, unread=2, size=0, adding=10)
    with pytest.raises(MailboxFullError, match="full \\(3 unread\\)"):
        check_mailbox("a", limits, unread=3, size=0, adding=10)


def test_a_mailbox_takes_messages_up_to_its_bytes():
    limits = Limits(mailbox_bytes=100)
    check_mailbox("a", limits, unread=0, size=60, adding=40)
    with pytest.raises(MailboxFullError):
        check_mailbox("a", limits, unread=0, size=60, adding=41)


def test_a_mailbox_limit_of_zero_lifts_count_and_bytes():
    limits = Limits(mailbox=0, mailbox_bytes=1)
    check_mailbox("a", limits, unread=10**6, size=10**9, adding=10**6)
