"""Every variable is read, has its other names, and refuses what cannot be used."""

from dataclasses import FrozenInstanceError, fields

import pytest

from claude_peers.core.errors import SettingsError
from claude_peers.settings import Settings, load

ALL = {each.metadata["name"]: each for each in fields(Settings) if each.metadata}
GOOD = [
    ("CLAUDE_PEERS_PORT", "port", {"1": 1, "7900": 7900, "65535": 65535}),
    ("CLAUDE_PEERS_DB", "database", {"x.db": "x.db"}),
    (
        "CLAUDE_PEERS_BROKER_URL",
        "broker_url",
        {
            "http://127.0.0.1:7900": "http://127.0.0.1:7900",
            "http://localhost": "http://127.0.0.1:7899",
            "http://[::1]:80/": "http://127.0.0.1:80",
            "https://10.0.0.1:7900": "https://10.0.0.1:7900",
            "http://Broker.lan": "https://broker.lan:7899",
            "https://[fe80::1]": "https://[fe80::1]:7899",
        },
    ),
    (
        "CLAUDE_PEERS_BIND",
        "bind",
        {each: each for each in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "192.168.1.2")}
        | {"10.0.0.1, fd00::0:1": "10.0.0.1,fd00::1"},
    ),
    ("CLAUDE_PEERS_SHARE", "share", {"less": "less", "full": "full"}),
    ("CLAUDE_PEERS_NAME", "name", {"repo.main": "repo.main"}),
    ("CLAUDE_PEERS_SERVER_NAME", "server_name", {"peers": "peers"}),
    ("CLAUDE_PEERS_MCP", "face", {"own": "own", "sdk": "sdk"}),
    ("CLAUDE_PEERS_PUSH", "push", {each: each for each in ("auto", "channel", "off")}),
    ("CLAUDE_PEERS_SUMMARY", "summary", {each: each for each in ("auto", "git", "openai", "off")}),
    ("OPENAI_API_KEY", "openai_key", {"sk-1": "sk-1"}),
    ("OPENAI_BASE_URL", "openai_url", {"http://127.0.0.1:1/v1": "http://127.0.0.1:1/v1"}),
    ("OPENAI_MODEL", "openai_model", {"small": "small"}),
    ("CLAUDE_PEERS_RATE_LIMIT_RPM", "rate_limit", {"0": 0, "1000000": 1000000}),
    ("CLAUDE_PEERS_MAILBOX_LIMIT", "mailbox_limit", {"0": 0, "5": 5}),
    ("CLAUDE_PEERS_REQUIRE_TOKEN", "require_token", {"0": False, "1": True}),
    ("CLAUDE_PEERS_TRUST_LISTENER", "trust_listener", {"0": False, "1": True}),
    (
        "CLAUDE_PEERS_WEBHOOK_ALLOW",
        "webhook_allow",
        {"a.example": ("a.example",), "NAS.lan:8, 10.0.0.5,": ("nas.lan:8", "10.0.0.5")},
    ),
    ("CLAUDE_PEERS_FLEET_ID", "fleet_id", {"gold": "gold"}),
    ("CLAUDE_PEERS_DEVICE_ID", "device_id", {"edge-1": "edge-1"}),
    ("CLAUDE_PEERS_LWT_TOPIC", "lwt_topic", {"status/a": "status/a"}),
    ("CLAUDE_PEERS_LWT_MESSAGE", "lwt_message", {"gone": "gone"}),
    ("CLAUDE_PEERS_CAPABILITIES", "capabilities", {"a": ("a",), " a b , c,": ("a b", "c")}),
    ("CLAUDE_PEERS_FLEET_SECRET", "fleet_secret", {"s": "s"}),
    ("CLAUDE_PEERS_BROKER_ID", "broker_id", {"hub": "hub"}),
    ("CLAUDE_PEERS_ACK_DEADLINE_MS", "ack_deadline_ms", {"1": 1, "60000": 60000}),
    ("CLAUDE_PEERS_MAX_DELIVERIES", "max_deliveries", {"1": 1, "1000": 1000}),
    ("CLAUDE_PEERS_PEER_TTL_MS", "peer_ttl_ms", {"1000": 1000}),
    ("CLAUDE_PEERS_GATEWAY_PORT", "gateway_port", {"18791": 18791}),
    (
        "CLAUDE_PEERS_GATEWAY_WEBHOOK_URL",
        "gateway_webhook_url",
        {"http://127.0.0.1:8644/in?key=k": "http://127.0.0.1:8644/in?key=k"},
    ),
    ("CLAUDE_PEERS_DISCOVERY", "discovery", {"0": False, "1": True}),
    (
        "CLAUDE_PEERS_DISCOVERY_ADDRESS",
        "discovery_address",
        {each: each for each in ("10.0.0.255", "127.0.0.1:65535")},
    ),
]
ALSO = {
    "CLAUDE_PEERS_LWT_TOPIC": ("AGENTMESH_LWT_TOPIC",),
    "CLAUDE_PEERS_LWT_MESSAGE": ("AGENTMESH_LWT_MESSAGE",),
    "CLAUDE_PEERS_PORT": ("AGENTMESH_PORT",),
    "CLAUDE_PEERS_DB": ("AGENTMESH_DB",),
    "CLAUDE_PEERS_BIND": ("AGENTMESH_BIND",),
    "CLAUDE_PEERS_NAME": (
        "CLAUDE_PEER_NAME", "CLAUDE_PEERS_SESSION_NAME", "AGENTMESH_AGENT_NAME",
    ),
    **{
        f"CLAUDE_PEERS_{name}": (f"AGENTMESH_{name}",)
        for name in (
            "BROKER_URL", "FLEET_ID", "DEVICE_ID", "CAPABILITIES", "FLEET_SECRET", "BROKER_ID",
            "ACK_DEADLINE_MS", "PEER_TTL_MS", "DISCOVERY",
        )
    },
    "CLAUDE_PEERS_RATE_LIMIT_RPM": ("AGENTMESH_RATE_LIMIT_RPM",),
    "CLAUDE_PEERS_GATEWAY_PORT": ("OPENCLAW_GATEWAY_PORT",),
    "CLAUDE_PEERS_GATEWAY_WEBHOOK_URL": ("OPENCLAW_GATEWAY_WEBHOOK_URL",),
    "CLAUDE_PEERS_MAX_DELIVERIES": ("AGENTMESH_MAX_RETRIES",),
}  # fmt: skip
SAME = {"AGENTMESH_MAX_RETRIES": "0"}
"""What is given under another name that means something else by it, for the same value."""
BAD = {
    "CLAUDE_PEERS_PORT": (
        "Use a whole number from 1 to 65535",
        ["x", "0", "65536", "-1", "7899.0", "9" * 5000],
    ),
    "CLAUDE_PEERS_BROKER_URL": (
        "Use http://127.0.0.1:PORT",
        ["x", "127.0.0.1:7899", "https://127.0.0.1", "nats://127.0.0.1", "http://", "http://[",
         "http://127.0.0.1:x", "http://127.0.0.1:65536"],
    ),
    "CLAUDE_PEERS_BIND": (
        "Use addresses of this machine",
        ["::", "x", "127.0.0.1:7899", "10.0.0.1,", "224.0.0.1", "1.2.3", ","],
    ),
    "CLAUDE_PEERS_SHARE": ("Use one of less, full", ["all", "1"]),
    "CLAUDE_PEERS_NAME": (
        "Use up to 64 of a-z, 0-9, dot, dash and underscore",
        ["A", "a b", "a@b", "-a", "x" * 65, "é"],
    ),
    "CLAUDE_PEERS_MCP": ("Use one of own, sdk", ["SDK", "x", "own "]),
    "CLAUDE_PEERS_PUSH": (
        "Use one of auto, rewake, channel, hook, inbox, off",
        ["on", "AUTO", "1"],
    ),
    "CLAUDE_PEERS_SUMMARY": ("Use one of auto, git, openai, off", ["on", "claude"]),
    "CLAUDE_PEERS_RATE_LIMIT_RPM": ("Use a whole number from 0 to 1000000", ["-1", "x", "1000001"]),
    "CLAUDE_PEERS_MAILBOX_LIMIT": ("Use a whole number from 0 to 1000000", ["-1", "many", "1e3"]),
    "CLAUDE_PEERS_REQUIRE_TOKEN": ("Use 1 for yes or 0 for no", ["yes", "true", "2", "on"]),
    "CLAUDE_PEERS_WEBHOOK_ALLOW": ("separated by commas", ["http://a/", "*.example", "a b"]),
    "CLAUDE_PEERS_TRUST_LISTENER": ("Use 1 for yes or 0 for no", ["no", "false", " 1"]),
    "CLAUDE_PEERS_ACK_DEADLINE_MS": ("Use a whole number from 1 to 86400000", ["0", "86400001"]),
    "CLAUDE_PEERS_MAX_DELIVERIES": ("Use a whole number from 1 to 1000", ["0", "1001", "-1", "x"]),
    "CLAUDE_PEERS_PEER_TTL_MS": ("Use a whole number from 1000 to 86400000", ["0", "999", "x"]),
    "CLAUDE_PEERS_GATEWAY_PORT": ("Use a whole number from 1 to 65535", ["x", "0", "65536"]),
    "CLAUDE_PEERS_GATEWAY_WEBHOOK_URL": (
        "use http://127.0.0.1:PORT/PATH", ["x", "ftp://a/", "http://a:x/", "http://u:p@a/"],
    ),
    "CLAUDE_PEERS_DISCOVERY": ("Use 1 for yes or 0 for no", ["no", "2"]),
    "CLAUDE_PEERS_DISCOVERY_ADDRESS": (
        "Use an IPv4 address",
        ["x", "::1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:x", "10.0.0.1:1:2"],
    ),
}  # fmt: skip
ANYTHING = {
    "CLAUDE_PEERS_FLEET_ID",
    "CLAUDE_PEERS_DEVICE_ID",
    "CLAUDE_PEERS_CAPABILITIES",
    "CLAUDE_PEERS_FLEET_SECRET",
    "CLAUDE_PEERS_BROKER_ID",
    "CLAUDE_PEERS_DB",
    "CLAUDE_PEERS_SERVER_NAME",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_MODEL",
    "CLAUDE_PEERS_LWT_TOPIC",
    "CLAUDE_PEERS_LWT_MESSAGE",
}


