"""Where every way to start us meets: no arguments is an agent's MCP server, else a command."""

import sys
from collections.abc import Sequence
from typing import NoReturn


def main() -> None:
    """Run what the command line asks for."""
    if len(sys.argv) > 1 and sys.argv[1:] != ["--verbose"]:
        _run_command(sys.argv[1:])
    if sys.stdin is not None and sys.stdin.isatty():
        _run_command([])
    _serve_agent(verbose=len(sys.argv) > 1)


def _run_command(words: Sequence[str]) -> NoReturn:
    from claude_peers.host.lean import load_without_openssl

    load_without_openssl("hashlib", "hmac")

    from claude_peers.cli.main import run

    sys.exit(run(words))


def _serve_agent(*, verbose: bool) -> None:
    """Answer the handshake first, then load the rest and go on."""
    from claude_peers.host.lean import load_without_openssl
    from claude_peers.session.early import Early, greet

    if _wants_sdk():
        early = Early()
    else:
        early = greet()
        load_without_openssl("asyncio", "hmac")

    from claude_peers import settings
    from claude_peers.core.errors import ClaudePeersError
    from claude_peers.node import run

    problem: ClaudePeersError | None = None
    try:
        chosen = settings.load()
    except ClaudePeersError as error:
        problem, chosen = error, settings.Settings()
        sys.stderr.write(f"claude-peers: {error}\n")
    run.start_logging(chosen, verbose=verbose)
    run.session(chosen, early, problem=problem)


def _wants_sdk() -> bool:
    import os

    # Read before the settings are loaded: they come with the second stage.
    return os.environ.get("CLAUDE_PEERS_MCP") == "sdk"


if __name__ == "__main__":
    main()
