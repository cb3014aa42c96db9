"""Serve the routes of agentmesh's OpenClaw gateway on 127.0.0.1, until interrupted.

For agents that were made for that gateway: POST /register, /send, /broadcast, /subscribe,
/unsubscribe, /unregister, /incoming, and GET /messages/ID, /agents, /health. Each route but
/register and /health wants the token that /register returned. The port is not the one of the
original, 18789, which is OpenClaw's own. An agent that names no fleet, device or webhook gets those
of CLAUDE_PEERS_FLEET_ID, CLAUDE_PEERS_DEVICE_ID and CLAUDE_PEERS_GATEWAY_WEBHOOK_URL. See
docs/webhooks.md.

exit codes: 0 ended by a signal, 2 usage or the port is taken, 6 no broker
"""

import argparse
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from claude_peers.cli import output
from claude_peers.cli.reach import Broker

if TYPE_CHECKING:
    from claude_peers.gateway.openclaw import OpenClaw
    from claude_peers.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the port."""
    told = "default 18790, or CLAUDE_PEERS_GATEWAY_PORT; 0 is any"
    parser.add_argument("--port", type=int, default=None, help=told)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal."""
    from claude_peers.gateway.blocking import LocalServer

    with Broker() as broker:  # tells at once if there is none
        settings = broker.settings
    wanted = settings.gateway_port if options.port is None else options.port
    try:
        server = LocalServer(wanted, _gateway(settings, wanted).answer)
    except (OSError, OverflowError) as error:
        raise output.UsageError(
            f"Port {wanted} cannot be used ({error})",
            "Choose another with --port or CLAUDE_PEERS_GATEWAY_PORT.",
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


def _gateway(settings: "Settings", port: int) -> "OpenClaw":
    from claude_peers.gateway.openclaw import Defaults, OpenClaw, leads_to

    url = settings.gateway_webhook_url
    defaults = Defaults(
        fleet_id=settings.fleet_id,
        device_id=settings.device_id,
        webhook_url=None if url is None or leads_to(url, port) else url,
    )
    return OpenClaw(_ask, _look, defaults)


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


def _look() -> dict[str, Any]:
    """Ask the broker how it is."""
    with Broker() as broker:
        return broker.status()


def _ask(path: str, body: dict[str, Any], token: str | None) -> Any:
    """Ask the broker, over a connection of its own: whichever leads now."""
    with Broker() as broker:
        return broker.ask(path, body, token=token)