@pytest.mark.parametrize(
    ("variable", "field", "given", "read"),
    [
        (variable, field, given, read)
        for variable, field, values in GOOD
        for given, read in values.items()
    ],
)
def test_a_variable_sets_its_field_and_no_other(variable, field, given, read):
    assert load({variable: given}) == Settings(**{field: read}, environ={variable: given})


def test_every_variable_is_in_these_tables():
    assert {variable for variable, _, _ in GOOD} == set(ALL)
    assert set(BAD) | ANYTHING == set(ALL)
    assert {name: each.metadata["also"] for name, each in ALL.items()} == {
        name: ALSO.get(name, ()) for name in ALL
    }


@pytest.mark.parametrize(
    ("variable", "other"), [(name, other) for name, others in ALSO.items() for other in others]
)
def test_a_variable_is_also_read_under_its_other_names(variable, other):
    field, given, read = next(
        (field, *next(iter(values.items()))) for name, field, values in GOOD if name == variable
    )
    assert getattr(load({other: SAME.get(other, given)}), field) == read


def test_a_variables_own_name_wins_over_its_other_names():
    settings = load({"CLAUDE_PEERS_PORT": "7900", "AGENTMESH_PORT": "7901"})
    assert settings.port == 7900


def test_other_names_win_in_their_order():
    settings = load({"CLAUDE_PEERS_SESSION_NAME": "second", "CLAUDE_PEER_NAME": "first"})
    assert settings.name == "first"


