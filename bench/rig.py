"""The rig: scratch machines, sessions driven over stdio as a client would, numbered messages."""

from __future__ import annotations

import argparse, asyncio, json, os, random, re, shutil, signal, socket, subprocess, sys, tempfile

from procs import KNOWN, RUN, busy_s, descend, kill, now, pids_of, popen, port_owners, read, reap
from results import R

SCRATCH = tempfile.mkdtemp(prefix="peerbench-")
OPT = argparse.Namespace()
IMPLS: list["Impl"] = []
HERE = os.path.dirname(os.path.abspath(__file__))


NOISY = [0]


async def calm():
    """Other people's load wrecks a 2-core comparison: wait a little for a quiet machine before each turn."""
    end = now() + OPT.calm
    while OPT.calm:
        b = busy_s()
        await asyncio.sleep(0.15)
        if (busy_s() - b) / 0.15 < 0.35:
            return
        if now() > end:
            NOISY[0] += 1
            return


async def until(cond, timeout, step=0.01):
    end = now() + timeout
    while True:
        v = cond()
        if v:
            return v
        if now() > end:
            return None
        await asyncio.sleep(step)


class Impl:
    def __init__(self, d):
        self.d, self.name = d, d["name"]
        self.server, self.broker = d.get("server"), d.get("broker")
        self.autostart = d.get("autostart", self.broker is None)
        self.api, self.headers = d.get("api", ""), d.get("headers", {})
        self.tool = {"name": "send_message", "to": "to_id", "text": "message", **d.get("send", {})}
        self.skip = set(d.get("skip", []))

    def missing(self):
        """Variables of the environment that its command lines name and nobody has set."""
        words = " ".join([*(self.server or []), *(self.broker or [])])
        return [v for v in re.findall(r"\$\{?([A-Z][A-Z0-9_]*)", words) if v not in os.environ]


NEXT_PORT = [18200]


def free_port():
    while True:
        p = NEXT_PORT[0] = NEXT_PORT[0] + 4
        try:
            with socket.socket() as s:
                s.bind(("127.0.0.1", p))
            return p
        except OSError:
            continue


class Inst:
    """One scratch machine: its own HOME, database, port, sessions and (if any) broker process."""

    seq = 0

    def __init__(self, impl):
        Inst.seq += 1
        self.impl, self.tag = impl, f"PEERBENCH_INST={RUN}-{Inst.seq}."
        self.dir = os.path.join(SCRATCH, f"i{Inst.seq}")
        self.port, self.sessions, self.bp = free_port(), [], None
        os.makedirs(self.dir + "/home")
        self.repo = self.dir + "/repo"
        shutil.copytree(SCRATCH + "/repo", self.repo)
        self.vars = {
            "port": str(self.port),
            "home": self.dir + "/home",
            "db": self.dir + "/peers.db",
            "python": sys.executable,
            "bench": HERE,
            "root": os.path.dirname(HERE),
            "run": SCRATCH,
        }

    def exp(self, s):
        for k, v in self.vars.items():
            s = s.replace("{%s}" % k, v)
        return os.path.expandvars(s)

    def env(self):
        e = {k: os.environ[k] for k in ("PATH", "LANG") if k in os.environ}
        e.update({"HOME": self.dir + "/home", "TERM": "dumb"})
        e.update({k: self.exp(str(v)) for k, v in self.impl.d.get("env", {}).items()})
        e[self.tag.split("=")[0]] = self.tag.split("=")[1]
        return e

    def spawn_broker(self):
        self.bp = popen(
            [self.exp(a) for a in self.impl.broker],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=open(self.dir + "/broker.err", "ab"),
            cwd=self.repo,
            env=self.env(),
        )

    def listening(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 0.2).close()
            return True
        except OSError:
            return False

    async def up(self, standalone=False):
        """Bring a broker up: the stand-alone argv where there is one, else a first session."""
        if self.impl.broker and (standalone or not self.impl.autostart):
            self.spawn_broker()
        elif not self.sessions:
            await self.add()
        if not await until(self.listening, 15):
            raise RuntimeError(f"{self.impl.name}: no broker on the port after 15 s")
        return self

    async def add(self):
        s = Session(self, len(self.sessions))
        self.sessions.append(s)
        s.spawn()
        await s.init()
        return s

    async def cluster(self, n):
        if self.impl.broker and not self.impl.autostart:
            await self.up()
        await self.add()
        while len(self.sessions) < n:
            k = min(4, n - len(self.sessions))
            await asyncio.gather(*[self.add() for _ in range(k)])
        for s in self.sessions:
            await s.peer_id()
        return self

    async def post(self, path, body, timeout=3.0):
        raw = json.dumps(body).encode()
        hd = "".join(f"{k}: {v}\r\n" for k, v in self.impl.headers.items())

        async def go():
            r, w = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                w.write(
                    f"POST {self.impl.api}{path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{hd}Content-Type: "
                    f"application/json\r\nConnection: close\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
                    + raw
                )
                h = await r.readuntil(b"\r\n\r\n")
                m = re.search(rb"content-length: *(\d+)", h.lower())
                return json.loads(await (r.readexactly(int(m[1])) if m else r.read()))
            finally:
                w.close()

        return await asyncio.wait_for(go(), timeout)

    async def get(self, path, timeout=3.0):
        async def go():
            r, w = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                w.write(
                    f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
                )
                m = re.search(rb"content-length: *(\d+)", (await r.readuntil(b"\r\n\r\n")).lower())
                return json.loads(await (r.readexactly(int(m[1])) if m else r.read()))
            finally:
                w.close()

        return await asyncio.wait_for(go(), timeout)

    async def roles(self):
        """Sessions by role: the port's owner, the standby that GET /status names, all others."""
        own, by = self.owners(), {"leader": [], "standby": [], "follower": []}
        try:
            standby = (await self.get("/status")).get("standby")
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError):
            standby = None
        for s in self.sessions:
            if s.alive():
                family = descend(s.p.pid)
                by[
                    "leader" if family & own else "standby" if standby in family else "follower"
                ].append(s)
        return by

    async def settle(self, least=1.0, most=6.0):
        """Wait until the owner has named its standby, where there is such a thing, and a little."""
        await asyncio.sleep(least)
        if self.impl.d.get("standby"):
            end = now() + most
            while now() < end and not (await self.roles())["standby"]:
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)
        return self

    async def peers(self, timeout=3.0):
        r = await self.post(
            "/list-peers", {"scope": "machine", "cwd": "/", "git_root": None}, timeout
        )
        return r if isinstance(r, list) else r.get("peers", [])

    def pids(self):
        return pids_of(self.tag)

    def owners(self):
        return port_owners(self.port, self.pids())

    def req(self, path, body):
        raw = json.dumps(body).encode()
        hd = "".join(f"{k}: {v}\r\n" for k, v in self.impl.headers.items())
        return (
            f"POST {self.impl.api}{path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{hd}Content-Type: application/json"
            f"\r\nContent-Length: {len(raw)}\r\n\r\n"
        ).encode() + raw

    async def stop(self, keep=False):
        for s in self.sessions:
            s.close()
        for sig, wait in ((signal.SIGCONT, 0), (signal.SIGTERM, 2.5), (signal.SIGKILL, 2)):
            ps = self.pids()
            for p in ps:
                kill(p, sig)
            if wait and ps:
                await until(
                    lambda: (reap(), [p.poll() for p in list(KNOWN.values())], not self.pids())[2],
                    wait,
                    0.05,
                )
        self.sessions, self.bp = [], None
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)


