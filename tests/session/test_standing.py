"""What a session tells its broker of itself, and what it tells when that changes."""

import json
import os
from pathlib import Path

import anyio
import pytest

from claude_peers import settings
from claude_peers.core.identity import key
from claude_peers.session.standing import Standing
from claude_peers.tools.member import Member

pytestmark = pytest.mark.anyio
CLAUDE = {"name": "claude-code", "version": "2.1.330"}
CODEX = {"name": "codex-mcp-client", "version": "0.1"}
HERE = os.getppid()
"""The test's parent stands for the agent: a record may name it."""


class Client:
    peer_id, name, secondary = "me000000", "", False

    def __init__(self) -> None:
        self.registered = anyio.Event()


class Scene:
    """A session that has not registered yet."""

    def __init__(self, home: Path, client: dict[str, str], **environ: str) -> None:
        self.home = home
        self.told: list[tuple[str, object]] = []
        given = {"CLAUDE_CONFIG_DIR": str(home), "CLAUDE_PEERS_DB": str(home / "x.db"), **environ}
        self.member = Member(client=Client(), cwd=str(home))  # type: ignore[arg-type]  # it answers alike
        self.standing = Standing(
            settings.load(given), self.member, client=lambda: client, report=self._report
        )

    def record(self, **fields: object) -> None:
        """Write the agent's record."""
        folder = self.home / "sessions"
        folder.mkdir(exist_ok=True)
        (folder / f"{HERE}.json").write_text(json.dumps({"pid": HERE, **fields}))

    def register(self) -> list[str]:
        """Register; return the keys it shows."""
        keys: list[str] = self.standing.registration()["keys"]
        self.member.client.registered.set()
        self.standing.joined()
        return keys

    def _report(self, operation: str, body: dict[str, object]) -> None:
        self.told.append((operation, body.get("keys") or (body.get("route"), body.get("activity"))))


@pytest.fixture
def scene(tmp_path):
    scenes = []

    def make(client=CLAUDE, **environ):
        scenes.append(Scene(tmp_path, client, **environ))
        return scenes[-1]

    yield make
    for each in scenes:
        for route in each.standing.ways.routes:
            route.close()


def resume(session_id):
    return key("resume", session_id)


# The session's id


async def test_the_record_tells_the_session_that_a_registration_names(scene):
    one = scene()
    one.record(sessionId="s-1")
    assert resume("s-1") in one.register()
    one.standing.session("s-1")
    one.standing.beat()
    assert [told for told in one.told if told[0] == "/add-keys"] == []


async def test_what_a_hook_tells_before_the_registration_wins_over_the_record(scene):
    one = scene()
    one.record(sessionId="startup")
    one.standing.session("resumed")
    assert one.told == []
    keys = one.register()
    assert resume("resumed") in keys
    assert resume("startup") not in keys
    assert one.told == []


async def test_what_a_hook_tells_while_the_registration_is_under_way_follows_it(scene):
    one = scene()
    one.record(sessionId="startup")
    assert resume("startup") in one.standing.registration()["keys"]
    one.standing.session("resumed")
    assert one.told == []
    one.member.client.registered.set()
    one.standing.joined()
    assert one.told == [("/add-keys", [resume("resumed")])]


async def test_a_hook_tells_of_another_session_once(scene):
    one = scene()
    one.record(sessionId="s-1")
    one.register()
    for session_id in ("s-1", "s-2", "s-2"):
        one.standing.session(session_id)
    assert one.told == [("/add-keys", [resume("s-2")])]


async def test_the_record_tells_of_another_session_with_the_next_beat(scene):
    one = scene()
    one.record(sessionId="s-1")
    one.register()
    one.record(sessionId="s-2 longer")
    one.standing.beat()
    one.standing.beat()
    assert one.told == [("/add-keys", [resume("s-2 longer")])]


async def test_the_next_broker_is_told_the_newest_session(scene):
    one = scene()
    one.record(sessionId="s-1")
    one.register()
    one.standing.session("s-2")
    assert resume("s-2") in one.register()


async def test_an_agent_that_is_not_recognised_has_no_session(scene):
    one = scene(CODEX, CLAUDE_CODE_SESSION_ID="outer")
    one.record(sessionId="outer")
    one.standing.session("s-1")
    keys = one.register()
    one.standing.session("s-2")
    assert [each.split(":")[0] for each in keys] == ["launch"]
    assert one.told == []


