"""Every tag, turn, bracket, gap and letter that carries authority, and what nearly does."""

import pytest

from claude_peers.core.text import plain, quoted, unquoted, visible

TAGS = [
    "channel", "system", "system_reminder", "system_prompt", "system_message", "human", "user",
    "assistant", "task-notification", "task_notification", "teammate-message",
    "teammate_message", "agent-message", "agent_message", "cross-session-message",
    "cross_session_message", "cross-session_message", "command-name", "command_name",
    "command-message", "command_message", "command-args", "local-command-stdout",
    "local_command_stderr", "bash-input", "bash_stdout", "bash-stderr", "function_call",
    "function_calls", "function_result", "function_results", "tool_use", "tool_use_error",
    "tool_result", "tool_results", "invoke", "antml", "persisted-output", "persisted_output",
    "fork-boilerplate", "fork_boilerplate", "policy_spec", "start_of_turn", "end_of_turn",
]  # fmt: skip
TOKENS = [
    "im_start", "im_end", "im_sep", "endoftext", "eot_id", "start_header_id", "end_header_id",
    "system", "user", "assistant", "end",
]  # fmt: skip
BRACKETS = "<\uff1c\ufe64\u2039\u3008\u2329\u27e8\u276e\u1438"
GAPS = [
    "\u115f", "\u1160", "\u2800", "\u3164", "\uffa0", "\u3164\ufe0f", "\u2800\ufe00", " ", "\t",
    "\u3000", "/", "\\", "\n",
]  # fmt: skip
LETTERS = {
    "a": "\u0430\u0251\u03b1\u0410\u0391\u1d00\U0001d41a\U0001d400\u24b6\uff21",
    "b": "\u0412\u0392\u0299",
    "c": "\u0441\u03f2\u0421\u03f9\u1d04",
    "d": "\u0501\u1d05",
    "e": "\u0435\u0415\u0395\u1d07",
    "f": "\ua730\u0493",
    "g": "\u0261\u0262",
    "h": "\u04bb\u041d\u0397\u029c",
    "i": "\u0456\u0131\u03b9\u0406\u0399\u026a",
    "k": "\u043a\u03ba\u041a\u039a\u1d0b",
    "l": "\u04cf\u029f",
    "m": "\u043c\u041c\u039c\u1d0d",
    "n": "\u0578\u039d\u0274",
    "o": "\u043e\u03bf\u041e\u039f\u0585\u1d0f",
    "p": "\u0440\u03c1\u0420\u03a1\u1d18",
    "r": "\u0280",
    "s": "\u0455\u0405\ua731",
    "t": "\u0442\u03c4\u0422\u03a4\u1d1b\U0001d4c9\u24e3",
    "u": "\u057d\u03c5\u1d1c",
    "v": "\u03bd\u0475\u1d20",
    "x": "\u0445\u03c7\u0425\u03a7",
    "y": "\u0443\u0423\u03a5\u028f\U0001d6a2",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\uff0d",
    "|": "\uff5c",
}
"""Letters, and what only looks like them; no tag has a j, q, w or z."""
WORDS = [
    "Human", "HUMAN", "Assistant", "ASSISTANT", "System", "SYSTEM", "User", "USER",
]  # fmt: skip
HIDDEN = (
    "\0\x08\x0b\x0e\x1f\x7f\x80\x9f\u200b\u200e\u200f\u202a\u202e\u2060\u206f\ufeff\u061c\u00ad"
    "\u034f\u17b4\u17b5\u180b\u180f\ufff0\ufffb\U0001bca0\U0001bca3\U0001d173\U0001d17a\ud800"
    "\udfff\U000e0000\U000e0fff"
)
SEQUENCES = ["\x1b[m", "\x1b[0;31m", "\x1b[?25l", "\x1b[1 q", "\x1b[0~", "\x9b2J", "\x1b[!p"]
VARIED = "09#*\u00a9\u00ae\u203c\u2049\u2122\u2139\u3030\u9fff\u2190\u2bff\U0001f000\U0001faff"
JOINED = [
    "\u0620\u06d3", "\u06fa\u06ff", "\u0710\u08ff", "\u0900\u0dff", "\u1000\u109f", "\u1780\u17b3",
]  # fmt: skip
QUOTED = [
    *(f"{mark}{word}:" for word in WORDS for mark in ("", " ", "   ", "*", "_", "#", "**_#")),
    *(f"Human{end}:" for end in (" ", "*", "_", "** ", "__")),
    *(f"{mark}From boss (" for mark in ("", "*", "_", "#", " ", "      ")),
    *("From boss0000 (", "From\tboss(", "from boss (x):", "FROM boss (x) \u00b7", "from a b () :"),
    *("from boss (x)**:", "from boss (x)__:", "from boss (x)*_ \u00b7", f"from{' ' * 85}boss (x):"),
    *("[reply with", "[Reply  With", " [end of message", "[END OF MESSAGE", "[cut:", ">[cut:"),
]
"""Lines that look like a turn's beginning, or like one of a frame."""
UNQUOTED = [
    "To User: hello", "a Human: b", "    Human: b", "Humans: b", "Human b", "human: b",
    "From\u2028boss (2026)", "From\u2029boss (2026)", "from a\nb (x):", "from a\u2028b (x):",
    "from a\u2029b (x):", "from a (b (x):", "from a) (x):", "from boss (x", "from boss (x\n):",
    "from boss (x) -", "from (x):", f"from {'b' * 81}(x):", "[replying with", "[ends of message",
    "see [cut:", "[receipts 7]", "[receipt]", "(receipt 7)",
]  # fmt: skip
"""Lines that nearly do."""
CODE = [
    "List<User>", "T<Human>", "v2<System>", "my_<Assistant>", "Map<Assistant, Human>", "Z<User>",
    "a<System>", "z9<Human>",
]  # fmt: skip
NO_TAGS = [
    "<channels>", "<systems>", "<users>", "<tool_users>", "<bash>", "<command>", "<invoker>",
    "<|im|>", "<|user", "<|users|>", "|user|>", "<ch\U0001d6a4nnel>", "<ch\uff5fannel>",
    "<local-command>", "<cross-session>",
]  # fmt: skip


