"""Webhooks and hook tokens, inside a transaction; columns are named after the records' fields."""

import sqlite3
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, TypeVar

from claude_peers.core.models import PeerId
from claude_peers.core.webhooks import Format, HookToken, Webhook
from claude_peers.stores.sqlite.commits import Commits

_Result = TypeVar("_Result")


class SqliteWebhooks:
    """The part of the Store port that is about webhooks, over the store's `commits`."""

    commits: Commits

    async def webhooks(self) -> list[Webhook]:
        """See `broker.webhook_store.WebhookStore`."""
        found = await self._do(lambda db: _all(db, "webhook", Webhook, "peer_id"), writes=False)
        return [Webhook(**row | {"format": Format(row["format"])}) for row in found]

    async def save_webhook(self, webhook: Webhook) -> None:
        """See `broker.webhook_store.WebhookStore`."""
        await self._do(lambda db: _save(db, "webhook", webhook))

    async def drop_webhook(self, peer_id: PeerId) -> None:
        """See `broker.webhook_store.WebhookStore`."""
        await self._do(lambda db: _run(db, "DELETE FROM webhook WHERE peer_id = ?", [peer_id]))

    async def hook_tokens(self) -> list[HookToken]:
        """See `broker.webhook_store.WebhookStore`."""
        found = await self._do(lambda db: _all(db, "hook_token", HookToken, "name"), writes=False)
        return [HookToken(**row) for row in found]

    async def save_hook_token(self, token: HookToken) -> None:
        """See `broker.webhook_store.WebhookStore`."""
        await self._do(lambda db: _save(db, "hook_token", token))

    async def drop_hook_token(self, name: str) -> None:
        """See `broker.webhook_store.WebhookStore`."""
        await self._do(lambda db: _run(db, "DELETE FROM hook_token WHERE name = ?", [name]))

    async def _do(
        self, work: Callable[[sqlite3.Connection], _Result], *, writes: bool = True
    ) -> _Result:
        return await self.commits.submit(work, writes=writes)


def _all(db: sqlite3.Connection, table: str, record: Any, order: str) -> list[dict[str, Any]]:
    names = [each.name for each in fields(record)]
    found = db.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY {order}")
    return [dict(zip(names, row, strict=True)) for row in found]


def _save(db: sqlite3.Connection, table: str, record: Any) -> None:
    values = asdict(record)
    named = ", ".join(f":{name}" for name in values)
    _run(db, f"INSERT OR REPLACE INTO {table} ({', '.join(values)}) VALUES ({named})", values)


def _run(db: sqlite3.Connection, statement: str, values: Any) -> None:
    db.execute(statement, values)
