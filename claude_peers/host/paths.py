"""Where logs and caches belong on this system.

On Linux the answer is worked out here, for platformdirs costs every process milliseconds and
memory; a test holds both to the same answer.
"""

import os
import sys
from collections.abc import Mapping

from claude_peers.core.errors import SettingsError

_NAME = "claude-peers"


def log_folder(environ: Mapping[str, str], platform: str = sys.platform) -> str:
    """Return the folder for logs; nothing is created.

    Raises:
        SettingsError: there is no home directory.
    """
    if platform == "linux":
        return f"{_base(environ, 'XDG_STATE_HOME', '.local/state')}/{_NAME}/log"
    import platformdirs

    return platformdirs.user_log_dir(_NAME, appauthor=False)


def cache_folder(environ: Mapping[str, str], platform: str = sys.platform) -> str:
    """Return the folder for what can be made again; nothing is created.

    Raises:
        SettingsError: there is no home directory.
    """
    if platform == "linux":
        return f"{_base(environ, 'XDG_CACHE_HOME', '.cache')}/{_NAME}"
    import platformdirs

    return platformdirs.user_cache_dir(_NAME, appauthor=False)


def _base(environ: Mapping[str, str], variable: str, default: str) -> str:
    """Return a base directory of the XDG specification, by which relative ones are ignored."""
    given = environ.get(variable, "")
    if given.startswith("/"):
        return given.rstrip("/")
    return f"{_home(environ).rstrip('/')}/{default}"


def _home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return home
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise SettingsError("HOME", home, "Set it to your home directory.") from None
