"""Transports: from a send to the moment at which each kind of receiver has the text.

One peer sends over one HTTP connection; seven receivers of the same broker get one message each,
in turn, with pauses, so that none waits for another. All are written against sockets: what is
measured is the broker and the loopback, not a client library.
"""

from __future__ import annotations

import asyncio, base64, json, os, random, struct

from procs import now
from results import R, q
from rig import IMPLS, OPT, Inst, calm

TABLE = "transports: /send-message to the text at the receiver"
PAUSE = 0.01, 0.03
LATE = 5.0
"""Seconds after which a message counts as lost."""
PING, CLOSE, TEXT = 9, 8, 1
SHORT, WIDE = 126, 127


async def read_head(reader):
    """Return status and headers of an answer."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    return int(first.split()[1]), headers


class Http:
    """Requests one after the other over one connection."""

    def __init__(self, port, token=None):
        self.port, self.token, self.reader, self.writer = port, token, None, None

    async def head(self, method, path, body=b"", **more):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = {"Host": f"127.0.0.1:{self.port}", **more}
        if method == "POST":
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        if self.token:
            lines["Authorization"] = f"Bearer {self.token}"
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode() + body)
        return await read_head(self.reader)

    async def post(self, path, body, **more):
        status, headers = await self.head("POST", path, json.dumps(body).encode(), **more)
        told = await self.reader.readexactly(int(headers.get("content-length", 0)))
        if status not in (200, 202):
            raise RuntimeError(f"{path}: {status} {told[:200]!r}")
        return json.loads(told) if told else None


class Receiver:
    """A peer that is reached in one way; `got` has the moment of each text."""

    name = ""

    def __init__(self, inst):
        self.inst, self.got, self.news, self.id, self.token = inst, {}, asyncio.Event(), "", ""

    async def join(self, **more):
        me = {"name": self.name.lower().replace(" ", "-").replace("/", ""), "cwd": "/", **more}
        joined = await Http(self.inst.port).post("/register", me)
        self.id, self.token = joined["id"], joined["token"]

    def has(self, text):
        self.got.setdefault(text, now())
        self.news.set()

    async def start(self):
        await self.join()

    async def receive(self):
        """Note what comes, for ever."""


class Channel(Receiver):
    name = "channel of a session"

    async def start(self):
        session = self.inst.sessions[1]
        session.streams["transports"] = self
        self.id = await session.peer_id()

    def arrived(self, k, t):
        self.got.setdefault(k, t)
        self.news.set()


class WebSocket(Receiver):
    name = "WebSocket"

    async def receive(self):
        http = Http(self.inst.port)
        key = base64.b64encode(os.urandom(16)).decode()
        status, _ = await http.head(
            "GET",
            "/ws",
            Connection="Upgrade",
            Upgrade="websocket",
            **{"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key},
        )
        if status != 101:
            raise RuntimeError(f"/ws: {status}")
        self.say(http.writer, {"type": "CONNECT", "agent_id": self.id, "token": self.token})
        while True:
            kind, data = await self.frame(http.reader)
            if kind == CLOSE:
                raise RuntimeError(f"closed: {data!r}")
            told = json.loads(data) if kind == TEXT else {}
            if told.get("type") == "MESSAGE":
                message = told["message"]
                self.has(message["text"])
                self.say(http.writer, {"type": "ACK", "message_id": message["id"]})

    def say(self, writer, frame):
        data, mask = json.dumps(frame).encode(), os.urandom(4)
        size = len(data)
        head = bytes([0x81, 0x80 | size]) if size < SHORT else struct.pack("!BBH", 0x81, 0xFE, size)
        writer.write(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    async def frame(self, reader):
        first, size = await reader.readexactly(2)
        if size == SHORT:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
        elif size == WIDE:
            (size,) = struct.unpack("!Q", await reader.readexactly(8))
        return first & 0x0F, await reader.readexactly(size)


class Events(Receiver):
    name = "events (SSE)"

    async def receive(self):
        http, acks = Http(self.inst.port, self.token), Http(self.inst.port, self.token)
        status, headers = await http.head("GET", "/events", Accept="text/event-stream")
        if status != 200:
            raise RuntimeError(f"/events: {status}")
        while line := await http.reader.readline():
            if line.startswith(b"data:"):
                told = json.loads(line[5:])
                message = told.get("message", told)
                self.has(message["text"])
                ids = {"id": self.id, "message_ids": [message["id"]]}
                await acks.post("/ack-messages", ids)


class LongPoll(Receiver):
    name = "long poll"

    async def receive(self):
        http = Http(self.inst.port, self.token)
        asked = {"id": self.id, "ack_supported": True, "wait_s": 20}
        while True:
            for message in (await http.post("/poll-messages", asked))["messages"]:
                self.has(message["text"])
                ids = {"id": self.id, "message_ids": [message["id"]]}
                await http.post("/ack-messages", ids)


class Mcp(Receiver):
    name = "/mcp, wait_for_message"

    async def receive(self):
        http = Http(self.inst.port, self.token)
        call = {"name": "wait_for_message", "arguments": {"timeout": 20}}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
        accept = {"Accept": "application/json, text/event-stream"}
        while True:
            told = await http.post("/mcp", asked, **accept)
            for part in told["result"]["content"]:
                for word in part["text"].split():
                    if word.startswith("text-"):
                        self.has(word)


class Webhook(Receiver):
    name = "webhook"

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        hook = {"type": "webhook", "webhook_url": f"http://127.0.0.1:{port}/hook"}
        await self.join(transport=hook)

    async def serve(self, reader, writer):
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            except asyncio.IncompleteReadError:
                return writer.close()
            body = await reader.readexactly(int(head.split("content-length: ")[1].split()[0]))
            self.has(json.loads(body)["message"]["text"])
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")


RECEIVERS = (Channel, WebSocket, Events, LongPoll, Mcp, Webhook)


async def one(sender, me, receiver, number):
    """Send one message; return the milliseconds until it was there, None if it never was."""
    text = f"text-{number}"
    key = text if not isinstance(receiver, Channel) else number
    body = text if not isinstance(receiver, Channel) else f"pb transports {number} -"
    t = now()
    sent = sender.post("/send-message", {"from_id": me["id"], "to_id": receiver.id, "text": body})
    sent = asyncio.ensure_future(sent)
    while key not in receiver.got:
        receiver.news.clear()
        try:
            await asyncio.wait_for(receiver.news.wait(), LATE)
        except asyncio.TimeoutError:
            break
    await sent
    return 1000 * (receiver.got[key] - t) if key in receiver.got else None


async def measure(inst, count, pooled):
    """Send `count` messages to each receiver of one broker, in turn."""
    sender = Http(inst.port)
    me = await sender.post("/register", {"name": "sender", "cwd": "/"})
    sender.token = me["token"]
    receivers = [kind(inst) for kind in RECEIVERS]
    for each in receivers:
        await each.start()
    tasks = [asyncio.create_task(each.receive()) for each in receivers]
    try:
        for number in range(-3, count):  # the first three load what is loaded on first use
            for each in random.sample(receivers, len(receivers)):
                took = await one(sender, me, each, number + 1000)
                if number >= 0:
                    pooled.setdefault(each.name, []).append(took)
                await asyncio.sleep(random.uniform(*PAUSE))
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [each for each in ended if isinstance(each, Exception)]
    if failed:
        raise failed[0]


async def m_transports():
    """Latency of each transport side by side, p50 and p99, and what was lost."""
    for impl in IMPLS:
        if "transports" in impl.skip:
            continue
        pooled, inst = {}, Inst(impl)
        try:
            await inst.cluster(2)
            await inst.settle(1.5)
            await calm()
            await measure(inst, 50 if OPT.quick else 300, pooled)
        except Exception as e:
            R.note("transports", impl.name, f"failed: {e!r}")
        finally:
            await inst.stop()
        for name, took in pooled.items():
            there = [each for each in took if each is not None]
            for label, share in (("p50", 0.5), ("p99", 0.99)):
                R.add(TABLE, f"{name}: {label}", "ms", impl.name, q(there, share))
            R.add(TABLE, f"{name}: lost", "n", impl.name, len(took) - len(there))
