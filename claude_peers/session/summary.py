"""The first summary of a session, before its agent writes a better one.

Git facts need no key and no network. With a key (`OPENAI_API_KEY`) a model endpoint is asked,
as upstream does; directory, branch and file names go out then, which is said once on stderr.
"""

import asyncio
import json
import logging
import os
from typing import Any

from claude_peers.core.errors import BadRequestError
from claude_peers.core.limits import SUMMARY
from claude_peers.core.text import one_line
from claude_peers.host import git
from claude_peers.settings import Settings
from claude_peers.wire.codec import loads

log = logging.getLogger(__name__)

WITHIN = 5.0  # seconds, as upstream: claude-peers-mcp shared/summarize.ts
ANNOUNCEMENT = (
    "claude-peers: OPENAI_API_KEY is set, so a model endpoint is asked for this session's first "
    "summary; CLAUDE_PEERS_SUMMARY=git keeps directory, branch and file names here.\n"
)
_ANSWER = 64 * 1024


def asks_out(settings: Settings) -> bool:
    """Whether a model endpoint will be asked."""
    return settings.summary in ("auto", "openai") and bool(settings.openai_key)


def from_git(cwd: str) -> str:
    """Return branch, repository and recent files in one line, or "" outside a repository."""
    repository = git.inspect(cwd)
    if repository is None:
        return ""
    files = git.recent_files(cwd, 5)
    text = f"On {repository.branch} in " if repository.branch else "In "
    text += repository.name
    if files:
        text += f"; recent files: {', '.join(files)}"
    return one_line(text, SUMMARY)


async def make(settings: Settings, cwd: str) -> str:
    """Return a summary for a directory; an endpoint that fails is logged, git facts stay."""
    if settings.summary == "off":
        return ""
    facts = await asyncio.to_thread(from_git, cwd)
    if not asks_out(settings):
        return facts
    try:
        async with asyncio.timeout(WITHIN):
            asked = await asyncio.to_thread(lambda: _ask(settings, _prompt(cwd)))
    except (OSError, TimeoutError, ValueError, LookupError, TypeError, BadRequestError) as error:
        log.warning("the endpoint gave no summary: %s", type(error).__name__)
        return facts
    return one_line(asked, SUMMARY) or facts


def _prompt(cwd: str) -> str:
    repository = git.inspect(cwd)
    lines = [f"Working directory: {cwd}"]
    if repository is not None:
        lines += [f"Repository: {repository.name}", f"Branch: {repository.branch}"]
        lines += [f"Recently changed: {', '.join(git.recent_files(cwd))}"]
    return "\n".join(lines)


def _ask(settings: Settings, prompt: str) -> str:
    import http.client
    import urllib.request

    system = (
        "You describe what a developer is probably working on, for colleagues. Answer with one "
        "or two plain sentences, nothing else."
    )
    body = {
        "model": settings.openai_model,
        "max_tokens": 100,
        "temperature": 0.3,
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": prompt},
        ],
    }
    url = settings.openai_url.rstrip("/") + "/chat/completions"
    if not url.startswith(("https://", "http://")):
        raise ValueError("not a web address")
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        url,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    # Not an ordinary header: those go along to wherever the endpoint redirects.
    request.add_unredirected_header("Authorization", f"Bearer {settings.openai_key}")
    try:
        with urllib.request.urlopen(request, timeout=WITHIN) as response:  # noqa: S310 - the same
            answer: Any = loads(response.read(_ANSWER))
    except http.client.HTTPException as error:  # it does not speak HTTP
        raise ValueError(type(error).__name__) from error
    content = answer["choices"][0]["message"]["content"]
    if not isinstance(content, str):
        raise TypeError("no text")
    return content


def default_name(cwd: str) -> str:
    """Return `<repo>.<branch>`, or the directory's name."""
    repository = git.inspect(cwd)
    if repository is None:
        return os.path.basename(cwd.rstrip("/\\"))
    return f"{repository.name}.{repository.branch}" if repository.branch else repository.name
