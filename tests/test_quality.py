"""The house rules that a machine can check, so that one test run proves all of them."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support import inherited, reliability, security, tables

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "claude_peers"
TESTS = ROOT / "tests"
MODULE_LINES = {PACKAGE: 300, TESTS: 500}
FUNCTION_LINES = 50
ARGUMENTS = 6
UNFINISHED = re.compile("|".join(rf"\b{word}\b" for word in ("TO" + "DO", "FIX" + "ME")))
PUBLIC_HOSTS = {"pypi.org", "files.pythonhosted.org", "registry.npmjs.org", "github.com"}
LOCK_FILE = re.compile(r".*\.lock|(py)?lock.*\.(toml|txt)|requirements.*\.txt|package-lock\.json")
URL = re.compile(r"https?://[^\s\"'>)]+")
INDEX = re.compile(r"^\s*(?:--(?:extra-)?index-url|-i\b).*", re.MULTILINE)
COMMONPLACE = {Path(each) for each in ("/", "/tmp", "/home", "/src", "/repo", "/home/user")}
"""Folders that a text may name without meaning this machine."""

CHECKERS = {
    "ruff format": (sys.executable, "-m", "ruff", "format", "--check"),
    "ruff check": (sys.executable, "-m", "ruff", "check"),
    "mypy": (sys.executable, "-m", "mypy"),
    "lint-imports": (
        shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or "lint-imports",
    ),
}


@pytest.mark.bug("P9")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CHECKERS)
def test_a_checker_finds_nothing(name):
    unmeasured = {key: text for key, text in os.environ.items() if not key.startswith("COV")}
    done = subprocess.run(
        CHECKERS[name],
        cwd=ROOT,
        env=unmeasured,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def none_of(offenders: Iterable[str]) -> None:
    """Fail with every offender, each on its line."""
    if told := "\n".join(offenders):
        pytest.fail(told, pytrace=False)


def over(limit: int, counts: dict[str, int]) -> list[str]:
    return [
        f"{name} has {count}, the limit is {limit}"
        for name, count in counts.items()
        if count > limit
    ]


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def everywhere() -> list[Path]:
    return [*modules(PACKAGE), *modules(TESTS), *sorted(ROOT.glob("*.py"))]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def called(path: Path, node: ast.AST | None = None) -> str:
    place = path.relative_to(ROOT).as_posix()
    return place if node is None else f"{place}:{node.lineno} {node.name}"


def functions(tree: ast.AST) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Yield every function and whether it is a method."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield child, isinstance(node, ast.ClassDef)


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines without decorators and docstring."""
    told = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    docstring = told.end_lineno - told.lineno + 1 if told else 0
    return function.end_lineno - function.lineno + 1 - docstring


def arguments_of(function: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool) -> int:
    """Count a function's arguments without `self` and `cls`."""
    taken = function.args
    named = [*taken.posonlyargs, *taken.args]
    bound = method and bool(named) and named[0].arg in {"self", "cls"}
    return len(named) - bound + len(taken.kwonlyargs)


@pytest.mark.parametrize("folder", MODULE_LINES, ids=lambda folder: folder.name)
def test_no_module_is_longer_than_one_reason_to_change(folder):
    lengths = {called(each): len(each.read_text("utf-8").splitlines()) for each in modules(folder)}
    none_of(over(MODULE_LINES[folder], lengths))


def test_no_function_is_longer_than_a_screen():
    lengths = {
        called(path, each): lines_of(each)
        for path in everywhere()
        for each, _ in functions(parsed(path))
    }
    none_of(over(FUNCTION_LINES, lengths))


def is_tool(function: ast.AST) -> bool:
    decorators = getattr(function, "decorator_list", [])
    called_by = [each.func for each in decorators if isinstance(each, ast.Call)]
    return any(isinstance(each, ast.Name) and each.id == "tool" for each in called_by)


def test_no_function_takes_more_arguments_than_one_can_remember():
    counts = {
        called(path, each): arguments_of(each, method=method)
        for path in modules(PACKAGE)  # a test's arguments are fixtures
        for each, method in functions(parsed(path))
        if not is_tool(each)  # its arguments are what a model may ask for
    }
    none_of(over(ARGUMENTS, counts))


def is_one_sentence(docstring: str | None) -> bool:
    line = (docstring or "").partition("\n")[0]
    return line.endswith((".", "?")) and not re.search(r"[.!?] [A-Z]", line)


def test_every_module_says_in_one_sentence_what_it_is_for():
    told = {called(path): ast.get_docstring(parsed(path)) for path in everywhere()}
    none_of(name for name, docstring in told.items() if not is_one_sentence(docstring))


@pytest.mark.parametrize(
    ("docstring", "verdict"),
    [
        ("What it is for.", True),
        ("What it is for, e.g. this.\n\nAn essay. It goes on.", True),
        ("What it is for. And more.", False),
        ("What it is for", False),
        ("", False),
        (None, False),
    ],
)
def test_a_sentence_is_told_from_two_and_from_none(docstring, verdict):
    assert is_one_sentence(docstring) is verdict


def test_nothing_is_left_unfinished():
    none_of(
        f"{called(path)}:{number}"
        for path in everywhere()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    )