@pytest.mark.parametrize(
    ("variable", "given", "remedy"),
    [(name, given, remedy) for name, (remedy, values) in BAD.items() for given in values],
)
def test_a_value_that_cannot_be_used_is_refused_with_variable_value_and_remedy(
    variable, given, remedy
):
    with pytest.raises(SettingsError) as refusal:
        load({variable: given})
    assert refusal.value.variable == variable
    assert f"{variable}={given!r}" in refusal.value.fact
    assert remedy in refusal.value.remedy


def test_a_value_under_another_name_is_refused_under_that_name():
    with pytest.raises(SettingsError, match="AGENTMESH_PORT='x' cannot be used"):
        load({"AGENTMESH_PORT": "x"})


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("http://127.0.0.1:7900", None),
        ("https://10.0.0.1:7900", "10.0.0.1:7900"),
        ("https://[fe80::1]:1", "[fe80::1]:1"),
        (None, None),
    ],
)
def test_a_broker_on_another_machine_is_known_by_its_address(url, remote):
    assert Settings(broker_url=url).remote == remote


@pytest.mark.parametrize(
    ("bind", "addresses"),
    [
        ("127.0.0.1", ()),
        ("localhost", ()),
        ("0.0.0.0", ("0.0.0.0",)),
        ("127.0.0.1,10.0.0.1", ("10.0.0.1",)),
    ],
)
def test_only_addresses_that_others_reach_are_bound_for_them(bind, addresses):
    assert load({"CLAUDE_PEERS_BIND": bind}).bind_addresses == addresses


