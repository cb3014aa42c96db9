"""What command lines say in words: messages and spans of time."""

import argparse

import pytest

from claude_peers.cli import words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60.0),
        ("5m", 300.0),
        ("7", 7.0),
        ("0", 0.0),
        ("60m", 3600.0),
        ("1.5s", 1.5),
        ("0.5", 0.5),
    ],
)
def test_a_time_is_read(text, seconds):
    assert words.seconds(3600.0)(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1h", "-5s", ".5", "1e3", "61m", "3601", "²s", "nan"])
def test_another_time_is_refused(cli, text):
    with pytest.raises(argparse.ArgumentTypeError, match="60s or 5m"):
        words.seconds(3600.0)(text)
    ran = cli("kill-broker", f"--for={text}")
    assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize(("text", "seconds"), [("24h", 86400.0), ("7d", 604800.0), ("90s", 90.0)])
def test_long_times_are_read_where_they_are_allowed(text, seconds):
    assert words.seconds(7 * 86400.0, long=True)(text) == seconds


@pytest.mark.parametrize("text", ["8d", "h", "169h"])
def test_a_time_that_is_too_long_is_refused_with_its_limit(text):
    with pytest.raises(argparse.ArgumentTypeError, match="24h or 5m, at most 7d"):
        words.seconds(7 * 86400.0, long=True)(text)
