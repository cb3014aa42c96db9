"""What a session tells the broker about itself: who its agent is, and how that can be reached."""

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from claude_peers.core import identity
from claude_peers.core.errors import ClaudePeersError
from claude_peers.host import git, processes
from claude_peers.session import agent as agents
from claude_peers.session import record, summary
from claude_peers.session.routes.ways import Ways
from claude_peers.settings import Settings
from claude_peers.tools.member import Member

log = logging.getLogger(__name__)

TERMINAL = "cli"
"""The entry point of a session in a terminal; no other waits in the background for a wake-up."""


class Standing:
    """One session's identity and routes.

    Args:
        settings: what the user decided.
        member: the session's mailbox.
        client: the `clientInfo` of the agent, empty before `initialize`.
        report: tells the broker something, in the background.

    Attributes:
        ways: how the agent can be reached.
    """

    def __init__(
        self,
        settings: Settings,
        member: Member,
        *,
        client: Callable[[], Mapping[str, Any]],
        report: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.ways = Ways(courtesy=settings.push == "auto")
        self._settings = settings
        self._member = member
        self._client = client
        self._report = report
        self._agent: agents.Agent | None = None
        self._activity: record.Activity | None = None
        self._session_id: str | None = None
        self._keyed: str | None = None
        self._told = ("", "")

    @property
    def agent(self) -> agents.Agent:
        """The agent; looked for again as long as it is not recognised."""
        if self._agent is None or not self._agent.matched:
            self.look()
        assert self._agent is not None  # noqa: S101 - just found
        return self._agent

    def look(self) -> bool:
        """Look at the agent anew; whether its session's id can be believed by now."""
        self._agent = agents.find(self._client(), self._settings.environ)
        # A client that resumes a session writes the id it starts with first, and no status.
        return self._agent.record is None or self._agent.record.status is not None

    def registration(self) -> dict[str, Any]:
        """Return the body of `/register` (`client.client` adds token and proof)."""
        agent, member, cwd = self.agent, self._member, self._member.cwd
        if self._session_id is not None:  # newer than what the agent was found with
            agent = replace(agent, session_id=self._session_id)
        self._keyed = agent.session_id
        repository = git.inspect(cwd)
        self._find_ways(agent)
        member.git_root = repository.root if repository else None
        member.repo = repository.common_dir if repository else None
        member.route = self.ways.name
        self._told = (member.route, self.ways.activity.state)
        name = member.client.name or self._settings.name or summary.default_name(cwd)
        return {
            "pid": os.getpid(),
            "cwd": cwd,
            "git_root": member.git_root,
            "repo": member.repo,
            "tty": processes.terminal(os.getpid()),
            "summary": "",
            "name": name,
            "client": agent.client,
            "route": member.route,
            "keys": agents.keys(agent, cwd),
            "share": self._settings.share,
            **self._profile(name),
        }

    def _profile(self, name: str) -> dict[str, Any]:
        """Return what the user's settings say of this session, as far as they do."""
        settings, member = self._settings, self._member
        member.fleet_id, member.device_id = settings.fleet_id or "", settings.device_id or ""
        told = {
            "fleet_id": member.fleet_id,
            "device_id": member.device_id,
            "capabilities": list(settings.capabilities),
            "lwt": settings.lwt_topic
            and {
                "topic": settings.lwt_topic,
                "message": settings.lwt_message
                or json.dumps({"agent_name": name, "status": "offline"}),
            },
        }
        return {field: value for field, value in told.items() if value}

    def joined(self) -> None:
        """Open the routes that only one server of an agent may use."""
        settings, agent = self._settings, self.agent
        self._add_key()
        if self._member.client.secondary or self.ways.routes:
            return
        environ = settings.environ
        if settings.push in ("auto", "rewake") and agent.entrypoint == TERMINAL:
            self._open_rewake(agent.pid)
        if settings.push == "inbox" and agent.matched:
            from claude_peers.session.routes.idle import WhenIdle
            from claude_peers.session.routes.inbox import Inbox

            path = environ.get("CLAUDE_CODE_MESSAGING_SOCKET", "")
            token = environ.get("CLAUDE_CODE_MESSAGING_TOKEN", "")
            self.ways.routes = [WhenIdle(Inbox(path, token), self.ways.activity)]

    def session(self, session_id: str) -> None:
        """Take note of the agent's session, whose id `/clear` and `/resume` change."""
        if session_id == self._session_id or not self.agent.matched:
            return
        self._session_id = session_id
        if self._member.client.registered.is_set():
            self._add_key()

    def beat(self) -> None:
        """Tell the broker what has changed: route, activity, session."""
        if self._activity is not None and (session_id := self._activity.session_id):
            self.session(session_id)
        now = (self.ways.name, self.ways.activity.state)
        if now != self._told and not self._member.client.secondary:
            self._told = now
            self._member.route = now[0]
            body = {**self._member.me, "route": now[0], "activity": now[1]}
            self._report("/set-route", body)

    def _add_key(self) -> None:
        """Tell the broker of a session that it was not told of with the registration."""
        session_id = self._session_id
        if session_id is not None and session_id != self._keyed:
            self._keyed = session_id
            keys = [identity.key("resume", session_id)]
            self._report("/add-keys", {**self._member.me, "keys": keys})

    def _find_ways(self, agent: agents.Agent) -> None:
        settings, environ = self._settings, self._settings.environ
        self.ways.channel = settings.push == "channel" or (
            settings.push == "auto" and agents.channel_proven(agent, settings.server_name, environ)
        )
        if agent.matched and self._activity is None:
            self._activity = record.Activity(record.config_folder(environ), agent.pid)
            self.ways.activity = self._activity

    def _open_rewake(self, client: int) -> None:
        from claude_peers.session.routes.rewake import Rewake, sweep

        folder = os.path.join(self._settings.state_folder, "wake")
        rewake = Rewake(folder, client)
        try:
            rewake.open()
            sweep(folder)
        except (ClaudePeersError, OSError) as error:
            log.warning("this session cannot be woken: %s", error)
            return
        self.ways.routes = [rewake]