@pytest.mark.parametrize("variable", ALL)
def test_an_empty_value_counts_as_unset(variable):
    assert load({variable: ""}) == Settings(environ={variable: ""})


def test_an_empty_value_leaves_the_word_to_another_name():
    assert load({"CLAUDE_PEERS_PORT": "", "AGENTMESH_PORT": "7901"}).port == 7901


def test_without_variables_everything_has_its_default():
    assert load({}) == Settings()


@pytest.mark.parametrize("field", ALL.values(), ids=ALL)
def test_every_variable_has_a_line_for_the_readme(field):
    text = field.metadata["text"]
    assert text and text == text.strip() and not text.endswith(".") and "|" not in text


def test_the_environment_of_the_process_is_read_by_default(monkeypatch):
    monkeypatch.setenv("CLAUDE_PEERS_PORT", "7911")
    assert load().port == 7911
    assert load().environ["CLAUDE_PEERS_PORT"] == "7911"


def test_the_variables_given_are_kept_and_not_shown():
    settings = load({"OTHER": "private"})
    assert settings.environ == {"OTHER": "private"}
    assert "private" not in repr(settings)


def test_settings_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1


def test_the_database_lies_in_the_home_directory_and_its_state_beside_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    settings = load({})
    assert settings.database_path == str(tmp_path / ".claude-peers.db")
    assert settings.state_folder == str(tmp_path / ".claude-peers.d")


def test_a_relative_database_is_taken_from_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = load({"CLAUDE_PEERS_DB": "mail"})
    assert settings.database_path == str(tmp_path / "mail")
    assert settings.state_folder == str(tmp_path / "mail.d")


@pytest.mark.parametrize(
    ("environ", "port"),
    [
        ({}, 7899),
        ({"CLAUDE_PEERS_PORT": "7900"}, 7900),
        ({"CLAUDE_PEERS_PORT": "7900", "CLAUDE_PEERS_BROKER_URL": "http://localhost:81"}, 81),
    ],
)
def test_a_client_talks_to_the_brokers_port_or_that_of_its_url(environ, port):
    assert load(environ).broker_port == port


def test_agentmeshs_agent_name_may_be_any_text():
    assert load({"AGENTMESH_AGENT_NAME": "My Agent"}).name == "my-agent"
    assert load({"AGENTMESH_AGENT_NAME": "x", "CLAUDE_PEERS_NAME": "y"}).name == "y"


@pytest.mark.parametrize(("retries", "deliveries"), [("0", 1), ("3", 4), ("999", 1000)])
def test_agentmeshs_retries_come_after_the_first_hand_out(retries, deliveries):
    assert load({"AGENTMESH_MAX_RETRIES": retries}).max_deliveries == deliveries


@pytest.mark.parametrize("retries", ["-1", "1000", "x"])
def test_retries_that_cannot_be_are_refused_as_retries(retries):
    with pytest.raises(SettingsError, match="Use a whole number from 0 to 999"):
        load({"AGENTMESH_MAX_RETRIES": retries})


def test_the_broker_is_announced_behind_its_own_port_unless_another_is_given():
    assert load({}).discovery_target == ("255.255.255.255", 7900)
    assert load({"CLAUDE_PEERS_PORT": "5"}).discovery_target == ("255.255.255.255", 6)
    told = {"CLAUDE_PEERS_DISCOVERY_ADDRESS": "127.0.0.1:9"}
    assert load(told).discovery_target == ("127.0.0.1", 9)


def test_the_fleets_secret_is_not_shown():
    assert "s3cret" not in repr(load({"AGENTMESH_FLEET_SECRET": "s3cret"}))
