"""Why a user's database cannot be used, told with the variable that chose it and the way out."""

from claude_peers.core.errors import StoreError
from claude_peers.settings import Settings

_CHOSEN = ("CLAUDE_PEERS_DB", "AGENTMESH_DB")
_FOR_GOOD = ("not a database", "malformed", "unable to open", "readonly")
"""What SQLite says where waiting does not help."""
_SAID_ALREADY = "The database failed: "


class UnusableDatabaseError(StoreError):
    """The database cannot be used until the user has changed something."""

    code = "database_unusable"


def explained(error: StoreError, settings: Settings) -> StoreError:
    """Return an error of the database or its folder as one that names who chose them."""
    passes = error.retry_after is not None and not any(each in error.fact for each in _FOR_GOOD)
    kind = StoreError if passes else UnusableDatabaseError
    reason = error.fact.removeprefix(_SAID_ALREADY)
    fact = f"{_chosen(settings)} does not work: {reason}"
    return kind(fact, error.remedy, retry_after=error.retry_after)


def _chosen(settings: Settings) -> str:
    for name in _CHOSEN:
        if settings.environ.get(name):
            return f"{name}={settings.environ[name]!r}"
    return f"The database {settings.database_path}"
