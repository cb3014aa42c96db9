"""Breaks guard, framing and sanitiser in every small way, and shows which breaks no test notices.

`python -m tests.mutants` runs, for each changed copy of a module, the fast tests that are about it,
one after the other, and prints what survived and the share that was killed; `--only WORD` takes
the changes whose label contains the word. It takes minutes, so it is no part of the test run.
A ready-made tool changes what is in functions; here the rules are mostly tables and patterns.

A process that has loaded pytest once forks for every change: so each costs a third of a second.
"""

import argparse
import ast
import importlib.util
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.9
PATIENCE = 60
"""Seconds until a change that makes the tests hang counts as noticed."""
TESTS = {
    "claude_peers.gateway.guard": ("gateway/test_guard.py",),
    "claude_peers.gateway.framing": ("gateway/test_framing.py",),
    "claude_peers.core.text": (
        "core/test_text_tables.py",
        "core/test_text.py",
        "core/test_text_quoting.py",
    ),
    "claude_peers.wire.envelope": ("wire/test_envelope.py",),
}
EQUIVALENT: dict[str, str] = {
    "guard._host: '' -> 'x'": "no Host is none of ours, whatever stands for it",
    "guard._origin: '' -> 'x'": "no Origin has no scheme, whatever stands for it",
    "guard._type: '' -> 'x'": "no type is not JSON, whatever stands for it",
    **dict.fromkeys(
        (
            "framing.head_end: 0 -> 1",
            "framing.head_end: end >= 0 -> end > 0",
            "framing.head_end: 0 -> 1 (2)",
            "framing.head_end: end >= 0 -> end > 0 (2)",
            "framing.head_end: 0 -> 1 (3)",
        ),
        "a head that ends at its first or second byte has no request line: it is refused",
    ),
    "framing.check: '' -> 'x' (2)": "no Connection does not say close, nor does x",
    "framing._path: 1 -> 2": "only the first piece is used",
    "envelope.is_whole: len(text) <= limit -> len(text) < limit": "the other half says the same",
    "envelope.batch: break -> nothing": "what is not whole in the room left is longer than it",
    "envelope._published: return '' -> return None": "nothing is told either way",
    "envelope._preview: 0 -> 1": "one character too many is taken away in the next round",
    "text._UNSEEN: '])(?<![' -> ''": "two refusals of a class are one of both",
    r"text._GAP: [\s/\\\ufe00 without \u034f at 19": "`visible` has dropped that character before",
    "text._GENERIC: (?<=[A-Za-z0 without A-Z at 5": "the pattern ignores case",
    "text._GENERIC: (?<=[A-Za-z0 without a-z at 8": "the pattern ignores case",
    r"text._LOOKALIKES: \u0456\u0131\u03b9\u0406\u0399\u026a without \u0131 at 1": (
        "where case is ignored, i and dotless i are one"
    ),
    **dict.fromkeys(
        (
            "text._LOOKALIKES: '\u0458\u0408\u1d0a' -> ''",
            r"text._LOOKALIKES: \u0458\u0408\u1d0a without \u0458 at 0",
            r"text._LOOKALIKES: \u0458\u0408\u1d0a without \u0408 at 1",
            r"text._LOOKALIKES: \u0458\u0408\u1d0a without \u1d0a at 2",
        ),
        "no tag and no line of ours has a j; it stands in the table for those to come",
    ),
    **dict.fromkeys(
        (
            "text._plain_letters: 65281 -> 65282",
            "text._plain_letters: 65375 -> 65376",
            "text._plain_letters: 12288 -> 12289",
            (
                "text._plain_letters: wide | styled | circled | same | angles | {12288: ord(' ')} "
                "-> wide | styled | circled | same | angles"
            ),
        ),
        "that character is in no tag, or is blank by itself",
    ),
}
"""Changes that change nothing, and why."""

_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add,
}  # fmt: skip
_UNTOUCHED = {"annotation", "returns", "decorator_list", "bases", "type_comment"}
_CLASS = re.compile(r"\[\^?((?:\\.|[^\]\\])+)\]", re.DOTALL)
_UNIT = r"(?:\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|\\.|[^\\])"
_ITEM = re.compile(rf"{_UNIT}-{_UNIT}|{_UNIT}", re.DOTALL)
_CHOICE = re.compile(r"(?:^|(?<=[(|])|(?<=\(\?:))[^()|\[\]?]+\||\|[^()|\[\]?]+(?=\)|$)")


