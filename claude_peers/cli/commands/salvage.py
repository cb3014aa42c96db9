"""Replace a damaged database by what can still be read of it.

The damaged file is moved aside as it is, never written to. Whatever is whole, another program's,
or a newer version's is left alone. --dry-run only tells what could be read.

exit codes: 0 done, or nothing to do, 1 it cannot be done
"""

import argparse
import time
from dataclasses import asdict

from claude_peers import settings
from claude_peers.cli import output
from claude_peers.core.errors import StoreError
from claude_peers.host import leading


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take whether to change anything."""
    parser.add_argument("--dry-run", action="store_true", help="change nothing")


def run(options: argparse.Namespace) -> int:
    """Keep every broker away meanwhile; tell what was found, and where everything is now."""
    from claude_peers.stores.sqlite.examine import examine
    from claude_peers.stores.sqlite.salvage import salvage

    chosen = settings.load()
    held = leading.lock(chosen.state_folder)
    if held is None:
        raise StoreError(
            f"A broker is using {chosen.database_path}",
            "Run `claude-peers kill-broker --for 60s`, then this again: nobody leads meanwhile.",
        )
    with held:
        condition = examine(chosen.database_path)
        if not condition.damaged:
            if condition.remedy:
                raise StoreError(condition.fact, condition.remedy)
            if options.json:
                output.tell({"ok": True, "fact": condition.fact})
            else:
                output.say(f"{condition.fact}: nothing to salvage.")
            return output.OK
        try:
            found = salvage(chosen.database_path, now=time.time(), keep=not options.dry_run)
        except OSError as error:
            raise StoreError(
                f"It cannot be salvaged: {error}",
                "Make room and the folder writable for you, then try again.",
            ) from error
    if options.json:
        output.tell({"ok": True, "fact": condition.fact, **asdict(found)})
        return output.OK
    output.say(condition.fact)
    could = "could be read" if options.dry_run else "were kept"
    output.say(
        f"{found.messages} message(s), {found.unread} of them unread, "
        f"and {found.peers} peer(s) {could}."
    )
    if found.aside:
        output.say(f"The damaged file is {found.aside}, unchanged.")
    return output.OK