def named_in(init: Path, name: str) -> set[str] | None:
    """Return every word in the tuple `name` of a package, or None if it declares none.

    A member is named by a string, as a module, as something of a module, or as something
    imported from one; so imported names count with the module they come from.
    """
    tree = parsed(init)
    origin = {
        alias.asname or alias.name: {alias.name, (node.module or "").rpartition(".")[2]}
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in tree.body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(isinstance(each, ast.Name) and each.id == name for each in targets):
            words = {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}
            constants = [each for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
            texts = {str(each.value).replace("-", "_") for each in constants}
            return words | texts | {part for word in words for part in origin.get(word, ())}
    return None


def defines(*names: str) -> Callable[[Path], bool]:
    """Return a test whether a module has a function or decorator of one of these names."""

    def has(path: Path) -> bool:
        found = [each for each, _ in functions(parsed(path))]
        decorators = [
            part for each in found for deco in each.decorator_list for part in words(deco)
        ]
        return bool({*decorators, *(each.name for each in found)} & set(names))

    return lambda path: any(map(has, modules(path) if path.is_dir() else [path]))


def words(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            yield node.id if isinstance(node, ast.Name) else node.attr


REGISTERED = {
    "transports": ("TRANSPORTS", defines("reaches")),
    "stores": ("STORES", defines("take_office")),
    "tools": ("TOOLS", defines("tool")),
    "broker/operations": ("OPERATIONS", defines("operation")),
    "cli/commands": ("COMMANDS", lambda path: not path.stem.startswith("_")),
}
"""Packages whose members stand in a tuple, and what makes one of their modules a member."""


def members(folder: Path) -> list[Path]:
    return [
        each
        for each in sorted(folder.glob("*"))
        if (each.suffix == ".py" and each.stem != "__init__") or (each / "__init__.py").exists()
    ]


@pytest.mark.parametrize("package", REGISTERED)
def test_every_member_of_a_package_is_named_in_its_tuple(package):
    name, is_member = REGISTERED[package]
    init = PACKAGE / package / "__init__.py"
    named = named_in(init, name) if init.exists() else None
    if named is None:
        pytest.skip(f"{package} has no {name}")
    declaring = [each for each in members(init.parent) if each.stem != "registry"]
    none_of(each.stem for each in declaring if is_member(each) and each.stem not in named)


@pytest.mark.parametrize(
    ("package", "name", "kind"),
    [("tools", "TOOLS", "Tool"), ("broker/operations", "OPERATIONS", "Operation")],
)
def test_everything_declared_with_a_decorator_is_in_its_tuple(package, name, kind):
    dotted = f"claude_peers.{package.replace('/', '.')}"
    listed = getattr(importlib.import_module(dotted), name)
    declared = [
        value
        for each in members(PACKAGE / package)
        for value in vars(importlib.import_module(f"{dotted}.{each.stem}")).values()
        if type(value).__name__ == kind
    ]
    assert declared
    none_of(repr(each) for each in declared if each not in listed)


@pytest.mark.bug("B4-25")
@pytest.mark.parametrize("name", tables.TABLES)
def test_a_table_of_the_readme_says_what_the_code_declares(name):
    if not tables.README.exists():
        pytest.skip("there is no README yet")
    remedy = "run `python -m tests.support.tables --write`"
    shown = tables.shown(tables.README.read_text(encoding="utf-8"), name)
    assert shown is not None, f"the README lacks <!-- {name} --> … <!-- /{name} -->"
    assert shown == tables.table(name), remedy


def test_writing_the_tables_again_changes_nothing():
    empty = "".join(f"# {name}\n<!-- {name} --><!-- /{name} -->\n" for name in tables.TABLES)
    written = tables.rewritten(empty)
    assert tables.rewritten(written) == written
    assert [tables.shown(written, name) for name in tables.TABLES] == [
        tables.table(name) for name in tables.TABLES
    ]


def test_a_readme_without_a_place_for_a_table_is_not_written():
    with pytest.raises(LookupError, match="settings"):
        tables.rewritten("# claude-peers")


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files under version control; outside a checkout there are none to judge."""
    git = shutil.which("git")
    if git is None:
        return ()
    listed = subprocess.run(
        (git, "ls-files", "-z"), cwd=ROOT, capture_output=True, check=False, timeout=60
    )
    files = [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    return tuple(each for each in files if each.is_file())


def places() -> list[str]:
    """Return how an absolute path to here begins, unless a text may say so anywhere."""
    parent = ROOT.parent
    if parent in COMMONPLACE | {Path(tempfile.gettempdir()).resolve(), Path.home().parent}:
        return []
    return sorted({f"{parent}{os.sep}", f"{parent.as_posix()}/"})


def test_no_tracked_file_names_the_place_where_it_was_written():
    none_of(
        f"{called(path)}: {place}"
        for place in places()
        for path in tracked()
        if re.search(rb"(?<![\w.~-])" + re.escape(os.fsencode(place)), path.read_bytes())
    )


def test_no_lock_file_names_an_index_that_is_not_public():
    for path in tracked():
        if LOCK_FILE.fullmatch(path.name):
            text = path.read_text(encoding="utf-8")
            hosts = {urlsplit(url).hostname or url for url in URL.findall(text)}
            none_of(f"{called(path)}: {host}" for host in sorted(hosts - PUBLIC_HOSTS))
            none_of(f"{called(path)}: {option}" for option in INDEX.findall(text))


@pytest.mark.parametrize("table", [inherited, reliability, security])
def test_a_table_of_proofs_names_the_tests_there_are(table):
    proofs = table.PROOFS
    document = proofs.path.read_text(encoding="utf-8")
    remedy = f"run `python -m {table.__name__} --write`"
    assert proofs.rewritten(document) == document, remedy
    assert proofs.table() in document
