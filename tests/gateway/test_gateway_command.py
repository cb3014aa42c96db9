"""The routes of agentmesh's OpenClaw gateway, by the command that serves them."""

import contextlib
import json
import socket
import threading

import pytest
from support import http
from support.clients import LINUX, NOBODY, ROOT, Client
from support.machine import free_port
from support.receivers import Receiver
from support.waiting import eventually

from claude_peers.gateway import blocking
from claude_peers.gateway.openclaw import Told

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]
JSON = {"Content-Type": "application/json"}


class Gateway:
    """The command on a scratch machine."""

    def __init__(self, machine, port="0", **environ) -> None:
        self.machine = machine
        self.start(port, **environ)

    def start(self, port="0", **environ) -> None:
        """Start it on a port; None lets it choose."""
        given = ("--port", port) if port else ()
        self.process = self.machine.start("gateway", *given, "--json", **environ)
        log = self.machine.root / f"process{len(self.machine.processes) - 1}.log"
        told = eventually(lambda: log.read_text().strip(), what="a port")
        self.port = json.loads(told.splitlines()[-1])["port"]

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(10) == 0

    def post(self, path, body, token=None):
        headers = JSON | ({"Authorization": f"Bearer {token}"} if token else {})
        answer = http.post(self.port, path, body, headers)
        return answer.status, answer.json()

    def get(self, path, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = http.get(self.port, path, headers)
        return answer.status, answer.json()

    def join(self, name, **more):
        status, joined = self.post("/register", {"agent_name": name, **more})
        assert (status, joined["ok"]) == (200, True)
        return {"agent_id": joined["agent_id"], "token": joined["token"]}, joined


@pytest.fixture
def gateway(machine):
    machine.serve()
    return Gateway(machine)


def texts(gateway, me):
    status, told = gateway.get(f"/messages/{me['agent_id']}", me["token"])
    assert status == 200
    return [message["text"] for message in told["messages"]]


@pytest.mark.bug("B4-22")
def test_bug_b4_22_what_is_sent_or_comes_in_arrives_in_either_shape(gateway):
    (ann, _), (bob, _) = gateway.join("ann"), gateway.join("bob")
    assert gateway.post("/send", {**ann, "to_id": bob["agent_id"], "text": "hi"})[0] == 200
    message = {"to_id": bob["agent_id"], "text": "nested"}
    nested = {"type": "agentmesh.message", "message": message}
    assert gateway.post("/incoming", nested, bob["token"])[0] == 200
    flat = {**message, "text": "flat", "from_id": "zed", "topic": "in/x", "qos": 0}
    assert gateway.post("/incoming", flat, bob["token"])[0] == 200
    assert texts(gateway, bob) == ["hi", "nested", "flat"]
    eventually(lambda: texts(gateway, bob) == [], what="cleared")
    assert gateway.post("/incoming", nested, ann["token"])[0] == 401
    assert gateway.post("/incoming", nested)[0] == 401


@pytest.mark.threat("T14")
def test_what_comes_in_is_from_whom_it_says_and_not_verified(gateway):
    (ann, _), (bob, _) = gateway.join("ann"), gateway.join("bob")
    message = {"to_id": bob["agent_id"], "from_id": "zed", "topic": "in/x", "text": "t", "qos": 2}
    told = {"type": "agentmesh.message", "message": message}
    assert gateway.post("/incoming", told, bob["token"])[0] == 200
    unnamed = {"to_id": bob["agent_id"], "text": "t"}
    assert gateway.post("/incoming", unnamed, bob["token"])[0] == 200
    (got, other) = gateway.get(f"/messages/{bob['agent_id']}", bob["token"])[1]["messages"]
    assert {name: got[name] for name in ("from_id", "topic", "verified", "qos")} == {
        "from_id": "zed", "topic": "in/x", "verified": False, "qos": 2,
    }  # fmt: skip
    assert (other["from_id"], other["topic"], other["verified"]) == ("incoming", None, False)
    wrong = {"message": message | {"topic": "in/+"}}
    refused = gateway.post("/incoming", wrong, bob["token"])[1]
    assert (refused["ok"], refused["code"]) == (False, "not_possible")
    forged = {"message": message | {"from_id": ann["agent_id"]}}
    refused = gateway.post("/incoming", forged, bob["token"])[1]
    assert (refused["ok"], texts(gateway, bob)) == (False, [])
    gateway.post("/incoming", {**unnamed, "from_id": bob["agent_id"]}, bob["token"])
    told = gateway.get(f"/messages/{bob['agent_id']}", bob["token"])[1]["messages"]
    assert not any(each["verified"] for each in told)


@pytest.mark.bug("B4-23")
def test_bug_b4_23_mail_needs_its_token_and_survives_gateway_and_broker(gateway):
    (ann, _), (bob, _) = gateway.join("ann"), gateway.join("bob")
    gateway.post("/send", {**ann, "to_id": bob["agent_id"], "text": "kept"})
    for token in (None, ann["token"], "0" * 64):
        assert gateway.get(f"/messages/{bob['agent_id']}", token)[0] == 401
    gateway.end()
    leader = gateway.machine.wait_for_broker()
    (node,) = [each for each in gateway.machine.processes if each.pid == leader]
    node.kill()
    node.wait(10)
    gateway.machine.serve()
    gateway.start()
    assert texts(gateway, bob) == ["kept"]
    gateway.end()


def test_topics_agents_and_goodbyes_want_the_token_too(gateway):
    (ann, _), (bob, _) = gateway.join("ann", capabilities=["x"]), gateway.join("bob")
    assert gateway.post("/subscribe", {**bob, "topic": "t"}) == (200, {"ok": True, "topic": "t"})
    sent = gateway.post("/broadcast", {**ann, "topic": "t", "text": "all"})[1]
    assert sent["delivered_to"] == [bob["agent_id"]]
    assert gateway.post("/unsubscribe", {**bob, "topic": "t"}) == (200, {"ok": True, "topic": "t"})
    listed = gateway.get("/agents", ann["token"])[1]["agents"]
    assert {each["name"] for each in listed} == {"ann", "bob"}
    assert gateway.get("/agents")[0] == 401
    for path in ("/send", "/broadcast", "/subscribe", "/unsubscribe", "/unregister"):
        body = {"agent_id": bob["agent_id"], "to_id": "x", "topic": "t", "text": "t"}
        assert gateway.post(path, body)[0] == 401
        assert gateway.post(path, {**body, "token": "0" * 64})[0] == 401
    assert gateway.post("/unregister", bob)[0] == 200
    status, health = gateway.get("/health")
    assert (status, health["status"], health["agents"]) == (200, "ok", 1)
    assert health["gateway"].startswith("claude-peers/")
    assert (health["broker"]["status"], health["broker"]["peers"]) == ("ok", 1)


def test_what_is_missing_or_unknown_is_said(gateway):
    ann, _ = gateway.join("ann")
    status, told = gateway.post("/send", ann)
    assert (status, told["ok"], told["error"]) == (400, False, "Missing to_id")
    assert gateway.post("/register", {})[1]["error"] == "Missing agent_name"
    assert gateway.post("/nowhere", {})[0] == gateway.get("/nowhere")[0] == 404
    assert http.post(gateway.port, "/send", "{", JSON).status == 400
    assert http.post(gateway.port, "/register", {}, {**JSON, "Origin": "https://e"}).status == 403
    assert http.get(gateway.port, "/health", {"Host": "evil.example"}).status == 421
    assert gateway.machine.run("gateway", "--port", str(gateway.port)).returncode == 2


def test_the_askers_own_mistakes_have_the_brokers_status(gateway):
    ann, _ = gateway.join("ann")
    for path, body, status in (
        ("/subscribe", {**ann, "topic": "#/t"}, 409),
        ("/register", {"agent_name": "x", "capabilities": "c"}, 400),
        ("/register", {"agent_name": "x", "webhook_url": "http://10.0.0.1/"}, 403),
        ("/send", {**ann, "to_id": "nobody00", "text": "t"}, 200),
        ("/broadcast", {**ann, "topic": "t/+", "text": "t"}, 409),
    ):
        told = gateway.post(path, body)
        assert (told[0], told[1]["ok"]) == (status, False), path
        assert told[1]["remedy"]


def test_without_a_broker_it_is_degraded_and_cannot_ask(gateway):
    ann, _ = gateway.join("ann")
    broker = gateway.machine.processes[0]
    broker.kill()
    broker.wait(10)
    status, health = gateway.get("/health")
    assert (status, health["status"], health["broker"]) == (503, "degraded", "unreachable")
    assert health["gateway"].startswith("claude-peers/")
    status, told = gateway.post("/send", {**ann, "to_id": "x", "text": "t"})
    assert (status, told["ok"]) == (502, False)


def test_the_originals_variables_say_port_fleet_device_and_webhook(machine):
    machine.serve()
    port = free_port()
    with Receiver() as receiver:
        gateway = Gateway(
            machine, None, OPENCLAW_GATEWAY_PORT=str(port), AGENTMESH_FLEET_ID="gold",
            OPENCLAW_GATEWAY_WEBHOOK_URL=receiver.url, AGENTMESH_DEVICE_ID="edge",
        )  # fmt: skip
        assert gateway.port == port
        ann, joined = gateway.join("ann")
        assert joined["webhook_secret"]
        bob, _ = gateway.join("bob", fleet_id="silver", device_id="rim")
        listed = gateway.get("/agents", ann["token"])[1]["agents"]
        assert {each["name"]: (each["fleet_id"], each["device_id"]) for each in listed} == {
            "ann": ("gold", "edge"), "bob": ("silver", "rim"),
        }  # fmt: skip
        assert gateway.post("/send", {**bob, "to_id": ann["agent_id"], "text": "hi"})[0] == 200
        (got,) = receiver.wait(1)
        assert got.json["message"]["text"] == "hi"
    gateway.end()
    own = f"http://localhost:{port}/incoming"
    gateway.start(str(port), CLAUDE_PEERS_GATEWAY_WEBHOOK_URL=own)
    cid, joined = gateway.join("cid")
    assert "webhook_secret" not in joined
    gateway.post("/send", {**cid, "to_id": cid["agent_id"], "text": "waits"})
    assert texts(gateway, cid) == ["waits"]


@LINUX
@ROOT
def test_another_user_registers_nobody_even_if_it_does_not_wait_for_the_answer(gateway):
    body = json.dumps({"agent_name": "evil"})
    head = f"POST /register HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with Client(gateway.port, NOBODY) as client:
        for _ in range(40):
            client.ask("hit and run", head + body)
        assert client.ask("/register", {"agent_name": "evil"})[0] == 401
    ann, _ = gateway.join("ann")
    listed = gateway.get("/agents", ann["token"])[1]["agents"]
    assert [each["name"] for each in listed] == ["ann"]


def test_who_trickles_a_request_is_cut_off_in_the_end(monkeypatch):
    monkeypatch.setattr(blocking, "WITHIN", 0.3)
    with blocking.LocalServer(0, lambda _head, _body: Told(200, {})) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with socket.create_connection(server.server_address, timeout=0.05) as client:
                sent = 0
                while True:  # one byte at a time: each comes well in time
                    client.sendall(b"G" if sent == 0 else b"E")
                    sent += 1
                    with contextlib.suppress(TimeoutError):
                        assert client.recv(1) == b""
                        break
                    assert sent < 1000
        except ConnectionError:
            pass  # cut off under the next byte
        finally:
            server.shutdown()
            thread.join()


def test_an_agent_with_an_address_is_posted_to_by_the_broker(gateway):
    with Receiver() as receiver:
        ann, joined = gateway.join("ann", webhook_url=receiver.url)
        assert joined["webhook_secret"].startswith("whsec_")
        gateway.post("/send", {**ann, "to_id": ann["agent_id"], "text": "to me"})
        (got,) = receiver.wait(1)
        assert got.json["message"]["to_id"] == ann["agent_id"]


def test_without_a_broker_it_says_so(machine):
    assert machine.run("gateway").returncode == 6
