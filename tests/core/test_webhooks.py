"""Where may be posted to, what an answer means, when it is tried again."""

from ipaddress import ip_address

import pytest

from claude_peers.core.webhooks import (
    FIRST_DELAY,
    LONGEST_ASKED,
    LONGEST_DELAY,
    LONGEST_REFUSED,
    URL,
    HookTokenNotFoundError,
    Outcome,
    Rules,
    Target,
    WebhookRefusedError,
    check_address,
    check_target,
    outcome,
    pause,
    read_target,
)

RULES = Rules(own_port=7899, allowed=("nas.lan", "hooks.example.com:443", "10.0.0.5"))
MINE = (
    "http://127.0.0.1:8644/in",
    "http://localhost/",
    "https://[::1]:9/x?k=v",
    "http://127.9.9.9",
)
NO_URL = (
    "", "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1", "//127.0.0.1/", "http://",
    "http:///x", "http://127.0.0.1:0/", "http://127.0.0.1:99999/", "http://127.0.0.1:x/",
    "http://user:pass@127.0.0.1/", "http://@127.0.0.1/", "http://127.0.0.1/#f", "http://a b/",
    "http://127.0.0.1\\@evil/", "http://127.0.0.1/\n", "http://é/", "http://[::1/", "http://a..b/",
    "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://127.1/",
    "http://0177.0.0.1/", "http://a.0x1/", "http://127.0.0.1." + "a" * URL,
)  # fmt: skip
NEVER = (
    "http://169.254.169.254/", "http://0.0.0.0/", "http://224.0.0.1/", "http://255.255.255.255/",
    "http://[::]/", "http://[fe80::1]/", "http://[::ffff:127.0.0.1]:7899/", "http://[ff02::1]/",
    "http://[::ffff:169.254.169.254]/", "http://[64:ff9b::7f00:1]/", "http://[fd00:ec2::254]/",
)  # fmt: skip
ELSEWHERE = ("http://evil.example/", "http://10.0.0.6/", "http://8.8.8.8/", "http://[2001:db8::1]/")


def refused(url: str, rules: Rules = RULES, *, machine: str = "") -> str:
    with pytest.raises(WebhookRefusedError) as error:
        check_target(read_target(url), rules, machine=machine)
    assert error.value.remedy
    return error.value.fact


@pytest.mark.threat("T18")
@pytest.mark.parametrize("url", MINE)
def test_this_machine_may_be_named(url):
    check_target(read_target(url), RULES)


@pytest.mark.threat("T18")
@pytest.mark.parametrize("url", [*NO_URL, *NEVER, *ELSEWHERE])
def test_nothing_else_may(url):
    refused(url)


@pytest.mark.threat("T18")
@pytest.mark.parametrize("url", NEVER)
def test_what_is_never_posted_to_cannot_be_allowed(url):
    host = read_target(url).host
    assert "Nothing is posted" in refused(url, Rules(allowed=(host,)))


@pytest.mark.threat("T18")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.0.0.2"])
def test_the_broker_itself_is_not_posted_to_even_if_allowed(host):
    url = f"http://{host}:7899/send-message"
    rules = Rules(own_port=7899, allowed=("localhost", "127.0.0.1"))
    assert "the broker itself" in refused(url, rules)


@pytest.mark.threat("T18")
@pytest.mark.parametrize("url", MINE)
def test_a_peer_elsewhere_may_not_name_this_machine(url):
    assert "on another machine" in refused(url, machine="mac")


@pytest.mark.parametrize(
    "url", ["http://nas.lan:1/", "https://hooks.example.com/x", "http://10.0.0.5/"]
)
@pytest.mark.parametrize("machine", ["", "mac"])
def test_the_user_may_allow_a_host_or_one_port_of_it(url, machine):
    check_target(read_target(url), RULES, machine=machine)
    refused("https://hooks.example.com:444/")


@pytest.mark.threat("T18")
@pytest.mark.parametrize(
    ("host", "address", "passes"),
    [
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("localhost", "192.168.0.2", False),
        ("nas.lan", "192.168.0.2", True),
        ("nas.lan", "127.0.0.1", False),
        ("nas.lan", "169.254.169.254", False),
        ("nas.lan", "::ffff:127.0.0.1", False),
        ("10.0.0.5", "10.0.0.5", True),
    ],
)
def test_a_name_that_means_something_else_by_now_is_not_posted_to(host, address, passes):
    target = Target("http", host, 80, "/")
    if passes:
        check_address(target, ip_address(address), RULES)
    else:
        with pytest.raises(WebhookRefusedError):
            check_address(target, ip_address(address), RULES)


def test_an_address_is_read_once_and_for_all():
    assert read_target("HTTPS://Hooks.Example.com/a%20b?c=d") == Target(
        "https", "hooks.example.com", 443, "/a%20b?c=d"
    )
    assert read_target("http://[::1]:8/").authority == "[::1]:8"
    assert read_target("http://localhost").authority == "localhost"


@pytest.mark.parametrize(
    ("status", "means"),
    [
        (200, Outcome.DELIVERED), (202, Outcome.DELIVERED), (299, Outcome.DELIVERED),
        (301, Outcome.RETRY), (307, Outcome.RETRY), (400, Outcome.REFUSED), (413, Outcome.REFUSED),
        (401, Outcome.RETRY), (404, Outcome.RETRY), (410, Outcome.GONE), (429, Outcome.RETRY),
        (500, Outcome.RETRY), (503, Outcome.RETRY), (199, Outcome.RETRY),
    ],
)  # fmt: skip
def test_what_an_answer_means(status, means):
    assert outcome(status) is means


def test_pauses_double_up_to_a_limit_and_are_drawn_from_the_whole():
    whole = [pause(each, Outcome.RETRY, chance=1.0) for each in (1, 2, 3, 12, 13, 1000)]
    assert whole == [FIRST_DELAY, 2.0, 4.0, 2048.0, LONGEST_DELAY, LONGEST_DELAY]
    assert pause(3, Outcome.RETRY, chance=0.25) == 1.0
    assert pause(3, Outcome.RETRY, chance=0.0) == 0.0
    assert pause(20, Outcome.REFUSED, chance=1.0) == LONGEST_REFUSED


def test_a_receiver_may_ask_for_a_longer_pause_within_reason():
    assert pause(1, Outcome.RETRY, chance=0.0, asked=60.0) == 60.0
    assert pause(9, Outcome.RETRY, chance=1.0, asked=1.0) == 256.0
    assert pause(1, Outcome.RETRY, chance=0.0, asked=1e9) == LONGEST_ASKED


def test_a_hook_token_that_is_not_there_says_how_to_find_the_others():
    assert "--list" in HookTokenNotFoundError("ci").remedy