@dataclass(frozen=True, slots=True)
class Change:
    """One node of a module's tree, and what takes its place."""

    label: str
    parent: ast.AST
    field: str
    index: int | None
    new: ast.AST | None

    def put(self, node: ast.AST | None) -> Any:
        """Put `node` in its place and return what was there; None leaves an element out."""
        if self.index is None:
            old = getattr(self.parent, self.field)
            setattr(self.parent, self.field, node)
            return old
        items = getattr(self.parent, self.field)
        old = items[:]
        items[self.index : self.index + 1] = [] if node is None else [node]
        return old

    def restore(self, old: Any) -> None:
        """Undo `put`."""
        if self.index is None:
            setattr(self.parent, self.field, old)
        else:
            getattr(self.parent, self.field)[:] = old


def changes(tree: ast.Module, module: str) -> Iterator[Change]:
    """Yield everything that can be changed in a module."""
    seen: Counter[str] = Counter()
    stem = module.rpartition(".")[2]
    for change in _below(tree, ""):
        label = f"{stem}.{change.label}"
        seen[label] += 1
        label = label if seen[label] == 1 else f"{label} ({seen[label]})"
        yield Change(label, change.parent, change.field, change.index, change.new)


def _below(parent: ast.AST, scope: str) -> Iterator[Change]:
    for field, index, child in _children(parent):
        inner = _scope(child) or scope
        for new in _replacements(child, parent):
            yield Change(f"{inner}: {_difference(child, new)}", parent, field, index, new)
        if not (isinstance(child, ast.JoinedStr) and isinstance(parent, ast.Call | ast.keyword)):
            yield from _below(child, inner)


