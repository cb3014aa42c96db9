"""Where logs and caches belong: on Linux as platformdirs says, elsewhere by asking it."""

import os
import pwd
import sys

import platformdirs
import pytest

from claude_peers.core.errors import SettingsError
from claude_peers.host import paths

VARIABLES = ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="compares Linux's answers")


@on_linux
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"HOME": "/home/ann"},
        {"HOME": "/home/ann/"},
        {"HOME": "/"},
        {"HOME": ""},
        {"HOME": "relative"},
        {"HOME": "/home/ann", "XDG_STATE_HOME": "/var/s", "XDG_CACHE_HOME": "/var/c"},
        {"HOME": "/home/ann", "XDG_STATE_HOME": "/var/s/", "XDG_CACHE_HOME": "/var/c/"},
        {"HOME": "/home/ann", "XDG_STATE_HOME": "", "XDG_CACHE_HOME": ""},
        {"HOME": "/home/ann", "XDG_STATE_HOME": "s", "XDG_CACHE_HOME": "~/c"},
        {"HOME": "/home/\u00e9 \u00fc", "XDG_CACHE_HOME": "/a b"},
        {"XDG_STATE_HOME": "/", "XDG_CACHE_HOME": "/"},
    ],
    ids=str,
)
def test_the_folders_are_the_ones_platformdirs_names(monkeypatch, given):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    logs = platformdirs.user_log_dir("claude-peers", appauthor=False)
    cache = platformdirs.user_cache_dir("claude-peers", appauthor=False)

    assert paths.log_folder(given) == logs
    assert paths.cache_folder(given) == cache


def test_the_variables_given_count_and_not_the_processs(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")

    assert paths.cache_folder({"HOME": "/h"}, "linux") == "/h/.cache/claude-peers"
    assert paths.log_folder({"HOME": "/h"}, "linux") == "/h/.local/state/claude-peers/log"


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_platformdirs_is_asked(platform):
    asked = platformdirs.user_log_dir("claude-peers", appauthor=False)
    cache = platformdirs.user_cache_dir("claude-peers", appauthor=False)

    assert paths.log_folder({"HOME": "/h"}, platform) == asked
    assert paths.cache_folder({"HOME": "/h"}, platform) == cache


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)

    with pytest.raises(SettingsError, match="Set it to your home directory"):
        paths.log_folder({}, "linux")
    assert paths.log_folder({"XDG_STATE_HOME": "/s"}, "linux") == "/s/claude-peers/log"


def test_nothing_is_created(tmp_path):
    paths.log_folder({"HOME": str(tmp_path)}, "linux")
    paths.cache_folder({"HOME": str(tmp_path)}, "linux")

    assert os.listdir(tmp_path) == []
