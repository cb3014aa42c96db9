"""Peers that are reached in different ways, each with all it was shown and a way to send.

Each runs on a thread of its own and goes on when the broker behind it is another one.
"""

import contextlib
import http.client
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import mcp.client.streamable_http as streamable
from e2e.sdk_conversation import call
from mcp import ClientSession
from support.http import post
from support.machine import Machine
from support.receivers import Receiver
from support.traffic import Offer
from support.websocket import Agent
from websockets.exceptions import WebSocketException

AGAIN = 0.05
"""Seconds between two attempts to reach a broker."""
PATIENCE = 30.0
"""Seconds in which one must be there."""
UNREACHABLE = (OSError, http.client.HTTPException)


class Party:
    """A peer that was registered over HTTP.

    Args:
        machine: whose broker it uses.
        name: its name.
        more: what it registers besides.

    Attributes:
        id, token: who it is.
        offers: what it was shown, in order.
        sent: how many messages of its own were accepted.
    """

    def __init__(self, machine: Machine, name: str, **more: Any) -> None:
        self.machine, self.name, self.port = machine, name, machine.port
        body = {"name": name, "cwd": str(machine.work), **more}
        joined = machine.post("/register", body)
        self.id, self.token = joined["id"], joined["token"]
        self.offers: list[Offer] = []
        self.sent = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name=name, daemon=True)

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def stop(self) -> None:
        """Receive no more."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive(), f"{self.name} hangs"

    def send(self, to: str, text: str) -> None:
        """Send once, whatever becomes of the broker meanwhile."""
        key = f"{self.name}-{to}-{text}"
        body = {"from_id": self.id, "to_id": to, "text": text, "dedupe_key": key}
        answer = self.ask("/send-message", body)
        assert answer["ok"], answer
        self.sent += 1

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """Return the answer of whatever broker there is."""
        end = time.monotonic() + PATIENCE
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        while True:
            try:
                told = post(self.port, path, body, headers, timeout=PATIENCE)
            except UNREACHABLE:
                assert time.monotonic() < end, "no broker came"
            else:
                if told.status != 503:
                    return told.json()
            time.sleep(AGAIN)

    def show(self, message: dict[str, Any]) -> None:
        """Take what came."""
        self.offers.append(Offer(message["text"], bool(message.get("redelivered"))))

    def receive(self) -> None:
        """Take what comes until the connection ends, or it is over."""
        raise NotImplementedError

    def _go_on(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(*UNREACHABLE, WebSocketException):
                self.receive()
            time.sleep(AGAIN)


class OverWebSocket(Party):
    """Reads a WebSocket, and acknowledges each message."""

    def receive(self) -> None:
        with Agent(self.port) as agent:
            agent.come_back(self.id, self.token)
            while not self._over.is_set():
                try:
                    told = json.loads(agent.socket.recv(timeout=1))
                except TimeoutError:
                    continue
                if told["type"] == "MESSAGE":
                    self.show(told["message"])
                    agent.acknowledge(told["message"]["id"])


class OverEvents(Party):
    """Reads Server-Sent Events; it acknowledges by where it goes on, or at the end."""

    last = ""

    def receive(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        headers = {"Authorization": f"Bearer {self.token}"}
        if self.last:
            headers["Last-Event-ID"] = self.last
        try:
            connection.request("GET", "/events", headers=headers)
            answer = connection.getresponse()
            assert answer.status in (200, 503), answer.status
            if answer.status == 200:
                self._read(answer)
        finally:
            connection.close()

    def stop(self) -> None:
        super().stop()
        if self.last:
            self.ask("/ack-messages", {"id": self.id, "message_ids": [int(self.last)]})

    def _read(self, answer: http.client.HTTPResponse) -> None:
        for line in lines(answer, self._over):
            if line.startswith("id: "):
                self.last = line[4:]
            if line.startswith("data: "):
                self.show(json.loads(line[6:]))


class OverCurl(Party):
    """Polls with curl, which waits for mail."""

    def receive(self) -> None:
        asked = {"id": self.id, "ack_supported": True, "wait_s": 1}
        messages = self._curl("/poll-messages", asked).get("messages", [])
        for message in messages:
            self.show(message)
        if messages:
            ids = [message["id"] for message in messages]
            self.ask("/ack-messages", {"id": self.id, "message_ids": ids})

    def _curl(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        curl = shutil.which("curl")
        assert curl is not None
        ran = subprocess.run(
            [curl, "-s", "-H", "Content-Type: application/json", "-H",
             f"Authorization: Bearer {self.token}", "-d", json.dumps(body),
             f"http://127.0.0.1:{self.port}{path}"],
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        if ran.returncode != 0:
            raise ConnectionError(ran.returncode)
        return dict(json.loads(ran.stdout))


class OverWebhook(Party):
    """Is posted to."""

    def __init__(self, machine: Machine, name: str, hook: Receiver) -> None:
        super().__init__(machine, name, transport={"type": "webhook", "webhook_url": hook.url})
        self.hook = hook

    def stop(self) -> None:
        """Take what was posted; what has an id that was there before was posted again."""
        seen: set[str] = set()
        for got in self.hook.got:
            self.offers.append(Offer(got.json["message"]["text"], got.uid in seen))
            seen.add(got.uid)

    def start(self) -> None:
        """Need nothing: the receiver runs."""


class OverMcp(Party):
    """Waits for mail with a tool of `/mcp`, by the official SDK; and sends by another."""

    def receive(self) -> None:
        with contextlib.suppress(Exception):  # whatever the SDK makes of a broker that ends
            anyio.run(self._wait)

    def send(self, to: str, text: str) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                told = anyio.run(
                    partial(self._use, "send_message", to_id=to, message=text, reply_to=None)
                )
            except Exception:  # noqa: BLE001 - the SDK raises groups of what it met
                assert time.monotonic() < end
                time.sleep(AGAIN)
            else:
                assert told.startswith("Message sent"), told
                self.sent += 1
                return

    async def _wait(self) -> None:
        text = await self._use("wait_for_message", timeout_s=1)
        self.offers += offers_of(text)

    async def _use(self, tool: str, **arguments: Any) -> str:
        given = {name: value for name, value in arguments.items() if value is not None}
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"http://127.0.0.1:{self.port}/mcp"
        async with (
            streamable.create_mcp_http_client(headers=headers) as client,
            streamable.streamable_http_client(url, http_client=client) as (reader, writer, *_),
            ClientSession(reader, writer) as session,
        ):
            await session.initialize()
            return str(await call(session, tool, **given))


def offers_of(text: str) -> list[Offer]:
    """Return the marked texts in what a tool returned."""
    again = "redelivered" in text
    return [Offer(word, again) for word in text.split() if word.startswith("mail-")]


def lines(answer: http.client.HTTPResponse, over: threading.Event) -> Iterator[str]:
    """Yield the lines of a stream until it ends, or it is over."""
    rest = b""
    while not over.is_set():
        try:
            data = answer.read1(65_536)
        except TimeoutError:
            return  # the next connection goes on where this one was
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        yield from (each.decode() for each in whole)
