"""Serve the routes of agentmesh's OpenClaw gateway on 127.0.0.1, until interrupted.

For agents that were made for that gateway: POST /register, /send, /broadcast, /subscribe,
/unsubscribe, /unregister, /incoming, and GET /messages/ID, /agents, /health. Each route but
/register and /health wants the token that /register returned. The port is not the one of the
original, 18789, which is OpenClaw's own. See docs/webhooks.md.

exit codes: 0 ended by a signal, 2 usage or the port is taken, 6 no broker
"""

import argparse
import signal
import sys
import threading
from typing import Any, NoReturn

from claude_peers.cli import output
from claude_peers.cli.reach import Broker

PORT = 18790


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the port."""
    parser.add_argument("--port", type=int, default=PORT, help=f"default {PORT}; 0 is any")


def run(options: argparse.Namespace) -> int:
    """Serve until a signal."""
    from claude_peers.gateway.blocking import LocalServer
    from claude_peers.gateway.openclaw import OpenClaw

    with Broker():
        pass  # tells at once if there is none
    try:
        server = LocalServer(options.port, OpenClaw(_ask).answer)
    except (OSError, OverflowError) as error:
        raise output.UsageError(
            f"Port {options.port} cannot be used ({error})", "Choose another with --port."
        ) from None
    signal.signal(signal.SIGTERM, _end)
    with server:
        port = server.server_address[1]
        if options.json:
            output.tell({"port": port})
        else:
            output.note(f"Serving on http://127.0.0.1:{port}; Ctrl-C ends it.")
        sys.stderr.flush()
        _serve(server)
    return output.OK


def _serve(server: Any) -> None:
    """Serve on a thread, so that a signal ends it between two requests."""
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        server.shutdown()


def _end(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _ask(path: str, body: dict[str, Any], token: str | None) -> Any:
    """Ask the broker, over a connection of its own: whichever leads now."""
    with Broker() as broker:
        return broker.ask(path, body, token=token)
