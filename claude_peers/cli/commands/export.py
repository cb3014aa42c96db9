"""Write everything as JSON lines, for backups and for programs that read on.

The first line is a header: version, time, epoch, the counts of messages. Then come the peers, also
those that are gone, as long as they are remembered, then all messages with their states, oldest
first. A file is for you alone (0600), and is there whole or not at all.

exit codes: 0 done, 1 the file cannot be written, 2 usage, 5 the file exists, 6 no broker
"""

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import IO, Any

from claude_peers import __version__
from claude_peers.cli import letters, output
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import ClaudePeersError

STDOUT = "-"
_BINARY: int = getattr(os, "O_BINARY", 0)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take where to."""
    parser.add_argument("file", nargs="?", default=STDOUT, help="where to; default: stdout (-)")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def run(options: argparse.Namespace) -> int:
    """Write it all."""
    if options.file == STDOUT:
        with Broker() as broker:
            for line in _lines(broker):
                output.tell(line)
        return output.OK
    written: Counter[str] = Counter()
    with Broker() as broker, _file(options.file, replace=options.force) as file:
        for line in _lines(broker):
            file.write(f"{json.dumps(line)}\n")
            written[line["type"]] += 1
    messages, peers = written["message"], written["peer"]
    if options.json:
        output.tell({"file": options.file, "messages": messages, "peers": peers})
    else:
        output.say(f"Wrote {messages} message(s) and {peers} peer(s) to {options.file}")
    return output.OK


def _lines(broker: Broker) -> Iterator[dict[str, Any]]:
    ledger = broker.ask("/ledger", {}, authenticate=True)
    yield {
        "type": "header",
        "version": __version__,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "epoch": broker.status().get("epoch"),
        "ledger": {name: ledger[name] for name in ("accepted", "purged", "states", "balanced")},
    }
    for peer in broker.ask("/list-peers", {"scope": "machine", "gone": True}):
        yield {"type": "peer", **peer}
    for page in letters.pages(broker):
        for message in page:
            yield {"type": "message", **message}


@contextmanager
def _file(path: str, *, replace: bool) -> Iterator[IO[str]]:
    """Open a file beside `path` that becomes it when all has gone well.

    Raises:
        FileExistsAlreadyError: there is one, and it is not to be replaced.
        UnwritableError: the system says no.
    """
    if not replace and os.path.lexists(path):
        raise FileExistsAlreadyError(path)
    draft = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
        with os.fdopen(os.open(draft, flags, 0o600), "w", encoding="ascii", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _publish(draft, path, replace=replace)
    except FileExistsError:
        raise FileExistsAlreadyError(path) from None
    except OSError as error:
        raise UnwritableError(path, error) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


def _publish(draft: str, path: str, *, replace: bool) -> None:
    if not replace:
        # Unlike a rename, a link never replaces what came meanwhile.
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if os.path.lexists(path):
                raise FileExistsError from None
        else:
            return
    os.replace(draft, path)


class FileExistsAlreadyError(ClaudePeersError):
    """There is a file of that name."""

    code = "file_exists"

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} exists", "Choose another name, or replace it with --force.")


class UnwritableError(ClaudePeersError):
    """The file cannot be written."""

    code = "unwritable"

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(
            f"{path} cannot be written: {error.strerror}",
            "Name a file in a folder of yours that has space, or `-` for stdout.",
        )
