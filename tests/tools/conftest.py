"""A broker's mailbox as one session's client shows it, without a broker."""

import asyncio
from collections.abc import Iterable
from typing import Any

import anyio
import pytest

from claude_peers.core.errors import NoBrokerError
from claude_peers.tools.member import Member


class FakeClient:
    """Answers like a broker with one mailbox.

    Attributes:
        queued, leased, seen: the mailbox, by state.
        asked: every request, in order.
        gate: while it is closed, polls wait for it.
        answers: what other requests are answered with.
    """

    def __init__(self) -> None:
        self.peer_id = "me000000"
        self.name = "me"
        self.registered = asyncio.Event()
        self.registered.set()
        self.queued: dict[int, dict[str, Any]] = {}
        self.leased: dict[int, dict[str, Any]] = {}
        self.seen: set[int] = set()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.changed = asyncio.Event()
        self.broken = self.secondary = False
        self.peers: list[dict[str, Any]] = []
        self.sent: dict[str, Any] = {"ok": True}
        self.answers: dict[str, Any] = {}

    def arrive(self, *texts: str, **more: Any) -> list[int]:
        """Let messages come; return their ids."""
        ids = []
        for text in texts:
            number = len(self.queued) + len(self.leased) + len(self.seen) + 1
            self.queued[number] = {
                "id": number, "uid": f"u{number}", "from_id": "abcd1234", "to_id": "me000000",
                "text": text, "sent_at": "2026-01-01T00:00:00.000Z", "verified": False, **more,
            }  # fmt: skip
            ids.append(number)
        return ids

    async def heard(self, operation: str, times: int = 1) -> None:
        """Wait until something was asked for so often."""
        with anyio.fail_after(5):
            while [path for path, _ in self.asked].count(operation) < times:
                self.changed.clear()
                await self.changed.wait()

    async def call(self, operation: str, body: dict[str, Any]) -> Any:
        self.asked.append((operation, body))
        self.changed.set()
        if self.broken:
            raise NoBrokerError("There is none", "Start one.")
        told = {"/list-peers": self.peers, "/send-message": self.sent, **self.answers}
        if operation in told:
            return told[operation]
        match operation:
            case "/poll-messages":
                page = self._lease(body["exclude"], body["limit"])
                await self.gate.wait()
                return {"messages": page}
            case "/peek-messages":
                return {"messages": [view for _, view in sorted(self.queued.items())]}
            case "/release-messages":
                self._move(body["message_ids"])
            case "/ack-messages":
                for number in body["message_ids"]:
                    self.leased.pop(number, None)
                    self.queued.pop(number, None)
                    self.seen.add(number)
        return {"ok": True}

    def expire(self, *ids: int) -> None:
        """Let messages go without the session's doing."""
        for number in ids:
            del self.queued[number]

    def _lease(self, exclude: Iterable[int], limit: int) -> list[dict[str, Any]]:
        page = [view for number, view in sorted(self.queued.items()) if number not in exclude]
        for view in page[:limit]:
            self.leased[view["id"]] = self.queued.pop(view["id"])
        return page[:limit]

    def _move(self, ids: Iterable[int]) -> None:
        for number in ids:
            if number in self.leased:
                self.queued[number] = self.leased.pop(number)


@pytest.fixture
async def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
async def member(client: FakeClient) -> Member:
    return Member(client=client, cwd="/p", git_root="/p", repo="/p/.git")  # type: ignore[arg-type]  # it answers alike
