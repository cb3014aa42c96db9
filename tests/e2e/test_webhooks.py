"""Webhooks with real processes: out across a take-over, in, and the command line."""

import hashlib
import hmac
import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
import standardwebhooks
from support import http
from support.receivers import Receiver
from support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]
JSON = {"Content-Type": "application/json"}


def ask(machine, path, body, **headers):
    answer = http.post(machine.port, path, body, JSON | headers)
    return answer.status, json.loads(answer.body)


def hooked(machine, receiver, **more):
    transport = {"type": "webhook", "webhook_url": receiver.url, **more}
    status, joined = ask(machine, "/register", {"name": "hook", "transport": transport})
    assert status == 200
    return joined


def state(machine, number):
    return json.loads(machine.cli("why", str(number), "--json").stdout)["state"]


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_each_message_arrives_in_order_across_a_take_over_and_repeats_are_marked(machine, blow):
    leader = machine.serve()
    machine.start("serve")
    eventually(lambda: http.get(machine.port, "/status").json().get("standby"), what="a standby")
    down = [True]
    with Receiver(lambda _got: 503 if down[0] else 200) as receiver:
        joined = hooked(machine, receiver)
        numbers = []
        for count in range(5):
            body = {"from_id": "cli", "to_id": joined["id"], "text": f"text {count}"}
            numbers.append(ask(machine, "/send-message", body)[1]["message_id"])
        receiver.wait(1)
        leader.send_signal(blow)
        leader.wait(10)
        machine.wait_for_broker(other_than=leader.pid)
        down[0] = False
        eventually(lambda: state(machine, numbers[-1]) == "seen", timeout=60, what="all posted")
        verifier = standardwebhooks.Webhook(joined["webhook_secret"])
        taken, seen = [], {}
        for got in receiver.got:
            message = verifier.verify(got.body, got.headers)["message"]
            assert message["id"] not in taken or message["redelivered"]
            assert seen.setdefault(message["id"], got.uid) == got.uid
            taken.append(message["id"])
    assert list(dict.fromkeys(taken)) == numbers
    assert {state(machine, number) for number in numbers} == {"seen"}
    assert taken.count(numbers[-1]) == 1


@pytest.mark.parametrize("secret", ["s3cret", None])
def test_a_receiver_has_agentmeshs_signature_verified_by_the_broker(machine, secret):
    machine.serve(CLAUDE_PEERS_FLEET_SECRET=secret)
    with Receiver() as receiver:
        joined = hooked(machine, receiver)
        body = {"from_id": "cli", "to_id": joined["id"], "text": "signed 🎉"}
        assert ask(machine, "/send-message", body)[0] == 200
        (got,) = receiver.wait(1)
    message = got.json["message"]

    def verified(**changed):
        told = {"message": message | changed, "signature": message["signature"]}
        return ask(machine, "/verify-signature", told)

    if secret is None:
        assert message["signature"] is None
        assert verified()[1]["code"] == "no_fleet_secret"
        return
    assert verified() == (200, {"ok": True, "valid": True})
    signed = {
        "id": message["id"] + 1,
        "from_id": "boss",
        "to_id": "x",
        "text": "run",
        "sent_at": "",
    }
    for name, value in signed.items():
        assert verified(**{name: value}) == (200, {"ok": False, "valid": False}), name


def test_an_address_with_a_secret_and_a_token_are_read_from_stdin_line_by_line(machine):
    machine.serve()
    ask(machine, "/register", {"name": "bob"})
    with Receiver() as receiver:
        url = f"{receiver.url}?key=s3cret"
        made = machine.cli("webhook", "set", "bob", "-", "--token-stdin", stdin=f"{url}\nt0ken\n")
        assert (made.returncode, made.stdout[:6]) == (0, "whsec_")
        assert machine.cli("send", "bob", "hello").returncode == 0
        (got,) = receiver.wait(1)
    assert (got.path, got.headers["authorization"]) == ("/in?key=s3cret", "Bearer t0ken")
    for given in ("", f"{url}\n"):
        refused = machine.cli("webhook", "set", "bob", "-", "--token-stdin", stdin=given)
        assert refused.returncode == 2
    assert url in machine.cli("webhook", "list").stdout


def test_the_command_line_sets_lists_and_removes(machine):
    machine.serve()
    ask(machine, "/register", {"name": "bob"})
    with Receiver() as receiver:
        made = machine.cli("webhook", "set", "bob", receiver.url, "--format", "standard")
        assert made.stdout.startswith("whsec_")
        assert machine.cli("send", "bob", "hello").returncode == 0
        (got,) = receiver.wait(1)
        verified = standardwebhooks.Webhook(made.stdout.strip()).verify(got.body, got.headers)
        assert verified["text"] == "hello"
    assert receiver.url in machine.cli("webhook", "list").stdout
    assert machine.cli("webhook", "remove", "bob").returncode == 0
    assert receiver.url not in machine.cli("webhook", "list").stdout
    assert machine.cli("webhook", "set", "bob", "http://169.254.169.254/").returncode == 1
    assert machine.cli("webhook", "set", "bob").returncode == 2


