"""Text from another agent, made harmless for the model that reads it.

A peer's text enters a context in which tags carry authority. So the few tags that do are
neutralised (whatever their case, spacing or width), and characters that hide text from a person
are dropped. Ordinary code and markup stay as they are.
"""

import re
import string
from functools import cache

_TAGS = (
    r"channel|system-reminder|system|human|user|assistant|task-notification|"
    r"function_calls|function_results|tool_use|tool_result|invoke|antml"
)
_GAP = r"[\s/\\\ufe00-\ufe0f\u034f]*"
# Type parameters of ordinary code: a name right before, a capital right after.
_GENERIC = r"(?<=[A-Za-z0-9_]<)(?-i:System|Human|User|Assistant)\b"
_OPENING = re.compile(rf"<(?={_GAP}(?:{_TAGS})\b)(?!{_GENERIC})", re.IGNORECASE)
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, except tab and newline
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\u061c\u180e\u00ad"  # zero width, bidirectional
    "\ud800-\udfff"  # lone surrogates
    "\U000e0000-\U000e01ef]"  # tag characters, variation selectors that spell bytes
)
_BREAKS = re.compile(r"[\s\u2028\u2029]+")


def plain(text: str) -> str:
    """Return `text` without tag break-outs and without characters that hide."""
    text = _UNSEEN.sub("", text.replace("\r\n", "\n"))
    shadow = text if text.isascii() else text.translate(_plain_letters())
    pieces: list[str] = []
    done = 0
    for match in _OPENING.finditer(shadow):
        pieces += text[done : match.start()], "&lt;"
        done = match.end()
    return "".join((*pieces, text[done:]))


def one_line(text: str, limit: int) -> str:
    """Return `text` on one line, at most `limit` characters, fit for an attribute or a list."""
    line = _BREAKS.sub(" ", plain(text)).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def attribute(text: str, limit: int) -> str:
    """Return `text` as one line without quotes and angle brackets."""
    return one_line(text, limit).translate({ord(c): None for c in '"<>'})


@cache
def _plain_letters() -> dict[int, int]:
    """Map full-width and mathematical letters to ASCII, one each, so that positions stay."""
    letters = string.ascii_uppercase + string.ascii_lowercase
    wide = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
    styled = {code: ord(letters[(code - 0x1D400) % 52]) for code in range(0x1D400, 0x1D6A4)}
    return wide | styled | {0xFE64: ord("<"), 0x3000: ord(" ")}
