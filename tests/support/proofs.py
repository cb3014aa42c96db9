"""Tables in `docs/` whose rows are proven by tests, made from the tests' own marks."""

import argparse
import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_OPEN = "not proven yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    """One table.

    Attributes:
        mark: what a test that proves a row carries: `@pytest.mark.<mark>("NAME")`.
        document: the file, from the root; the table lies between `<!-- <mark>s -->` and its end.
        rows: what may happen and what is expected then, by name.
        figures: what to show beside a test, by `file::test`.
    """

    mark: str
    document: str
    rows: dict[str, tuple[str, str]]
    figures: Callable[[], Mapping[str, str]] = dict

    @property
    def path(self) -> Path:
        """The document's place."""
        return ROOT / self.document

    def tests(self) -> dict[str, list[str]]:
        """Return the tests of each row, as `file::test`."""
        found: dict[str, list[str]] = {name: [] for name in self.rows}
        for path in sorted((ROOT / "tests").rglob("test_*.py")):
            for test, row in self._marked(ast.parse(path.read_text(encoding="utf-8"))):
                found[row].append(f"{path.relative_to(ROOT).as_posix()}::{test}")
        return found

    def table(self) -> str:
        """Return the table as Markdown."""
        lines = [f"| {self.mark} | expected | proven by |", "| --- | --- | --- |"]
        figures = self.figures()
        for name, tests in self.tests().items():
            what, expected = self.rows[name]
            shown = [f"`{each}`{f': {figures[each]}' if each in figures else ''}" for each in tests]
            by = "<br>".join(shown) or _OPEN
            lines.append(f"| **{name}** {what} | {expected} | {by} |")
        return "\n".join(lines)

    def rewritten(self, document: str) -> str:
        """Return the document with its table as it should be."""
        place = re.compile(rf"(<!-- {self.mark}s -->)(.*?)(<!-- /{self.mark}s -->)", re.DOTALL)
        return place.sub(lambda found: f"{found[1]}\n{self.table()}\n{found[3]}", document)

    def _marked(self, module: ast.Module) -> Iterator[tuple[str, str]]:
        for test in ast.walk(module):
            if isinstance(test, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for mark in test.decorator_list:
                    name = ast.unparse(mark.func) if isinstance(mark, ast.Call) else ""
                    if isinstance(mark, ast.Call) and name == f"pytest.mark.{self.mark}":
                        yield from ((test.name, ast.literal_eval(row)) for row in mark.args)


def main(proofs: Proofs) -> None:
    """Print the table, or write it into the document."""
    parser = argparse.ArgumentParser(description=f"The table of {proofs.document}.")
    parser.add_argument("--write", action="store_true", help=f"write it into {proofs.document}")
    if parser.parse_args().write:
        document = proofs.path.read_text(encoding="utf-8")
        proofs.path.write_text(proofs.rewritten(document), encoding="utf-8")
    else:
        print(proofs.table())
