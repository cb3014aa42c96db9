"""What command lines say in words: a message, or `-` for one on stdin, and spans of time."""

import argparse
import sys
from collections.abc import Callable

from claude_peers.cli import output
from claude_peers.core.limits import TEXT


def message(words: list[str], rest: list[str], *, command: str) -> str:
    """Return the text of a message.

    Args:
        words: those that stand for it.
        rest: what followed `--`; none of that is an option or stands for stdin.
        command: the usage to show if there is no text.
    """
    if words == ["-"] and not rest:
        # One byte more than allowed: the broker then says that it is too long.
        raw = sys.stdin.buffer.read(TEXT + 1) if sys.stdin is not None else b""
        text = raw.decode("utf-8", "replace")
    else:
        text = " ".join((*words, *rest))
    if not text:
        raise output.UsageError(
            "The message is empty", f"Usage: claude-peers {command}, or `-` for stdin."
        )
    return text


def seconds(most: float, *, long: bool = False) -> Callable[[str], float]:
    """Return what reads a span of time, `60`, `60s` or `5m`, from the command line.

    Args:
        most: the longest that is allowed.
        long: whether `24h` and `7d` are spans as well.
    """
    units = {"s": 1.0, "m": 60.0} | ({"h": 3600.0, "d": 86400.0} if long else {})
    example, unit = ("24h", "d") if long else ("60s", "m")

    def read(text: str) -> float:
        scale = units.get(text[-1:], 0.0)
        number = text[:-1] if scale else text
        whole, _, rest = number.partition(".")
        span = float(number) * (scale or 1.0) if _digits(whole) and _digits(rest or "0") else -1.0
        if not 0 <= span <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not like {example} or 5m, at most {most / units[unit]:g}{unit}"
            )
        return span

    return read


def _digits(text: str) -> bool:
    return text.isascii() and text.isdecimal()
