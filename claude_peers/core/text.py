"""Text from another agent, made harmless for the model that reads it.

A peer's text enters a context in which some tags, turn marks and lines of our own carry
authority. Those are neutralised, whatever their case, spacing, width or alphabet; everything else
stays as it is, so that code, markup, diffs, emoji and every script arrive as they were sent.

Three steps, each on top of the one before:

- `visible` drops what hides text from a person or splits a word unseen: controls and terminal
  sequences, bidirectional controls, zero-width and tag characters, stray variation selectors.
  They do not come back. Joiners and selectors stay where emoji and scripts need them, and a
  Windows line end becomes a newline.
- `plain` writes the bracket of a tag that carries authority as an entity. Applying it twice is
  applying it once, so names and summaries may pass it at every border.
- `quoted` is for whole texts, and loses nothing that can be seen: entities that were there
  already are told from ours (`&lt;` before such a tag becomes `&amp;lt;`), a line that looks like
  the beginning of a turn or like a line of our own frame gets a `>` in front, and
  `unquoted(quoted(text)) == visible(text)` for every text.
"""

import re
import string
from collections.abc import Callable, Iterable
from functools import cache

# Patterns are compiled when first used: a session that starts has no text to clean yet.
_TAGS = (
    r"channel|system|system_(?:reminder|prompt|message)|human|user|assistant|"
    r"task[-_]notification|(?:teammate|agent|cross[-_]session)[-_]message|"
    r"command[-_](?:name|message|args)|local[-_]command[-_]\w+|bash[-_](?:input|stdout|stderr)|"
    r"function_(?:calls?|results?)|tool_(?:use|use_error|results?)|invoke|antml|"
    r"persisted[-_]output|fork[-_]boilerplate|policy_spec|(?:start|end)_of_turn"
)
_TOKENS = (
    r"im_start|im_end|im_sep|endoftext|eot_id|(?:start|end)_header_id|system|user|assistant|end"
)
_BLANK = r"[^\S\n\u2028\u2029]"
_INLINE = r"[^\n\u2028\u2029()]"
_GAP = r"[\s/\\\ufe00-\ufe0f\u034f\u115f\u1160\u2800\u3164\uffa0]*"
# Type parameters of ordinary code: a name right before, a capital right after.
_GENERIC = r"(?<=[A-Za-z0-9_]<)(?-i:System|Human|User|Assistant)\b"
_TAG = rf"(?={_GAP}(?:{_TAGS})\b|\|(?:{_TOKENS})\|)"
_RECEIPT = r"(?=\s*receipt[\s:]+\w)"
_ANGLES = "<\uff1c\ufe64\u2039\u3008\u2329\u27e8\u276e\u1438"
_SQUARES = "[\uff3b"
_OPENING = rf"(?i)<{_TAG}(?!{_GENERIC})|\[{_RECEIPT}"


def _numbers(brackets: str) -> str:
    return "|".join(f"#{ord(bracket)}" for bracket in brackets)


_ENTITY = (
    rf"(?i)&(?P<more>(?:amp;)*)(?:(?P<angle>lt|{_numbers(_ANGLES)});{_TAG}"
    rf"|(?P<square>{_numbers(_SQUARES)});{_RECEIPT})"
)
_LINE = (
    # Any number of `>` may stand before: so a line is quoted exactly if its quotation is.
    r"(?m)(?:^|(?<=[\u2028\u2029]))(?=>*(?:"
    rf"{_BLANK}{{0,3}}[*_#]*(?:Human|HUMAN|Assistant|ASSISTANT|System|SYSTEM|User|USER)"
    rf"(?:{_BLANK}|[*_])*:"
    rf"|{_BLANK}*[*_#]*(?:From{_BLANK}+\S+{_BLANK}*\(|(?i:from){_BLANK}+{_INLINE}{{1,80}}\({_INLINE}*\)"
    rf"[*_]*{_BLANK}*[:·])"
    rf"|{_BLANK}*\[(?i:reply{_BLANK}+with|end{_BLANK}+of{_BLANK}+message|cut:)"
    r"))"
)
_EMOJI = "\u2190-\u2bff\U0001f000-\U0001faff"
_JOINED = "\u0620-\u06d3\u06fa-\u06ff\u0710-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17b3"
_UNSEEN = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # terminal sequences, whole
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, except tab and newline
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\u061c"  # zero width, bidirectional
    "\u00ad\u034f\u17b4\u17b5\u180b-\u180f\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\ud800-\udfff"  # lone surrogates
    "\U000e0000-\U000e0fff]"  # tag characters, variation selectors that spell bytes
    # Joiners, except within emoji and within words of scripts that join their letters.
    f"|(?<![{_JOINED}])(?<![{_EMOJI}])(?<![{_EMOJI}]\ufe0f)[\u200c\u200d]"
    f"|[\u200c\u200d](?![{_JOINED}{_EMOJI}])"
    # Variation selectors, except one after something that has variants.
    f"|(?<![0-9#*\u00a9\u00ae\u203c\u2049\u2122\u2139\u3030-\u9fff{_EMOJI}])[\ufe00-\ufe0f]+"
)
_MARKUP = str.maketrans("", "", '"<>')