async def test_a_record_without_a_status_is_not_the_last_word(scene):
    one = scene()
    one.record(sessionId="startup")
    assert not one.standing.look()
    one.record(sessionId="resumed", status="idle")
    assert one.standing.look()
    assert resume("resumed") in one.register()


async def test_without_a_record_there_is_nothing_to_wait_for(scene):
    assert scene().standing.look()


# Routes


@pytest.mark.parametrize(
    ("push", "entrypoint", "routes"),
    [
        ("auto", "cli", ["rewake"]),
        ("rewake", "cli", ["rewake"]),
        ("auto", "sdk-cli", []),
        ("channel", "cli", []),
        ("hook", "cli", []),
        ("off", "cli", []),
        ("inbox", "cli", ["inbox"]),
        ("inbox", "sdk-cli", ["inbox"]),
    ],
)
async def test_routes_are_those_of_the_setting_and_the_entry_point(scene, push, entrypoint, routes):
    one = scene(CLAUDE_PEERS_PUSH=push)
    one.record(sessionId="s-1", entrypoint=entrypoint)
    one.register()
    one.standing.joined()
    assert [route.name for route in one.standing.ways.routes] == routes
    assert one.standing.ways.channel is (push == "channel")
    assert one.standing.ways.courtesy is (push == "auto")


async def test_an_entry_point_that_was_inherited_opens_no_route(scene):
    one = scene(CODEX, CLAUDE_CODE_ENTRYPOINT="cli")
    one.record(entrypoint="cli")
    one.register()
    assert one.standing.ways.routes == []


async def test_a_second_server_opens_no_route_until_it_is_the_first(scene):
    one = scene()
    one.record(entrypoint="cli")
    one.member.client.secondary = True
    one.register()
    assert one.standing.ways.routes == []
    one.member.client.secondary = False
    one.standing.joined()
    assert [route.name for route in one.standing.ways.routes] == ["rewake"]


async def test_a_pipe_that_cannot_be_made_costs_only_the_route(scene, tmp_path, caplog):
    (tmp_path / "x.d").write_text("in the way")
    one = scene()
    one.record(entrypoint="cli")
    one.register()
    assert one.standing.ways.routes == []
    assert "cannot be woken" in caplog.text


# What changes


async def test_route_and_activity_are_told_when_they_change(scene):
    one = scene()
    one.record(status="busy")
    one.register()
    one.standing.beat()
    assert one.told == []
    one.standing.ways.hooks = True
    one.standing.beat()
    one.record(status="idle", statusUpdatedAt=1)
    one.standing.beat()
    one.standing.beat()
    assert one.told == [("/set-route", ("hook", "busy")), ("/set-route", ("hook", "idle"))]
    assert one.member.route == "hook"


async def test_a_second_server_tells_no_route(scene):
    one = scene()
    one.record(status="busy")
    one.member.client.secondary = True
    one.register()
    one.standing.ways.hooks = True
    one.standing.beat()
    assert one.told == []


@pytest.mark.parametrize(
    ("given", "message"),
    [({}, '{"agent_name": "n", "status": "offline"}'), ({"AGENTMESH_LWT_MESSAGE": "gone"}, "gone")],
)
async def test_a_will_is_told_as_it_is_set(tmp_path: Path, given, message) -> None:
    told = {"AGENTMESH_LWT_TOPIC": "status/n", "CLAUDE_PEERS_NAME": "n", **given}
    body = Scene(tmp_path, CODEX, **told).standing.registration()
    assert body["lwt"] == {"topic": "status/n", "message": message}
    assert "lwt" not in Scene(tmp_path / "b", CODEX).standing.registration()


async def test_fleet_device_and_capabilities_are_told_as_they_are_set(tmp_path: Path) -> None:
    told = {"AGENTMESH_FLEET_ID": "f", "AGENTMESH_CAPABILITIES": "a, b"}
    scene = Scene(tmp_path, CODEX, **told)
    body = scene.standing.registration()
    assert (body["fleet_id"], body["capabilities"]) == ("f", ["a", "b"])
    assert "device_id" not in body
    assert (scene.member.fleet_id, scene.member.device_id) == ("f", "")
