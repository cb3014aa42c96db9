"""What `peers` lists, for people, for scripts and for programs."""

import pytest
from support import http
from support.letters import join


@pytest.fixture
def pair(machine):
    """Return two sessions that are registered, by name."""
    machine.serve()
    for name in ("alpha", "beta"):
        session = machine.session(CLAUDE_PEERS_NAME=name)
        session.list_prompts()
        machine.peer_id(session)
    return machine.sessions


def test_without_a_broker_it_says_so(cli):
    ran = cli("peers")
    assert (ran.code, ran.out) == (6, "Broker is not running.\n")
    assert "claude-peers serve" in ran.err


def test_without_a_broker_json_has_nothing_on_stdout(cli):
    ran = cli("peers", "--json")
    assert (ran.code, ran.out) == (6, "")
    assert ran.error["code"] == "no_broker"


def test_nobody_is_told_to_people_in_words_and_to_programs_as_an_empty_list(cli, machine):
    machine.serve()
    ran = cli("peers")
    assert (ran.code, ran.out) == (0, "No peers registered.\n")
    assert "Start an agent session" in ran.err
    ran = cli("peers", "--json")
    assert (ran.code, ran.out, ran.err) == (0, "[]\n", "")


def test_no_names_are_no_lines(cli, machine):
    machine.serve()
    assert cli("peers", "--names").out == ""


def test_peers_are_listed_with_name_and_summary(cli, machine, pair):
    pair[0].call("set_summary", summary="at the parser")
    ran = cli("peers")
    first = machine.peer_id(pair[0])
    assert (ran.code, ran.err) == (0, "")
    assert f"{first}  PID:{pair[0].pid}  {machine.folder('s0')}\n  Name: alpha\n" in ran.out
    assert "  Summary: at the parser\n" in ran.out
    assert ran.out.count("PID:") == 2


@pytest.mark.bug("U22")
def test_peers_are_listed_with_how_they_are_reached_and_whether_they_are_idle(cli, machine):
    machine.serve()
    for name, route, activity in (("alpha", "rewake", "idle"), ("beta", "", "")):
        peer_id = join(machine, name)
        machine.post("/set-route", {"id": peer_id, "route": route, "activity": activity})
    ran = cli("peers")
    assert ran.out.splitlines()[1:3] == ["  Name: alpha", "  Route: rewake, idle"]
    assert ran.out.count("Route") == 1
    assert cli("peers", "--json").value[0]["activity"] == "idle"


def test_who_is_away_is_counted_and_listed_on_request(cli, machine):
    machine.serve()
    cli("inbox", "--name", "bob")
    ran = cli("peers")
    assert ran.out == "No peers registered.\n"
    assert ran.err.endswith("\n1 more is away: claude-peers peers --all\n")
    cli("inbox", "--name", "carol")
    join(machine, "alpha")
    ran = cli("peers")
    assert ran.out.count("PID:") == 1
    assert ran.err == "2 more are away: claude-peers peers --all\n"
    ran = cli("peers", "--all")
    assert (ran.out.count("PID:"), ran.out.count("\n  Presence: away\n"), ran.err) == (3, 2, "")


def test_programs_get_who_is_away_only_on_request(cli, machine):
    machine.serve()
    cli("inbox", "--name", "bob")
    for words, names in (((), []), (("--all",), ["bob"])):
        ran = cli("peers", "--json", *words)
        assert ([peer["name"] for peer in ran.value], ran.err) == (names, "")
        ran = cli("peers", "--names", *words)
        assert (ran.out.split(), ran.err) == (names, "")
    assert cli("peers", "--json", "--all").value[0]["presence"] == "away"


def test_who_cannot_be_written_to_any_more_is_not_listed(cli, machine):
    machine.serve()
    machine.post("/unregister", {"id": join(machine, "alpha")})
    (gone,) = machine.post("/list-peers", {"gone": True})
    assert gone["presence"] == "departed"
    ran = cli("peers", "--all")
    assert (ran.out, ran.err.count("away")) == ("No peers registered.\n", 0)


def test_names_alone_are_for_scripts(cli, pair):
    assert sorted(cli("peers", "--names").out.splitlines()) == ["alpha", "beta"]


def test_json_is_the_list(cli, machine, pair):
    ran = cli("peers", "--json")
    assert {each["id"] for each in ran.value} == {machine.peer_id(each) for each in pair}


def test_a_peer_without_a_name_is_named_by_its_id(cli, upstream):
    assert cli("peers", "--names").out == "abcd1234\n"


def test_no_peer_can_forge_a_line(cli, machine):
    machine.serve()
    process = machine.bystander()
    machine.post(
        "/register",
        {"pid": process.pid, "cwd": "/x\nffff0000  PID:1  /y", "summary": "s\n  Name: q"},
    )
    ran = cli("peers")
    assert len(ran.out.splitlines()) == 3
    assert "\n  Name: q" not in ran.out


def test_what_the_list_is_narrowed_by_is_shown(cli, machine):
    machine.serve()
    told = {"agent_type": "custom", "fleet_id": "f", "capabilities": ["gpu", "web"]}
    device = "d" + "\n  Name: q"
    body = {"agent_name": "a", "device_id": device, **told}
    http.post(machine.port, "/register", body)
    shown = cli("agents").out
    (listed,) = cli("agents", "--json").value
    for line in ("Type: custom", "Capabilities: gpu, web", "Fleet: f", "Device: d"):
        assert f"\n  {line}" in shown
    assert "\n  Name: q" not in shown
    assert {name: listed[name] for name in told} == told
    http.post(machine.port, "/unregister", {"id": listed["id"]})
    http.post(machine.port, "/register", {"name": "plain"})
    shown = cli("agents").out
    assert "  Name: plain\n" in shown
    assert not any(label in shown for label in ("Type:", "Capabilities:", "Fleet:", "Device:"))


def test_agents_are_narrowed_to_what_is_wanted(cli, machine):
    machine.serve()
    told = {"agent_type": "custom", "fleet_id": "f", "capabilities": ["gpu", "web"]}
    for name, more in (("a", told), ("b", told | {"device_id": "d"}), ("c", {})):
        http.post(machine.port, "/register", {"agent_name": name, **more})
    for wanted, names in (
        ((), "a b c"),
        (("--fleet", "f"), "a b"),
        (("--fleet", "f", "--device", "d"), "b"),
        (("--type", "custom", "--capability", "gpu", "--capability", "web"), "a b"),
        (("--capability", "gpu", "--capability", "x"), ""),
        (("--online",), ""),
    ):
        assert cli("agents", "--names", *wanted).out.split() == names.split()
