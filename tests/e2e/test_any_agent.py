"""`docs/any-agent.md`, run: its curl lines, in order, print what it says they print."""

import re
import subprocess
from pathlib import Path

import pytest
from support.machine import Machine

DOCUMENT = Path(__file__).parents[2] / "docs" / "any-agent.md"
BOUND = 90
_BLOCK = re.compile(r"^```(sh|json|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NEXT = "----- next -----"


def shown() -> list[tuple[str, str]]:
    """Return each command of the page with what it prints."""
    text = DOCUMENT.read_text()
    part = text.partition("<!-- curl -->")[2].partition("<!-- /curl -->")[0]
    blocks = [(found[1], found[2]) for found in _BLOCK.finditer(part)]
    kinds = [kind for kind, _ in blocks]
    assert kinds[::2] == ["sh"] * (len(kinds) // 2), kinds  # each is followed by what it prints
    return [
        (command, said) for (_, command), (_, said) in zip(blocks[::2], blocks[1::2], strict=True)
    ]


def pattern(said: str) -> str:
    """Return what a sample matches: `…` is anything on its line."""
    return re.escape(said.rstrip("\n")).replace("…", ".*")


def run(machine: Machine, commands: list[str]) -> list[str]:
    """Run commands in one shell; return what each printed."""
    script = f"\necho; echo '{_NEXT}'\n".join(commands).replace(":7899", f":{machine.port}")
    done = subprocess.run(
        ["bash", "-eu", "-c", script],
        capture_output=True, text=True, timeout=BOUND, env=machine.environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    return done.stdout.split(f"\n{_NEXT}\n")


def test_each_curl_line_of_the_page_prints_what_the_page_says(machine):
    machine.serve()
    pages = shown()
    assert len(pages) >= 9
    printed = run(machine, [command for command, _ in pages])
    assert len(printed) == len(pages)
    for (command, said), told in zip(pages, printed, strict=True):
        assert re.fullmatch(pattern(said), told.rstrip("\n")), f"{command}\nprints\n{told}"
    ledger = machine.post("/ledger")
    assert ledger["balanced"]
    assert ledger["accepted"] == 4  # hello, first, second, green


@pytest.mark.parametrize(
    ("said", "told", "same"),
    [
        ('{"id":"…"}', '{"id":"x"}', True),
        ('{"id":1}', '{"id":12}', False),
        ('{…"a":1,…}', '{"b":2,"a":1,"c":3}', True),
        ("a…\nb", "a\nx\nb", False),
        ("a.b", "axb", False),
    ],
)
def test_a_sample_is_taken_literally_but_for_its_gaps(said, told, same):
    assert bool(re.fullmatch(pattern(said), told)) == same


def test_every_way_that_the_page_lists_has_its_chapter():
    text = DOCUMENT.read_text()
    heads = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    for anchor in re.findall(r"\(#([\w-]+)\)", text):
        assert anchor in heads
