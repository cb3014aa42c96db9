"""What a test counted or measured, printed, and on request kept for `docs/reliability.md`.

`CLAUDE_PEERS_FIGURES=1 python -m pytest tests/faults` keeps the figures in `docs/figures.json`;
`python -m tests.support.reliability --write` then shows them beside the fault that they are of.
"""

import json
import os
from pathlib import Path

from filelock import FileLock

KEPT = Path(__file__).resolve().parents[2] / "docs" / "figures.json"


def load() -> dict[str, str]:
    """Return the figures of the last run that kept any, by `file::test`."""
    return dict(json.loads(KEPT.read_text(encoding="utf-8"))) if KEPT.exists() else {}


def tell(node: str, text: str) -> None:
    """Print a test's figures; keep them if that was asked for.

    Args:
        node: pytest's name for the test, with its parameters.
        text: the figures, as half a sentence.
    """
    print(text)
    if os.environ.get("CLAUDE_PEERS_FIGURES") != "1":
        return
    with FileLock(f"{KEPT}.lock"):  # of several workers
        figures = load() | {node.partition("[")[0]: text}
        KEPT.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", encoding="utf-8")