class Session:
    def __init__(self, inst, idx):
        self.inst, self.idx, self.cwd = inst, idx, f"{inst.repo}/s{idx}"
        os.makedirs(self.cwd, exist_ok=True)
        self.wait, self.nid, self.rbuf, self.wbuf, self.eof, self.id = {}, 0, b"", b"", False, None
        self.streams = {}

    def spawn(self):
        i = self.inst
        self.t0 = now()
        self.p = popen(
            [i.exp(a) for a in i.impl.server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(f"{i.dir}/s{self.idx}.err", "ab"),
            cwd=self.cwd,
            env=i.env(),
        )
        self.fi, self.fo = self.p.stdin.fileno(), self.p.stdout.fileno()
        os.set_blocking(self.fi, False)
        os.set_blocking(self.fo, False)
        asyncio.get_running_loop().add_reader(self.fo, self._rd)

    def _rd(self):
        try:
            d = os.read(self.fo, 1 << 18)
        except BlockingIOError:
            return
        t = now()
        if not d:
            asyncio.get_running_loop().remove_reader(self.fo)
            self.eof = True
            for f in self.wait.values():
                if not f.done():
                    f.set_result((t, None))
            self.wait.clear()
            return
        *ls, self.rbuf = (self.rbuf + d).split(b"\n")
        for ln in ls:
            if ln.strip():
                self._line(t, ln)

    def _line(self, t, ln):
        try:
            m = json.loads(ln)
        except ValueError:
            return R.note("protocol", self.inst.impl.name, f"non-JSON line on stdout: {ln[:80]!r}")
        if "method" not in m:
            f = self.wait.pop(m.get("id"), None)
            if f and not f.done():
                f.set_result((t, m))
        elif m["method"] == "notifications/claude/channel":
            g = re.search(r"pb (\w+) (\d+) ", str(m["params"].get("content", "")))
            if g and g[1] in self.streams:
                self.streams[g[1]].arrived(int(g[2]), t)
        elif "id" in m:
            self.write(
                {
                    "jsonrpc": "2.0",
                    "id": m["id"],
                    **(
                        {"result": {}}
                        if m["method"] == "ping"
                        else {"error": {"code": -32601, "message": "no such method"}}
                    ),
                }
            )

    def write(self, *objs):
        self.wbuf += b"".join(json.dumps(o).encode() + b"\n" for o in objs)
        self._flush()

    def _flush(self):
        lp = asyncio.get_running_loop()
        while self.wbuf:
            try:
                self.wbuf = self.wbuf[os.write(self.fi, self.wbuf) :]
            except BlockingIOError:
                lp.add_writer(self.fi, self._flush)
                return
            except OSError:
                self.wbuf = b""
        lp.remove_writer(self.fi)

    def call(self, method, params):
        self.nid += 1
        f = self.wait[self.nid] = asyncio.get_running_loop().create_future()
        if self.eof:
            f.set_result((now(), None))
        return f, {"jsonrpc": "2.0", "id": self.nid, "method": method, "params": params}

    async def rpc(self, method, params, timeout=10):
        f, o = self.call(method, params)
        self.write(o)
        return await asyncio.wait_for(f, timeout)

    async def init(self, timeout=20):
        t, m = await self.rpc(
            "initialize",
            {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "peerbench", "version": "1"},
            },
            timeout,
        )
        if m is None:
            raise RuntimeError(
                f"{self.inst.impl.name}: session exited before initialize: "
                + read(f"{self.inst.dir}/s{self.idx}.err").decode()[-300:]
            )
        self.write({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self.t_init = t
        return m

    async def find(self):
        try:
            for p in await self.inst.peers():
                if p.get("cwd") == self.cwd:
                    return p["id"]
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError):
            pass
        return None

    async def peer_id(self, timeout=10, step=0.02):
        end = now() + timeout
        while now() < end:
            i = await self.find()
            if i:
                self.t_reg = now()
                self.id = i
                return i
            await asyncio.sleep(step)
        raise RuntimeError(f"{self.inst.impl.name}: session {self.idx} never seen in /list-peers")

    def alive(self):
        return self.p.poll() is None

    def close(self):
        if not hasattr(self, "p"):
            return
        lp = asyncio.get_running_loop()
        for f in (
            lambda: lp.remove_reader(self.fo),
            lambda: lp.remove_writer(self.fi),
            self.p.stdin.close,
            self.p.stdout.close,
        ):
            try:
                f()
            except (OSError, ValueError):
                pass


class Stream:
    """Numbered messages from session a to session b through the MCP tool."""

    def __init__(self, a, b, to=None, pad=180):
        self.a, self.b, self.to, self.tag = a, b, to or b.id, "%x" % random.getrandbits(40)
        self.n, self.sent, self.resp, self.got, self.order, self.pad, self.evt = (
            0,
            {},
            {},
            {},
            [],
            "x" * pad,
            asyncio.Event(),
        )
        b.streams[self.tag] = self

    def arrived(self, k, t):
        if k not in self.got:
            self.order.append(k)
        self.got.setdefault(k, []).append(t)
        self.evt.set()

    def send(self, count=1):
        tl, objs, futs = self.a.inst.impl.tool, [], []
        for _ in range(count):
            k = self.n
            self.n += 1
            f, o = self.a.call(
                "tools/call",
                {
                    "name": tl["name"],
                    "arguments": {tl["to"]: self.to, tl["text"]: f"pb {self.tag} {k} {self.pad}"},
                },
            )
            f.add_done_callback(lambda f, k=k: self._resp(k, f))
            objs.append(o)
            futs.append(f)
        t = now()
        for k in range(self.n - count, self.n):
            self.sent[k] = t
        self.a.write(*objs)
        return futs

    def _resp(self, k, f):
        if f.cancelled():
            return
        t, m = f.result()
        ok = bool(m and "result" in m and not m["result"].get("isError"))
        self.resp[k] = (
            t,
            ok,
            None
            if ok
            else (json.dumps(m.get("result") or m.get("error"))[:160] if m else "session gone"),
        )

    def acked(self):
        return [k for k, r in self.resp.items() if r[1]]

    def done(self):
        return len(self.resp) >= self.n and all(k in self.got for k in self.acked())

    def lat(self, ks=None):
        return [
            1000 * (self.got[k][0] - self.sent[k])
            for k in (ks if ks is not None else self.got)
            if k in self.got
        ]

    def summary(self):
        hi, bad = -1, 0
        for k in self.order:
            bad += k < hi
            hi = max(hi, k)
        err = [r[2] for r in self.resp.values() if not r[1]]
        return {
            "sent": self.n,
            "acked": len(self.acked()),
            "errors": len(err),
            "unanswered": self.n - len(self.resp),
            "lost": sum(k not in self.got for k in self.acked()),
            "dup": sum(len(v) - 1 for v in self.got.values()),
            "reordered": bad,
            "unacked_but_delivered": sum(
                k in self.got and not (k in self.resp and self.resp[k][1]) for k in range(self.n)
            ),
            "first_error": err[0] if err else None,
        }


async def drain(st, secs):
    await until(st.done, secs, 0.02)