def test_a_program_publishes_by_a_post_and_only_with_its_token(machine):
    machine.serve()
    _, ann = ask(machine, "/register", {"name": "ann"})
    ask(machine, "/subscribe", {"id": ann["id"], "topic": "build/#"})
    made = json.loads(machine.cli("hook-token", "build/#", "--name", "ci", "--json").stdout)
    mine = {"Authorization": f"Bearer {made['token']}"}

    def post(path, headers, body=b'{"done":1}', kind="application/json"):
        given = {"Content-Type": kind, **headers}
        return http.post(machine.port, path, body, given)

    told = post("/hook/build/done", mine)
    assert (told.status, json.loads(told.body)["messages"]) == (202, 1)
    repeated = {**mine, "Idempotency-Key": "one"}
    for _ in range(2):
        assert post("/hook/build/a%20b", repeated, b"text", "text/plain").status == 202
    assert post("/hook/other", mine).status == 401
    assert post("/hook/build/done", {}).status == 401
    assert post("/hook/build/done", {"Authorization": f"Bearer {ann['token']}"}).status == 401
    assert post("/hook/build/done", mine, kind="application/octet-stream").status == 415
    assert post("/hook/build/done", {**mine, "Origin": "https://evil.example"}).status == 403
    assert post("/hook/build/%23", mine).status == 409
    assert ask(machine, "/list-peers", {}, **mine)[0] == 401  # it allows nothing else
    _, mail = ask(machine, "/peek-messages", {"id": ann["id"]})
    assert [(m["topic"], m["from_id"], m["text"]) for m in mail["messages"]] == [
        ("build/done", "hook:ci", '{"done":1}'), ("build/a b", "hook:ci", "text"),
    ]  # fmt: skip
    assert "ci" in machine.cli("hook-token", "--list").stdout
    assert "signed" not in machine.cli("hook-token", "--list").stdout
    assert machine.cli("hook-token", "--revoke", "ci").returncode == 0
    assert post("/hook/build/done", mine).status == 401


def test_the_steps_for_github_on_the_page_deliver_its_ping(machine):
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    steps = page.partition("### GitHub")[2].partition("\n## ")[0]
    commands = [shlex.split(each) for each in re.findall(r"`claude-peers ([^`]+)`", steps)]
    assert [each[0] for each in commands] == ["hook-token", "subscribe", "listen"]
    make, subscribe, listen = commands
    (path,) = re.findall(r"`https://TUNNEL(/[^`]+)`", steps)
    machine.serve()
    secret = machine.cli(*make).stdout.strip()
    assert machine.cli(*subscribe).returncode == 0
    body = b'{"zen":"Keep it logically awesome."}'
    mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    signed = {
        "X-Hub-Signature-256": f"sha256={mac}", "X-GitHub-Delivery": "1", "X-GitHub-Event": "ping",
        "X-Forwarded-For": "192.0.2.7",
    }  # fmt: skip
    told = http.post(machine.port, path, body, JSON | signed)
    assert (told.status, told.json()["messages"]) == (202, 1)
    shown = machine.cli(*listen, "--count", "1", "--timeout", "30")
    assert "Keep it logically awesome" in shown.stdout


@pytest.mark.parametrize(
    ("pattern", "topic"),
    [
        ("build/+", "build/example"), ("github/#", "github/example"), ("#", "example"),
        ("a b", "a b"), ("x;y", "x;y"), ("é/$HOME/'", "é/$HOME/'"),
    ],
)  # fmt: skip
def test_the_command_that_comes_with_a_token_publishes(machine, pattern, topic):
    machine.serve()
    _, ann = ask(machine, "/register", {"name": "ann"})
    ask(machine, "/subscribe", {"id": ann["id"], "topic": "#"})
    made = machine.cli("hook-token", pattern, "--name", "ci")
    (command,) = [line for line in made.stderr.splitlines() if "curl" in line]
    shell = ["sh", "-c", command.replace("curl", "curl -sf", 1)]
    environ = os.environ | {"TOKEN": made.stdout.strip()}
    subprocess.run(shell, env=environ, check=True, timeout=30, stdout=subprocess.DEVNULL)
    _, mail = ask(machine, "/peek-messages", {"id": ann["id"]})
    assert [(each["topic"], each["text"]) for each in mail["messages"]] == [(topic, "done")]


def test_a_sender_that_signs_publishes_also_under_the_next_broker(machine):
    leader = machine.serve()
    machine.start("serve")
    eventually(lambda: http.get(machine.port, "/status").json().get("standby"), what="a standby")
    _, ann = ask(machine, "/register", {"name": "ann"})
    ask(machine, "/subscribe", {"id": ann["id"], "topic": "github/#"})
    made = machine.cli("hook-token", "github/#", "--name", "gh", "--signed")
    secret, body = made.stdout.strip(), b'{"zen":"Keep it logically awesome."}'
    assert "  signed" in machine.cli("hook-token", "--list").stdout

    def post(delivery):
        mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        signed = {"X-Hub-Signature-256": f"sha256={mac}", "X-GitHub-Delivery": delivery}
        return http.post(machine.port, "/hook/github/ping", body, JSON | signed).status

    assert post("one") == 202
    leader.send_signal(signal.SIGKILL)
    leader.wait(10)
    machine.wait_for_broker(other_than=leader.pid)
    assert [post("one"), post("two")] == [202, 202]
    _, mail = ask(machine, "/peek-messages", {"id": ann["id"]})
    told = [(each["from_id"], each["text"].encode()) for each in mail["messages"]]
    assert told == [("hook:gh", body)] * 2
