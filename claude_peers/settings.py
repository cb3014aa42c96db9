"""Environment variables, as one frozen record; nothing else reads them.

A variable is one field: its metadata hold the name, other names it goes by, and the line the
README prints. A value that cannot be used is refused with variable, value and remedy.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from claude_peers.core.delivery import DELIVERIES
from claude_peers.core.variables import (
    LOOPBACK,
    address,
    bind,
    broker_url,
    choice,
    deliveries,
    flag,
    hosts,
    number,
    peer_name,
    text,
    webhook_url,
    words,
)

NO = False


def _setting(
    name: str, default: Any, read: Callable[[str, str], Any], text: str, *also: str
) -> Any:
    told = {"name": name, "read": read, "text": text, "also": also}
    return field(default=default, metadata=told, repr=not name.endswith("_SECRET"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a user can set.

    Attributes:
        environ: the variables as given, for the few that belong to the agent's program.
    """

    port: int = _setting(
        "CLAUDE_PEERS_PORT",
        7899,
        number(1, 65535),
        "the broker's port on 127.0.0.1",
        "AGENTMESH_PORT",
    )
    database: str = _setting(
        "CLAUDE_PEERS_DB", "~/.claude-peers.db", text,
        "the database; lock and secret lie beside it in `<name>.d/`", "AGENTMESH_DB",
    )  # fmt: skip
    broker_url: str | None = _setting(
        "CLAUDE_PEERS_BROKER_URL", None, broker_url,
        "a broker to use instead of electing one; on another machine one that was joined",
        "AGENTMESH_BROKER_URL",
    )  # fmt: skip
    bind: str = _setting(
        "CLAUDE_PEERS_BIND", "127.0.0.1", bind,
        "where the broker listens for other machines, in TLS; 127.0.0.1 it always does, in HTTP",
        "AGENTMESH_BIND",
    )  # fmt: skip
    share: str = _setting(
        "CLAUDE_PEERS_SHARE", "less", choice("less", "full"),
        "what peers on other machines see of this one: less, or also directory, terminal and pid",
    )  # fmt: skip
    name: str | None = _setting(
        "CLAUDE_PEERS_NAME", None, peer_name, "this session's name; default `<repo>.<branch>`",
        "CLAUDE_PEER_NAME", "CLAUDE_PEERS_SESSION_NAME", "AGENTMESH_AGENT_NAME",
    )  # fmt: skip
    server_name: str = _setting(
        "CLAUDE_PEERS_SERVER_NAME", "claude-peers", text,
        "the name this server has in the agent's configuration",
    )  # fmt: skip
    face: str = _setting(
        "CLAUDE_PEERS_MCP", "own", choice("own", "sdk"),
        "which MCP implementation serves stdio: ours, or the official SDK (slower, larger)",
    )  # fmt: skip
    push: str = _setting(
        "CLAUDE_PEERS_PUSH", "auto", choice("auto", "rewake", "channel", "hook", "inbox", "off"),
        "how messages reach the agent: auto takes the best proven way, the others only theirs",
    )  # fmt: skip
    summary: str = _setting(
        "CLAUDE_PEERS_SUMMARY", "auto", choice("auto", "git", "openai", "off"),
        "where the first summary comes from; auto asks the model endpoint if there is a key",
    )  # fmt: skip
    openai_key: str | None = _setting(
        "OPENAI_API_KEY",
        None,
        text,
        "key for the summary; directory, branch and file names go out",
    )
    openai_url: str = _setting(
        "OPENAI_BASE_URL", "https://api.openai.com/v1", text, "an OpenAI-compatible endpoint"
    )
    openai_model: str = _setting("OPENAI_MODEL", "gpt-5.4-nano", text, "the summary's model")
    rate_limit: int = _setting(
        "CLAUDE_PEERS_RATE_LIMIT_RPM", 120, number(0, 1_000_000),
        "messages a minute and sender; 0 lifts the limit", "AGENTMESH_RATE_LIMIT_RPM",
    )  # fmt: skip
    mailbox_limit: int = _setting(
        "CLAUDE_PEERS_MAILBOX_LIMIT", 1000, number(0, 1_000_000),
        "unread messages per mailbox; 0 lifts the limit",
    )  # fmt: skip
    require_token: bool = _setting(
        "CLAUDE_PEERS_REQUIRE_TOKEN", NO, flag,
        "1 refuses peers without a token, that is unmodified upstream clients",
    )  # fmt: skip
    webhook_allow: tuple[str, ...] = _setting(
        "CLAUDE_PEERS_WEBHOOK_ALLOW", (), hosts,
        "hosts, or host:port, beside this machine to which mail may be posted, by commas",
    )  # fmt: skip
    trust_listener: bool = _setting(
        "CLAUDE_PEERS_TRUST_LISTENER", NO, flag,
        "1 talks to whoever listens on the port, where the system cannot tell who that is",
    )  # fmt: skip
    fleet_id: str | None = _setting(
        "CLAUDE_PEERS_FLEET_ID", None, text,
        "the fleet of this session, and of peers that name none", "AGENTMESH_FLEET_ID",
    )  # fmt: skip
    device_id: str | None = _setting(
        "CLAUDE_PEERS_DEVICE_ID", None, text, "the device of this session", "AGENTMESH_DEVICE_ID"
    )
    capabilities: tuple[str, ...] = _setting(
        "CLAUDE_PEERS_CAPABILITIES", (), words,
        "what this session's agent can do, for who looks for it; separated by commas",
        "AGENTMESH_CAPABILITIES",
    )  # fmt: skip
    lwt_topic: str | None = _setting(
        "CLAUDE_PEERS_LWT_TOPIC", None, text,
        "where it is published that this session was lost", "AGENTMESH_LWT_TOPIC",
    )  # fmt: skip
    lwt_message: str | None = _setting(
        "CLAUDE_PEERS_LWT_MESSAGE", None, text,
        "what is published then; default its name as JSON", "AGENTMESH_LWT_MESSAGE",
    )  # fmt: skip
    fleet_secret: str | None = _setting(
        "CLAUDE_PEERS_FLEET_SECRET", None, text,
        "signs messages for agentmesh's clients (HMAC-SHA256)", "AGENTMESH_FLEET_SECRET",
    )  # fmt: skip
    broker_id: str | None = _setting(
        "CLAUDE_PEERS_BROKER_ID", None, text,
        "what the broker calls itself to agentmesh's clients; default HOST:PORT",
        "AGENTMESH_BROKER_ID",
    )  # fmt: skip
    ack_deadline_ms: int = _setting(
        "CLAUDE_PEERS_ACK_DEADLINE_MS", 60_000, number(1, 86_400_000),
        "milliseconds to acknowledge what was handed out; then it is there again",
        "AGENTMESH_ACK_DEADLINE_MS",
    )  # fmt: skip
    max_deliveries: int = _setting(
        "CLAUDE_PEERS_MAX_DELIVERIES", DELIVERIES, deliveries,
        "times a message is handed out, pushes included, before it is a dead letter; "
        "`AGENTMESH_MAX_RETRIES` counts those after the first", "AGENTMESH_MAX_RETRIES",
    )  # fmt: skip
    peer_ttl_ms: int = _setting(
        "CLAUDE_PEERS_PEER_TTL_MS", 60_000, number(1000, 86_400_000),
        "milliseconds of silence after which a peer without a known process is away",
        "AGENTMESH_PEER_TTL_MS",
    )  # fmt: skip
    gateway_port: int = _setting(
        "CLAUDE_PEERS_GATEWAY_PORT", 18790, number(1, 65535),
        "the port of `claude-peers gateway` on 127.0.0.1", "OPENCLAW_GATEWAY_PORT",
    )  # fmt: skip
    gateway_webhook_url: str | None = _setting(
        "CLAUDE_PEERS_GATEWAY_WEBHOOK_URL", None, webhook_url,
        "where the mail of the gateway's agents that name no address is posted; "
        "unset or its own `/incoming`: it waits to be fetched", "OPENCLAW_GATEWAY_WEBHOOK_URL",
    )  # fmt: skip
    discovery: bool = _setting(
        "CLAUDE_PEERS_DISCOVERY", NO, flag,
        "1 announces the broker on the local network, if it listens there", "AGENTMESH_DISCOVERY",
    )  # fmt: skip
    discovery_address: str = _setting(
        "CLAUDE_PEERS_DISCOVERY_ADDRESS", "255.255.255.255", address,
        "where it is announced: an IPv4 address, and `:PORT` if not the broker's port + 1",
    )  # fmt: skip
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def database_path(self) -> str:
        """The database's absolute path."""
        return os.path.abspath(os.path.expanduser(self.database))

    @property
    def state_folder(self) -> str:
        """The folder of lock and secret."""
        return self.database_path.removesuffix(".db") + ".d"

    @property
    def bind_addresses(self) -> tuple[str, ...]:
        """The addresses at which other machines are to reach the broker; 0.0.0.0 is all."""
        return tuple(each for each in self.bind.split(",") if each not in LOOPBACK)

    @property
    def remote(self) -> str | None:
        """`HOST:PORT` of the broker on another machine that is to be used."""
        url = self.broker_url or ""
        return url.removeprefix("https://") if url.startswith("https://") else None

    @property
    def discovery_target(self) -> tuple[str, int]:
        """Where the broker is announced, and where one listens for it."""
        host, _, port = self.discovery_address.partition(":")
        return host, int(port or self.port + 1)

    @property
    def broker_port(self) -> int:
        """The port a client talks to."""
        return int(self.broker_url.rpartition(":")[2]) if self.broker_url else self.port


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of `environ` (default: the process's).

    Raises:
        SettingsError: a value cannot be used.
    """
    given = dict(os.environ if environ is None else environ)
    values: dict[str, Any] = {"environ": given}
    for each in fields(Settings):
        if not each.metadata:
            continue
        for name in (each.metadata["name"], *each.metadata["also"]):
            if given.get(name):
                values[each.name] = each.metadata["read"](name, given[name])
                break
    return Settings(**values)
