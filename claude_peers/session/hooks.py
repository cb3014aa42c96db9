"""What the client's hooks tell a session, and what they are answered.

A hook calls our unlisted tool at a moment of a turn and puts what we answer into the agent's
context. That is no evidence yet: the client may have given up on the call, and says so, maybe
after our line was written. The next call of any kind by the main agent shows that it went on,
answer included. A sub-agent runs beside it, so its calls show nothing; they get no mail either.

A prompt is looked through for our receipts, in memory; it is neither kept nor logged.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from claude_peers.session.inbound import Inbound
from claude_peers.tools.member import Call, Hooks, Member
from claude_peers.tools.registry import Shown
from claude_peers.wire import envelope, hooks

REMEMBERED = 64
"""Calls of sub-agents that are told apart."""
TOOL_USE = "claudecode/toolUseId"
"""Where Claude Code puts its id of a model's call; a hook's call has none."""


class ClientHooks(Hooks):
    """The hooks of one session.

    Args:
        member: the session's mailbox.
        inbound: passes messages on.
        report: tells the broker something.
        session: told the id of the client's session, which `/clear` changes.
        mail: whether mail may go into answers; the user may have chosen another route.
    """

    def __init__(
        self,
        member: Member,
        inbound: Inbound,
        *,
        report: Callable[[str, dict[str, Any]], None],
        session: Callable[[str], None],
        mail: bool = True,
    ) -> None:
        self._member = member
        self._inbound = inbound
        self._report = report
        self._session = session
        self._with_mail = mail
        self._told: set[int] = set()
        self._previews: dict[str, int] = {}
        self._begun: dict[str, int] = {}
        self._sub_agents: OrderedDict[str, None] = OrderedDict()

    def call(self, meta: dict[str, Any]) -> Call:
        """Return who makes a call, by its `_meta`."""
        tool_use = meta.get(TOOL_USE)
        if not isinstance(tool_use, str):
            return Call()
        return Call(tool_use, sub_agent=tool_use in self._sub_agents)

    def went_on(self) -> None:
        """Take note that the client calls again: what hooks were answered before has been seen."""
        self._begun.clear()
        if self._told:
            seen = {*self._told}
            self._told.clear()
            self._member.forget(seen)
            body = {**self._member.me, "message_ids": sorted(seen), "via": "hook"}
            self._report("/ack-messages", body)

    def answered(self, shown: Shown, *, whole: bool) -> None:
        """Take note of what became of a hook's answer; a cancelled one counts for nothing."""
        ids, preview = shown.message_ids, self._previews.pop(shown.text, None)
        self._member.in_hand.difference_update(ids)
        if not whole:
            self._take_back(shown)
            return
        if preview is not None and preview in self._member.unread:
            self._begun[shown.text] = preview
            self._member.offered.add(preview)
        if ids:
            self._told.update(ids)
            self._member.pushed.update(ids)
            body = {**self._member.me, "message_ids": list(ids), "via": "hook"}
            self._report("/pushed-messages", body)

    def _take_back(self, shown: Shown) -> None:
        """Offer again what is in an answer that was cancelled after it was written, if it is."""
        told = self._told.intersection(shown.message_ids)
        begun = self._begun.pop(shown.text, None)
        if not told and begun is None:
            return
        self._told -= told
        self._member.pushed -= told
        self._member.offered.discard(begun)
        self._inbound.beat()

    async def told(self, **event: str) -> tuple[str, tuple[int, ...]]:
        """See `tools.member.Hooks`."""
        self._inbound.ways.hooks = self._with_mail
        if event["session_id"]:
            self._session(event["session_id"])
        if event["agent_id"]:
            if event["event"] == "PreToolUse":
                self._mark(event["tool_use_id"])
            return hooks.silent(), ()
        self.went_on()
        if event["event"] == "UserPromptSubmit":
            self._inbound.receipts(event["prompt"])
        if self._with_mail and event["event"] in _TAKE_MAIL:
            return self._mail(event["event"])
        return hooks.silent(), ()

    def _mark(self, tool_use: str) -> None:
        self._sub_agents[tool_use] = None
        if len(self._sub_agents) > REMEMBERED:
            self._sub_agents.popitem(last=False)

    def _mail(self, event: str) -> tuple[str, tuple[int, ...]]:
        items = self._member.pending()
        if not items:
            return hooks.silent(), ()
        limit = hooks.CONTEXT
        while True:  # what JSON escapes takes more room than it has characters
            text, ids = envelope.batch(items, mark="", limit=limit)
            if hooks.fits(event, text) or limit <= _LEAST:
                break
            limit -= _LEAST
        answer = hooks.context(event, text)
        if not ids:  # a preview is shown once; the whole is for check_messages
            self._previews[answer] = items[0][0]["id"]
        return answer, ids


_TAKE_MAIL = ("UserPromptSubmit", "PostToolBatch")
_LEAST = 1_000
"""Characters that an answer has at least."""
