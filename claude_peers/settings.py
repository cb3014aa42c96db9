"""Environment variables, as one frozen record; nothing else reads them.

A variable is one field: its metadata hold the name, other names it goes by, and the line the
README prints. A value that cannot be used is refused with variable, value and remedy.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from claude_peers.core.errors import SettingsError
from claude_peers.core.identity import is_name

NO = False
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _setting(
    name: str, default: Any, read: Callable[[str, str], Any], text: str, *also: str
) -> Any:
    return field(default=default, metadata={"name": name, "read": read, "text": text, "also": also})


def _text(_name: str, value: str) -> str:
    return value


def _number(least: int, most: int) -> Callable[[str, str], int]:
    def read(name: str, value: str) -> int:
        digits = value.isascii() and value.isdecimal() and len(value) < 10  # noqa: PLR2004 - no number of ours is longer
        number = int(value) if digits else least - 1
        if not least <= number <= most:
            raise SettingsError(name, value, f"Use a whole number from {least} to {most}.")
        return number

    return read


def _choice(*choices: str) -> Callable[[str, str], str]:
    def read(name: str, value: str) -> str:
        if value not in choices:
            raise SettingsError(name, value, f"Use one of {', '.join(choices)}.")
        return value

    return read


def _flag(name: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise SettingsError(name, value, "Use 1 for yes or 0 for no.")
    return value == "1"


def _peer_name(name: str, value: str) -> str:
    if not is_name(value):
        raise SettingsError(
            name,
            value,
            "Use up to 64 of a-z, 0-9, dot, dash and underscore, a letter or digit first.",
        )
    return value


def _bind(name: str, value: str) -> str:
    if value in LOOPBACK:
        return value
    from ipaddress import ip_address  # not loaded where nobody sets this

    try:
        found = [ip_address(each.strip()) for each in value.split(",")]
    except ValueError:
        found = []
    if not found or any(each.is_multicast or str(each) == "::" for each in found):
        raise SettingsError(
            name,
            value,
            "Use addresses of this machine, separated by commas, or 0.0.0.0 for all in IPv4.",
        )
    return ",".join(map(str, found))


def _broker_url(name: str, value: str) -> str:
    from urllib.parse import urlsplit  # not loaded where nobody sets this

    try:
        parts = urlsplit(value)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    here = host in LOOPBACK
    if not host or port == 0 or scheme not in (("http",) if here else ("http", "https")):
        raise SettingsError(
            name,
            value,
            "Use http://127.0.0.1:PORT, or https://HOST:PORT of a broker on another machine, which "
            "`claude-peers join` prints.",
        )
    if here:
        return f"http://127.0.0.1:{port or 7899}"
    return f"https://[{host}]:{port or 7899}" if ":" in host else f"https://{host}:{port or 7899}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a user can set.

    Attributes:
        environ: the variables as given, for the few that belong to the agent's program.
    """

    port: int = _setting(
        "CLAUDE_PEERS_PORT",
        7899,
        _number(1, 65535),
        "the broker's port on 127.0.0.1",
        "AGENTMESH_PORT",
    )
    database: str = _setting(
        "CLAUDE_PEERS_DB", "~/.claude-peers.db", _text,
        "the database; lock and secret lie beside it in `<name>.d/`", "AGENTMESH_DB",
    )  # fmt: skip
    broker_url: str | None = _setting(
        "CLAUDE_PEERS_BROKER_URL", None, _broker_url,
        "a broker to use instead of electing one; on another machine one that was joined",
    )  # fmt: skip
    bind: str = _setting(
        "CLAUDE_PEERS_BIND", "127.0.0.1", _bind,
        "where the broker listens for other machines, in TLS; 127.0.0.1 it always does, in HTTP",
        "AGENTMESH_BIND",
    )  # fmt: skip
    share: str = _setting(
        "CLAUDE_PEERS_SHARE", "less", _choice("less", "full"),
        "what peers on other machines see of this one: less, or also directory, terminal and pid",
    )  # fmt: skip
    name: str | None = _setting(
        "CLAUDE_PEERS_NAME", None, _peer_name, "this session's name; default `<repo>.<branch>`",
        "CLAUDE_PEER_NAME", "CLAUDE_PEERS_SESSION_NAME",
    )  # fmt: skip
    server_name: str = _setting(
        "CLAUDE_PEERS_SERVER_NAME", "claude-peers", _text,
        "the name this server has in the agent's configuration",
    )  # fmt: skip
    face: str = _setting(
        "CLAUDE_PEERS_MCP", "own", _choice("own", "sdk"),
        "which MCP implementation serves stdio: ours, or the official SDK (slower, larger)",
    )  # fmt: skip
    push: str = _setting(
        "CLAUDE_PEERS_PUSH", "auto", _choice("auto", "rewake", "channel", "hook", "inbox", "off"),
        "how messages reach the agent: auto takes the best proven way, the others only theirs",
    )  # fmt: skip
    summary: str = _setting(
        "CLAUDE_PEERS_SUMMARY", "auto", _choice("auto", "git", "openai", "off"),
        "where the first summary comes from; auto asks the model endpoint if there is a key",
    )  # fmt: skip
    openai_key: str | None = _setting(
        "OPENAI_API_KEY",
        None,
        _text,
        "key for the summary; directory, branch and file names go out",
    )
    openai_url: str = _setting(
        "OPENAI_BASE_URL", "https://api.openai.com/v1", _text, "an OpenAI-compatible endpoint"
    )
    openai_model: str = _setting("OPENAI_MODEL", "gpt-5.4-nano", _text, "the summary's model")
    rate_limit: int = _setting(
        "CLAUDE_PEERS_RATE_LIMIT_RPM", 120, _number(0, 1_000_000),
        "messages a minute and sender; 0 lifts the limit", "AGENTMESH_RATE_LIMIT_RPM",
    )  # fmt: skip
    mailbox_limit: int = _setting(
        "CLAUDE_PEERS_MAILBOX_LIMIT", 1000, _number(0, 1_000_000),
        "unread messages per mailbox; 0 lifts the limit",
    )  # fmt: skip
    require_token: bool = _setting(
        "CLAUDE_PEERS_REQUIRE_TOKEN", NO, _flag,
        "1 refuses peers without a token, that is unmodified upstream clients",
    )  # fmt: skip
    trust_listener: bool = _setting(
        "CLAUDE_PEERS_TRUST_LISTENER", NO, _flag,
        "1 talks to whoever listens on the port, where the system cannot tell who that is",
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