def _children(parent: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    for field, value in ast.iter_fields(parent):
        if field in _UNTOUCHED or (
            isinstance(parent, ast.Subscript)
            and field == "slice"
            and isinstance(value, ast.Tuple | ast.BinOp)
        ):
            continue  # types are for the type checker
        if isinstance(value, ast.AST):
            yield field, None, value
        elif isinstance(value, list):
            for index, each in enumerate(value):
                if isinstance(each, ast.AST) and not _is_text(each):
                    yield field, index, each


def _is_text(node: ast.AST) -> bool:
    """Whether it is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _scope(node: ast.AST) -> str:
    match node:
        case ast.FunctionDef() | ast.ClassDef():
            return node.name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name if name.isupper() else ""
    return ""


def _difference(old: ast.AST, new: ast.AST | None) -> str:
    """Return what is changed into what, in a few words."""
    if new is None or isinstance(new, ast.Pass):
        return f"{_told(old)} -> nothing"
    if isinstance(old, ast.Constant) and isinstance(new, ast.Constant) and new.value:
        before, after = (_letters(each.value) for each in (old, new))
        more = len(before) - len(after)
        gaps = range(len(before) if more > 0 else 0)  # where something may have been left out
        fit = [at for at in gaps if before[:at] + before[at + more :] == after]
        if fit:
            at = next((at for at in fit if before[at] == "\\"), fit[0])
            return f"{_shown(before[:12])} without {_shown(before[at : at + more])} at {at}"
    return f"{_told(old)} -> {_told(new, old)}"


def _letters(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _shown(text: str) -> str:
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def _told(node: ast.AST, beside: ast.AST | None = None) -> str:
    text = " ".join(ast.unparse(node).split())
    if beside is not None and len(text) > 60:  # only what differs
        old = " ".join(ast.unparse(beside).split())
        pairs = enumerate(zip(text, old, strict=False))
        start = next((at for at, (new, was) in pairs if new != was), 0)
        return f"…{text[max(0, start - 12) : start + 30]}… at {start}"
    return text if len(text) <= 60 else f"{text[:60]}…"


def _replacements(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST | None]:
    if isinstance(parent, ast.Tuple | ast.List | ast.Set) and _is_table(parent):
        yield None
    if isinstance(node, ast.Constant) and not isinstance(parent, ast.MatchValue):
        yield from map(ast.Constant, _other_values(node.value))
    elif isinstance(node, ast.JoinedStr) and isinstance(parent, ast.Call | ast.keyword):
        yield ast.Constant("")
    elif isinstance(node, ast.expr):
        yield from _other_expressions(node)
    yield from _other_conditions(node)
    yield from _other_statements(node)


def _other_expressions(node: ast.expr) -> Iterator[ast.AST]:
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                swapped = [*node.ops]
                swapped[place] = _OTHER[type(operator)]()
                yield ast.Compare(node.left, swapped, node.comparators)
        case ast.BoolOp():
            yield ast.BoolOp(_OTHER[type(node.op)](), node.values)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.BinOp(op=ast.BitOr()):
            yield from (node.left, node.right)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult()):
            yield ast.BinOp(node.left, _OTHER[type(node.op)](), node.right)


def _other_conditions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.If() | ast.IfExp() | ast.While() if not _is_compared(node.test):
            yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.comprehension(ifs=[only]) if not _is_compared(only):
            yield _with(node, ifs=[ast.UnaryOp(ast.Not(), only)])


def _other_statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr() | ast.Break() | ast.Continue():
            yield ast.Pass()
        case ast.AugAssign(op=ast.Add() | ast.Sub()):
            yield ast.AugAssign(node.target, _OTHER[type(node.op)](), node.value)


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_compared(test: ast.expr) -> bool:
    """Whether changes of a condition are found in it already."""
    return isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp)


def _is_table(node: ast.Tuple | ast.List | ast.Set) -> bool:
    plain = ast.Constant | ast.Name
    return (
        len(node.elts) > 1
        and all(isinstance(each, plain) for each in node.elts)
        and (not isinstance(getattr(node, "ctx", ast.Load()), ast.Store))
    )


def _other_values(value: object) -> Iterator[object]:
    match value:
        case bool():
            yield not value
        case int():
            yield value + 1
        case bytes():
            yield b"" if value else b"x"
            text = value.decode("latin-1")
            yield from (each.encode("latin-1") for each in _parts_left_out(text))
        case str():
            yield "" if value else "x"
            yield from _parts_left_out(value)


def _parts_left_out(text: str) -> Iterator[str]:
    """Yield a pattern without one of its choices, or without one member of a class."""
    for choice in _CHOICE.finditer(text):
        yield text[: choice.start()] + text[choice.end() :]
    spans = [each.span(1) for each in _CLASS.finditer(text)]
    if not spans and len(text) > 1 and not text.isascii() and not re.search("[A-Za-z ]", text):
        spans = [(0, len(text))]
    for start, end in spans:
        for item in _ITEM.finditer(text, start, end):
            yield text[: item.start()] + text[item.end() :]


def is_noticed(module: str, tree: ast.Module) -> bool:
    """Whether a test of `module` fails when it is `tree` instead."""
    child = os.fork()
    if child == 0:
        os._exit(_run(module, tree))
    _, status = os.waitpid(child, 0)
    return status != 0


def _run(module: str, tree: ast.Module) -> int:
    import hypothesis
    import pytest

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(PATIENCE)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    # The same examples each time, and no search for the shortest one that fails.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutants", phases=phases, derandomize=True, deadline=None, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    hypothesis.settings.load_profile("mutants")
    try:
        _plant(module, tree)
        off = ("-p", "no:randomly", "-p", "no:cacheprovider")
        options = ("-x", "-q", "--noconftest", "--assert=plain", *off)
        files = (str(ROOT / "tests" / each) for each in TESTS[module])
        return int(pytest.main([*options, *files], plugins=[_ExamplesFirst()]))
    except BaseException:  # noqa: BLE001 - a module that cannot be loaded was noticed
        return 1


class _ExamplesFirst:
    """Lets the tests that make up their own examples, which take longest, come last."""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: hasattr(item.function, "hypothesis"))


def _plant(name: str, tree: ast.Module) -> None:
    """Let imports of `name` find `tree`."""
    package, _, stem = name.rpartition(".")
    around = importlib.import_module(package)
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(ast.fix_missing_locations(tree), spec.origin, "exec"), vars(module))
    setattr(around, stem, module)


def survivors(module: str, only: str) -> tuple[int, list[str]]:
    """Return how many changes of a module were tried, and those that no test noticed."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    assert not is_noticed(module, tree), f"the tests of {module} fail without any change"
    tried, left = 0, []
    for change in list(changes(tree, module)):
        if only not in change.label or change.label in EQUIVALENT:
            continue
        tried += 1
        old = change.put(change.new)
        try:
            if not is_noticed(module, tree):
                left.append(change.label)
                print(f"survived: {change.label}", flush=True)
        finally:
            change.restore(old)
    return tried, left


def main() -> None:
    """Try every change, and tell which ones no test notices."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="changes whose label contains this")
    parser.add_argument("modules", nargs="*", help="parts of modules' names; all of them if none")
    given = parser.parse_args()
    import h11  # noqa: F401 - and what else takes long to load, once for all
    import hypothesis.strategies  # noqa: F401
    import pytest  # noqa: F401

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    tried = killed = 0
    for module in TESTS:
        if not given.modules or any(part in module for part in given.modules):
            count, left = survivors(module, given.only)
            print(f"{module}: {count - len(left)} of {count} killed", flush=True)
            tried, killed = tried + count, killed + count - len(left)
    share = killed / max(tried, 1)
    print(f"{killed} of {tried} killed ({share:.1%}); {len(EQUIVALENT)} change nothing")
    sys.exit(killed < GOAL * tried)


if __name__ == "__main__":
    main()
