"""Text from another agent, made harmless for the model that reads it.

A peer's text enters a context in which tags carry authority. So the few tags that do are
neutralised (whatever their case, spacing or width), and characters that hide text from a person
are dropped. Ordinary code and markup stay as they are.
"""

import re

_TAGS = (
    r"channel|system-reminder|system|human|user|assistant|task-notification|"
    r"function_calls|function_results|tool_use|tool_result|invoke|antml"
)
_OPENING = re.compile(rf"<(?=[\s/\\]*(?:{_TAGS})\b)", re.IGNORECASE)
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, except tab and newline
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\u061c\u180e\u00ad"  # zero width, bidirectional
    "\ud800-\udfff"  # lone surrogates
    "\U000e0000-\U000e01ef]"  # tag characters, variation selectors that spell bytes
)
_BREAKS = re.compile(r"[\s\u2028\u2029]+")
_NARROW = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | {0xFE64: 0x3C, 0x3000: 0x20}
"""Full-width forms to ASCII, one character each, so that positions stay the same."""


def plain(text: str) -> str:
    """Return `text` without tag break-outs and without characters that hide."""
    text = _UNSEEN.sub("", text.replace("\r\n", "\n"))
    shadow = text if text.isascii() else text.translate(_NARROW)
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
