"""The commands: a module each, with `arguments(parser)` and `run(options) -> exit code`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        name: the word on the command line.
        usage: the word with its arguments.
        summary: one line for the overview.
    """

    name: str
    usage: str
    summary: str

    @property
    def module(self) -> str:
        """The module that does it."""
        return self.name.replace("-", "_")


COMMANDS: tuple[Command, ...] = (
    Command("demo", "demo", "See it work: three sessions, a crash, nothing lost."),
    Command("status", "status", "Who leads, and who is there."),
    Command("peers", "peers", "List the peers of this machine."),
    Command("send", "send PEER MESSAGE...", "Send a message; `-` reads it from stdin."),
    Command("hooks", "hooks print|install|remove", "Wake Claude Code for mail, by its hooks."),
    Command("serve", "serve", "Run a node without an agent, until interrupted."),
    Command("kill-broker", "kill-broker", "Let another node lead; nothing is lost."),
)
