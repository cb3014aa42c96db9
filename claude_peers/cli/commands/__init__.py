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
    Command("doctor", "doctor", "Try out what is needed, and tell what is wrong."),
    Command("salvage", "salvage", "Replace a damaged database by what can be read of it."),
    Command("status", "status", "Who leads, who is there, is every message accounted for."),
    Command("peers", "peers [--all]", "List the peers of this machine."),
    Command("agents", "agents [--fleet F]", "The same as peers, as agentmesh calls it."),
    Command("send", "send PEER MESSAGE...", "Send a message; `-` reads it from stdin."),
    Command("ask", "ask PEER QUESTION...", "Send a question and wait for the answer."),
    Command("broadcast", "broadcast TOPIC MESSAGE...", "Send to a topic's subscribers, or @repo."),
    Command("subscribe", "subscribe TOPIC...", "Get what is published to a topic."),
    Command("why", "why ID", "Tell what became of a message, and what happens next."),
    Command("listen", "listen [--name N]", "Be a peer: print messages as they come."),
    Command("inbox", "inbox [--name N]", "Show your unread mail, once; --of looks at others'."),
    Command("dead-letters", "dead-letters [PEER]", "List messages that nobody read in time."),
    Command("resend", "resend ID...", "Send dead letters again, as new messages."),
    Command("log", "log [-f] [-n N] [--peer PEER]", "Show the messages of all mailboxes."),
    Command("export", "export [FILE]", "Write everything as JSON lines."),
    Command("rename", "rename PEER NAME", "Give a peer another name; the old one forwards."),
    Command("mute", "mute SENDER [--for PEER]", "Hold a sender's messages back from a peer."),
    Command("unmute", "unmute SENDER [--for PEER]", "Let them through again."),
    Command("token", "token NAME", "Let an MCP client that speaks HTTP be a peer."),
    Command(
        "hooks", "hooks print|install|remove", "Wake an agent for mail, by its client's hooks."
    ),
    Command("notice", "notice", "What those of Codex and Gemini run: tell of unread mail."),
    Command(
        "invite", "invite NAME [--ttl 24h]", "Let another machine use this one's broker, once."
    ),
    Command("join", "join [STRING]", "Join another machine's broker; reads stdin without one."),
    Command("discover", "discover [--timeout S]", "Listen for brokers that announce themselves."),
    Command("revoke", "revoke NAME", "Let a machine use this one's broker no more."),
    Command("machines", "machines", "List the machines that were invited, and where to listen."),
    Command("webhook", "webhook set|list|remove", "Have a peer's mail posted to an address."),
    Command("hook-token", "hook-token TOPIC", "Let a program publish by POST /hook/TOPIC."),
    Command("gateway", "gateway [--port N]", "Serve the routes of agentmesh's OpenClaw gateway."),
    Command("serve", "serve", "Run a node without an agent, until interrupted."),
    Command("kill-broker", "kill-broker", "Let another node lead; nothing is lost."),
)
