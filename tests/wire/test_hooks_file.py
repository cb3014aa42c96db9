"""Our hooks in the text of a user's settings file: what changes, and above all what does not."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_peers.wire import hooks, hooks_file, json_text

VERSIONS = [None, (2, 1, 80), (2, 1, 117), (2, 1, 118), (2, 1, 330)]
OURS = hooks.settings("/home/jürgen/state d.d", "claude-peers", (2, 1, 330))
THEIRS = {"type": "command", "command": "say 'fertig, Jürgen' \\ \"now\""}

HANDWRITTEN = [
    "{}",
    "{ }",
    "{\n}\n",
    " {\r\n\r\n}\r\n",
    '\ufeff{"model": "opus"}\n',
    '{"model":"opus"}',
    '{\n  "hooks": {}\n}\n',
    '{\n  "hooks": { }\n}\n',
    '{"hooks":{"Stop":[]}}',
    '{\n\t"hooks": {\n\t\t"Stop": [\n\t\t]\n\t}\n}',
    '{\r\n  "a": 1,\r\n  "hooks": {"Stop": [ ], "Other": []}\r\n}\r\n',
    '{ "a" : "\\u00fc\\ud83c" , "a" : 1.50e3,\n"n": 12345678901234567890 , "x":[ 1,2 ,\n3]\n }  \n',
    """{
    "permissions": {"allow": ["Bash(ls)", "Read"],
                    "deny": []},
    "hooks": {"Stop": [{"hooks": [{"type": "command", "command": "x"}]}], "PreToolUse": [ ]}
}""",
    '{"hooks": {"Stop": [{"matcher": "", "hooks": []}]}, "z": {"hooks": {"Stop": [1]}}}',
    '{"hooks": {"SessionStart": ["odd", 1, null, {"hooks": 3}, {"hooks": ["x"]}]}}',
    '{"hooks": {"Stop": 1}, "hooks": {"Stop": []}}',
]

names = st.sampled_from(["Stop", "SessionStart", "PreToolUse", "Notification", "UserPromptSubmit"])
entry = st.sampled_from([THEIRS, {"type": "prompt", "prompt": "ok?"}, {"type": "command"}])
group = st.fixed_dictionaries(
    {"hooks": st.lists(entry, max_size=2)}, optional={"matcher": st.sampled_from(["", "Bash", "*"])}
)
hook_sets = st.dictionaries(names, st.lists(group, max_size=2), max_size=3)
other = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)  # fmt: skip
documents = st.builds(
    lambda before, ours, after: {**before, **ours, **after},
    st.dictionaries(st.sampled_from(["env", "model", "permissions", "ü"]), other),
    st.one_of(st.just({}), hook_sets.map(lambda found: {"hooks": found})),
    st.dictionaries(st.sampled_from(["statusLine", "theme", "a\nb"]), other),
)


def written(document, indent, separators, ensure_ascii, end):
    text = json.dumps(document, indent=indent, separators=separators, ensure_ascii=ensure_ascii)
    lines = "\r\n" if end.startswith("\r\n") else "\n"
    return text.replace("\n", lines) + end


layouts = st.builds(
    written,
    documents,
    st.sampled_from([None, 0, 2, 4, "\t"]),
    st.sampled_from([None, (",", ":"), (" , ", " : ")]),
    st.booleans(),
    st.sampled_from(["", "\n", "\r\n", "\n\n  "]),
)
texts = st.sampled_from(HANDWRITTEN) | layouts
ours = st.sampled_from(VERSIONS).map(lambda version: hooks.settings("/s d", "peers", version))


def value(text):
    return json.loads(text.removeprefix("\ufeff"))


def merged(document, settings):
    """Say plainly what a settings file means once our hooks are in it."""
    result = copy.deepcopy(document)
    for event, groups in settings["hooks"].items():
        result.setdefault("hooks", {}).setdefault(event, []).extend(groups)
    return result


def pruned(document):
    """Return a document without empty events and without empty hooks, which say nothing."""
    kept = {event: groups for event, groups in document.get("hooks", {}).items() if groups}
    rest = {key: each for key, each in document.items() if key != "hooks"}
    return {**rest, "hooks": kept} if kept else rest


@given(texts, ours)
def test_installing_and_removing_gives_back_every_byte(text, settings):
    installed = hooks_file.merge(text, settings)
    assert hooks_file.without(installed) == text
    assert hooks_file.events(installed) == sorted(
        settings["hooks"], key=list(value(installed)["hooks"]).index
    )


@pytest.mark.parametrize("text", HANDWRITTEN)
def test_a_file_that_somebody_wrote_by_hand_comes_back_as_it_was(text):
    assert hooks_file.without(hooks_file.merge(text, OURS)) == text


@given(texts, ours)
def test_what_is_installed_is_the_users_settings_and_our_hooks(text, settings):
    assert value(hooks_file.merge(text, settings)) == merged(value(text), settings)


@given(texts, ours, ours)
def test_installing_again_changes_nothing_and_for_another_version_leaves_nothing_old(text, a, b):
    first = hooks_file.merge(text, a)
    assert hooks_file.merge(first, a) == first
    assert hooks_file.merge(first, b) == hooks_file.merge(text, b)


@given(texts, ours, st.sampled_from([None, 2, "\t"]))
def test_a_file_that_was_written_anew_in_between_loses_only_what_is_ours(text, settings, indent):
    anew = json.dumps(value(hooks_file.merge(text, settings)), indent=indent)
    left = hooks_file.without(anew)
    assert pruned(value(left or "{}")) == pruned(value(text))


@given(texts)
def test_a_file_without_our_hooks_is_left_as_it_is(text):
    assert hooks_file.without(text) == text
    assert hooks_file.events(text) == []


def test_a_file_that_is_ours_alone_comes_and_goes():
    text = hooks_file.merge(None, OURS)
    assert text == json.dumps(OURS, indent=2, ensure_ascii=False) + "\n"
    assert hooks_file.merge(text, OURS) == text
    assert hooks_file.without(text) is None


def test_every_line_of_the_user_stays_and_ours_are_indented_like_them():
    text = '{\n    "model": "opus",\n    "list": [1,  2]\n}\n'
    installed = hooks_file.merge(text, hooks.settings("/s", "claude-peers", None))
    assert installed.startswith('{\n    "model": "opus",\n    "list": [1,  2],\n    "hooks": {\n')
    assert '\n        "Stop": [\n            {\n' in installed
    assert installed.endswith("\n        ]\n    }\n}\n")


def group_of(*entries, **more):
    return {**more, "hooks": list(entries)}


def test_our_entry_goes_also_out_of_a_group_that_the_user_put_it_into():
    waiter = hooks.waiter("/elsewhere")
    for mixed in ([waiter, THEIRS], [THEIRS, waiter], [waiter, THEIRS, waiter]):
        document = {"hooks": {"Stop": [group_of(*mixed, matcher="")]}, "model": "x"}
        left = hooks_file.without(json.dumps(document, indent=2))
        expected = {"hooks": {"Stop": [group_of(THEIRS, matcher="")]}, "model": "x"}
        assert left == json.dumps(expected, indent=2)


def test_the_users_own_hooks_of_the_same_event_keep_their_place():
    mine = group_of(THEIRS)
    document = {"hooks": {"Stop": [mine, group_of(hooks.waiter("/s"), hooks.waiter("/t")), mine]}}
    left = hooks_file.without(json.dumps(document, indent=2))
    assert left == json.dumps({"hooks": {"Stop": [mine, mine]}}, indent=2)


def test_hooks_elsewhere_in_the_file_are_none():
    document = {"saved": {"hooks": {"Stop": [group_of(hooks.waiter("/s"))]}}}
    text = json.dumps(document)
    assert hooks_file.without(text) == text
    assert hooks_file.events(text) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON (line 1, column 1"),
        ("\n", "not JSON"),
        ("// mine\n{}", "not JSON (line 1, column 1"),
        ('{\n  "a": 1, // why\n  "b": 2\n}', "not JSON (line 2, column 11"),
        ('{"a": 1,}', "not JSON"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON that can be read"),
        ("[" * 100_000, "not JSON"),
        ("\ufeff\ufeff{}", "not JSON"),
        ("[]", "holds no JSON object"),
        ("null", "holds no JSON object"),
    ],
)
def test_what_is_no_json_object_is_refused_with_the_reason(text, reason):
    for change in (hooks_file.without, hooks_file.events, lambda it: hooks_file.merge(it, OURS)):
        with pytest.raises(hooks_file.NotSettingsError) as refused:
            change(text)
        assert reason in str(refused.value)


@pytest.mark.parametrize("found", [[], None, "x", {"Stop": {}}, {"Stop": [], "Other": None}])
def test_hooks_of_another_shape_are_refused(found):
    with pytest.raises(hooks_file.NotSettingsError, match="not an object of lists"):
        hooks_file.merge(json.dumps({"hooks": found}), OURS)


def test_a_part_is_found_with_its_place():
    text = ' {"a" : [1, "x"] , "b":{}}'
    a, b = json_text.parts(text, json_text.beginning(text))
    assert (a.key, text[a.start : a.end], a.value) == ("a", '"a" : [1, "x"]', [1, "x"])
    assert (b.key, text[b.at : b.end]) == ("b", "{}")
    assert [part.key for part in json_text.parts(text, a.at)] == [None, None]
    assert json_text.parts(text, json_text.parts(text, a.at)[1].at) == []
    assert json_text.member(text, json_text.beginning(text), "c") is None