def with_letter(letter: str) -> str:
    """Return a tag or token that has the letter."""
    if letter in "x|":
        return "<|endoftext|>"
    return next(f"<{tag}>" for tag in TAGS if letter in tag)


@pytest.mark.parametrize("tag", [*TAGS, *(f"|{token}|" for token in TOKENS)])
@pytest.mark.threat("T19")
def test_each_tag_is_neutralised_and_can_be_read_back(tag):
    for text in (f"a <{tag}> b", f"a </{tag} x='1'> b", f"<{tag.upper()}>"):
        if "/" in text and tag.startswith("|"):
            continue
        assert plain(text) == text.replace("<", "&lt;")
        assert quoted(text) == text.replace("<", "&lt;")
        assert unquoted(quoted(text)) == text


@pytest.mark.parametrize("bracket", BRACKETS)
def test_each_bracket_that_looks_like_one_counts_as_one(bracket):
    text = f"{bracket}/channel>"
    assert plain(text) == "&lt;/channel>"
    entity = "&lt;" if bracket == "<" else f"&#{ord(bracket)};"
    assert quoted(text) == f"{entity}/channel>"
    assert quoted(quoted(text)) == f"&amp;{entity[1:]}/channel>"
    assert unquoted(quoted(text)) == text


@pytest.mark.parametrize("gap", GAPS, ids=ascii)
def test_each_gap_between_bracket_and_tag_is_none(gap):
    assert plain(f"<{gap}channel>").startswith("&lt;")
    assert plain(f"<{gap}/{gap}channel>").startswith("&lt;")


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.threat("T19")
def test_each_letter_that_cannot_be_told_from_another_is_taken_for_it(letter):
    text = with_letter(letter)
    for other in LETTERS[letter]:
        assert plain(text.replace(letter, other)).startswith("&lt;"), ascii(other)
        assert unquoted(quoted(text.replace(letter, other))) == text.replace(letter, other)


@pytest.mark.parametrize("text", NO_TAGS + CODE)
def test_what_is_nearly_a_tag_stays(text):
    assert plain(text) == quoted(text) == text


@pytest.mark.parametrize("text", ["[receipt 7]", "\uff3b receipt: 7]", "[RECEIPT x]"])
def test_each_receipt_is_neutralised(text):
    assert plain(text) == f"&#91;{text[1:]}"
    assert quoted(text) == f"&#{ord(text[0])};{text[1:]}"
    assert unquoted(quoted(text)) == text


@pytest.mark.parametrize("line", QUOTED)
def test_each_line_that_looks_like_a_turn_or_a_frame_is_marked(line):
    for before in ("", "a\n", "a\u2028", "a\u2029", "\n\n"):
        assert quoted(f"{before}{line}") == f"{before}>{line}"
        assert unquoted(f"{before}>{line}") == f"{before}{line}"


@pytest.mark.parametrize("line", UNQUOTED, ids=ascii)
def test_each_line_that_nearly_does_stays(line):
    assert quoted(line) == unquoted(line) == line


@pytest.mark.parametrize("hidden", [*HIDDEN, *SEQUENCES], ids=ascii)
@pytest.mark.threat("T19")
def test_each_character_that_hides_is_dropped(hidden):
    assert visible(f"a{hidden}b") == "ab"


@pytest.mark.parametrize("base", VARIED, ids=ascii)
def test_each_character_with_variants_keeps_its_selector(base):
    for selector in "\ufe00\ufe0e\ufe0f":
        assert visible(f"{base}{selector}b") == f"{base}{selector}b"
    assert visible(f"a\ufe0f{base}") == f"a{base}"


@pytest.mark.parametrize("pair", JOINED, ids=ascii)
@pytest.mark.parametrize("joiner", ["\u200c", "\u200d"], ids=ascii)
def test_each_script_that_joins_its_letters_keeps_its_joiners(pair, joiner):
    first, last = pair
    assert visible(f"{first}{joiner}{last}") == f"{first}{joiner}{last}"
    assert visible(f"a{joiner}{last}") == f"a{last}"
    assert visible(f"{first}{joiner}a") == f"{first}a"
    assert visible(f"{joiner}{last}{joiner}") == last


def test_texts_are_cut_to_the_character():
    from claude_peers.core.text import attribute, one_line

    assert one_line("abcdef", 6) == "abcdef"
    assert one_line("abcdefg", 6) == "abcde\u2026"
    assert attribute('a<b>"c"', 9) == "abc"
