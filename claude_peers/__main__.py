"""Where every way to start us meets: no arguments is an agent's MCP server, else a command."""

import sys


def main() -> None:
    """Run what the command line asks for."""
    if len(sys.argv) > 1 and sys.argv[1:] != ["--verbose"]:
        from claude_peers.cli.main import run

        sys.exit(run(sys.argv[1:]))
    if sys.stdin is not None and sys.stdin.isatty():
        from claude_peers.cli.main import run

        sys.exit(run([]))
    _serve_agent(verbose=len(sys.argv) > 1)


def _serve_agent(*, verbose: bool) -> None:
    """Answer the handshake first, then load the rest and go on."""
    from claude_peers.session.early import Early, greet

    early = Early() if _wants_sdk() else greet()

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
