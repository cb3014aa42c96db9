"""The hooks by which Claude Code wakes for mail, and what a call of one answers.

Two kinds. WAIT is a shell that sleeps in the background, reading a FIFO which the session's server
makes at `fifo(state, client pid)`. The server writes mail into it and closes; the shell repeats it
on stderr and exits with 2, which wakes the session. A server that dies closes the FIFO too: the
shell then ends without a word. It must never wait in a `claude -p`, which would not end before it.
TOOL calls our server's unlisted tool at moments of a turn; what it answers is here as well.

One entry that a version of Claude Code does not know voids the user's whole settings file,
permissions included. So what is installed depends on the version; when in doubt it is less.
"""

import json
import re
import shlex
from bisect import bisect_left
from typing import Any

from claude_peers.wire import turn_hooks

SERVER = "claude-peers"
"""The name that our server has in the agent's configuration unless the user chose another."""
TOOL = "hook"
"""The unlisted tool that the hooks call; its arguments are the keys of `INPUT`."""
INPUT = {
    "event": "${hook_event_name}",
    "session_id": "${session_id}",
    "cwd": "${cwd}",
    "agent_id": "${agent_id}",
    "tool_use_id": "${tool_use_id}",
    "prompt": "${prompt}",
}
OLDEST = (2, 1, 80)
"""The first version of Claude Code in which the waiter is known to wake a session."""
EVERYTHING = (2, 1, 118)
"""The first version that is known to take every entry."""
CONTEXT = 9_500
"""Characters of an answer; Claude Code replaces what is over 10,000 by a file and a preview."""

Version = tuple[int, int, int]

_MARK = ": claude-peers wake;"
_WAKE = ("SessionStart", "Stop", "StopFailure")
_WAKE_BEFORE = ("SessionStart", "Stop")
_ASK = ("UserPromptSubmit", "PostToolBatch")
_WEEK = 604_800
_CUT = "\n[cut: call check_messages for the rest]"
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:\s.*)?", re.DOTALL)
# The lock is a link whose target is the waiter's pid, made and filled in one step. The shell reads
# by itself: a `cat` would outlive a shell that is killed, and take the next waiter's mail.
_WAIT = (
    _MARK,
    '[ "$CLAUDE_CODE_ENTRYPOINT" = cli ] || exit 0;',
    "f={state}/wake/${{CLAUDE_PID:-$PPID}}; p=$f.pid; n=0;",
    'while [ ! -p "$f" ]; do n=$((n+1)); [ $n -gt 50 ] && exit 0; sleep 0.1; done;',
    'ln -s $$ "$p" 2>/dev/null || {{ kill -0 "$(readlink "$p")" 2>/dev/null && exit 0;',
    'rm -f "$p"; ln -s $$ "$p" 2>/dev/null || exit 0; }};',
    'n=0; while IFS= read -r l || [ -n "$l" ]; do n=2; printf \'%s\\n\' "$l" >&2;',
    'done <"$f"; [ "$(readlink "$p")" = $$ ] && rm -f "$p"; exit $n',
)


def fifo(state: str, client: int) -> str:
    """Return where the server of the session whose client has this pid makes its FIFO."""
    return f"{state}/wake/{client}"


def waiter(state: str) -> dict[str, Any]:
    """Return the entry that wakes a session; `state` is the absolute path of the state folder.

    A client has one waiter at most: another ends at once. Without a FIFO it ends after 5 seconds.
    """
    command = " ".join(_WAIT).format(state=shlex.quote(state))
    return {"type": "command", "asyncRewake": True, "timeout": _WEEK, "command": command}


def caller(server: str) -> dict[str, Any]:
    """Return the entry that calls our tool on the server of this name."""
    return {
        "type": "mcp_tool",
        "server": server,
        "tool": TOOL,
        "timeout": 2,
        "input": dict(INPUT),
    }


def version(told: str) -> Version | None:
    """Return the version in what `claude --version` told, None if it cannot be made out."""
    found = _VERSION.fullmatch(told.strip())
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def settings(state: str | None, server: str, client: Version | None) -> dict[str, Any]:
    """Return the settings with all hooks that a version of Claude Code can take, maybe none.

    Args:
        state: the state folder's absolute path, None on a system without FIFOs.
        server: the name that our server has in the configuration, `plugin:P:S` for a plugin's.
        client: None for an unknown version, which gets what every known one takes.
    """
    full = client is not None and client >= EVERYTHING
    hooks: dict[str, Any] = {}
    if state is not None and (client is None or client >= OLDEST):
        for event in _WAKE if full else _WAKE_BEFORE:
            hooks[event] = [{"hooks": [waiter(state)]}]
    if full:
        for event in _ASK:
            hooks[event] = [{"hooks": [caller(server)]}]
        # As Claude Code spells a server's name in those of its tools.
        name = re.sub(r"[^A-Za-z0-9_-]", "_", server)
        hooks["PreToolUse"] = [{"matcher": f"mcp__{name}__.*", "hooks": [caller(server)]}]
    return {"hooks": hooks}


def is_ours(entry: Any) -> bool:
    """Whether a hook entry is one of ours, of whatever version, state folder or server name."""
    if not isinstance(entry, dict):
        return False
    if entry.get("type") == "command":
        return str(entry.get("command")).startswith(_MARK) or turn_hooks.is_ours(entry)
    given = entry.get("input")
    asks = isinstance(given, dict) and given.keys() >= {"event", "agent_id", "tool_use_id"}
    return entry.get("tool") == TOOL and (entry.get("server") == SERVER or asks)


def silent() -> str:
    """Return what a hook call answers when there is nothing to say.

    Anything else, an empty text too, would put a line into the agent's context each time.
    """
    return "{}"


def context(event: str, text: str) -> str:
    """Return what a hook call answers to put `text` into the agent's context, as its only block.

    A text that does not fit (`fits`) is cut, and says so.
    """
    if fits(event, text):
        return _block(event, text)
    lengths = range(min(len(text), CONTEXT))
    too_long = bisect_left(lengths, 1, key=lambda most: 1 - fits(event, text[:most] + _CUT))
    return _block(event, text[: max(too_long - 1, 0)] + _CUT)


def fits(event: str, text: str) -> bool:
    """Whether a hook call can put the whole of `text` into the agent's context."""
    # Counted as JavaScript does, in which a character beyond the first plane is two.
    return len(text) < CONTEXT and len(_block(event, text).encode("utf-16-le", "surrogatepass")) < (
        2 * CONTEXT
    )


def _block(event: str, text: str) -> str:
    told = {"hookEventName": event, "additionalContext": text}
    return json.dumps({"hookSpecificOutput": told}, ensure_ascii=False)