def visible(text: str) -> str:
    """Return `text` without what a person who looks at it does not see."""
    if text.isascii() and text.isprintable():  # most are, and names always
        return text
    return re.sub(_UNSEEN, "", text.replace("\r\n", "\n"))


def plain(text: str) -> str:
    """Return `text` without tag break-outs and without characters that hide."""
    text = visible(text)
    text = _replaced(text, _OPENING, lambda at: "&lt;" if at in _ANGLES else "&#91;", has="<[")
    return visible(text)  # a selector that was the bracket's is a stray one behind the entity


def quoted(text: str) -> str:
    """Return `text` such that it cannot end its frame nor pass for anything but a peer's text."""
    text = visible(text)
    text = _replaced(text, _ENTITY, lambda entity: f"{entity[0]}amp;{entity[1:]}", has="&")
    text = _replaced(text, _OPENING, _entity, has="<[")
    return _replaced(text, _LINE, lambda _: ">", has=":([")


def unquoted(text: str) -> str:
    """Return what `quoted` was given, as far as it could be seen."""
    shadow = _shadow(text)
    starts = [match.start() for match in re.finditer(_LINE, shadow)]
    text = _joined(text, [(at, at + text.startswith(">", at), "") for at in starts])
    shadow = _shadow(text)
    return _joined(text, [_original(match) for match in re.finditer(_ENTITY, shadow)])


def one_line(text: str, limit: int) -> str:
    """Return `text` on one line, at most `limit` characters, fit for an attribute or a list."""
    line = " ".join(plain(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def attribute(text: str, limit: int) -> str:
    """Return `text` as one line without quotes and angle brackets."""
    return one_line(text, limit).translate(_MARKUP)


def _replaced(text: str, pattern: str, written: Callable[[str], str], *, has: str) -> str:
    """Return `text` with what matches, as a lenient reader sees it, written differently.

    Every match has one of the characters `has`: most texts are told without the pattern.
    """
    shadow = _shadow(text)
    if not any(mark in shadow for mark in has):
        return text
    spans = [match.span() for match in re.finditer(pattern, shadow)]
    return _joined(text, [(start, end, written(text[start:end])) for start, end in spans])


def _joined(text: str, changes: Iterable[tuple[int, int, str]]) -> str:
    """Return `text` with each span of `changes` replaced."""
    pieces: list[str] = []
    done = 0
    for start, end, new in changes:
        pieces += text[done:start], new
        done = end
    return "".join((*pieces, text[done:]))


def _entity(bracket: str) -> str:
    return "&lt;" if bracket == "<" else f"&#{ord(bracket)};"


def _original(match: re.Match[str]) -> tuple[int, int, str]:
    """Return what an entity was, and where: one that was there before loses our `amp;`."""
    if match["more"]:
        return match.start() + 1, match.start() + 5, ""
    name = match["angle"] or match["square"]
    return *match.span(), "<" if name.lower() == "lt" else chr(int(name[1:]))


def _shadow(text: str) -> str:
    """Return `text` in ASCII letters where others only look different; positions stay."""
    return text if text.isascii() else text.translate(_plain_letters())


_LOOKALIKES = {
    "a": "\u0430\u0251\u03b1\u0410\u0391\u1d00",
    "b": "\u0412\u0392\u0299",
    "c": "\u0441\u03f2\u0421\u03f9\u1d04",
    "d": "\u0501\u1d05",
    "e": "\u0435\u0415\u0395\u1d07",
    "f": "\ua730\u0493",
    "g": "\u0261\u0262",
    "h": "\u04bb\u041d\u0397\u029c",
    "i": "\u0456\u0131\u03b9\u0406\u0399\u026a",
    "j": "\u0458\u0408\u1d0a",
    "k": "\u043a\u03ba\u041a\u039a\u1d0b",
    "l": "\u04cf\u029f",
    "m": "\u043c\u041c\u039c\u1d0d",
    "n": "\u0578\u039d\u0274",
    "o": "\u043e\u03bf\u041e\u039f\u0585\u1d0f",
    "p": "\u0440\u03c1\u0420\u03a1\u1d18",
    "r": "\u0280",
    "s": "\u0455\u0405\ua731",
    "t": "\u0442\u03c4\u0422\u03a4\u1d1b",
    "u": "\u057d\u03c5\u1d1c",
    "v": "\u03bd\u0475\u1d20",
    "x": "\u0445\u03c7\u0425\u03a7",
    "y": "\u0443\u0423\u03a5\u028f",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212",
}
"""Letters of other alphabets that cannot be told from these by eye."""


@cache
def _plain_letters() -> dict[int, int]:
    """Map characters to the ASCII one they look like, one each."""
    letters = string.ascii_uppercase + string.ascii_lowercase
    wide = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
    styled = {code: ord(letters[(code - 0x1D400) % 52]) for code in range(0x1D400, 0x1D6A4)}
    circled = {0x24B6 + place: ord(letter) for place, letter in enumerate(letters)}
    same = {ord(c): ord(letter) for letter, others in _LOOKALIKES.items() for c in others}
    angles = {ord(bracket): ord("<") for bracket in _ANGLES}
    return wide | styled | circled | same | angles | {0x3000: ord(" ")}
