"""Floors: what the machine and plain Python can do, without any implementation of ours."""

from __future__ import annotations

import asyncio, os, select, signal, socket, sqlite3, subprocess, sys, time

from load import drive
from procs import RUN, cpu_s, kill, mem_mb, now, popen
from results import R, q
from rig import OPT, SCRATCH, calm


def forked(fn, *a):
    pid = os.fork()
    if pid == 0:
        try:
            fn(*a)
        finally:
            os._exit(0)
    return pid


def pingpong(a_send, a_recv, rounds):
    xs, pay = [], b"p" * 200
    for _ in range(rounds):
        t = now()
        a_send(pay)
        n = 0
        while n < 200:
            n += len(a_recv(200 - n))
        xs.append(1e6 * (now() - t))
    return xs


def fixed_http(ls):
    """Client-ceiling reference: answers any request with 11 bytes, no parsing beyond the length."""
    ep, cs, rep = select.epoll(), {}, b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"ok":true}'
    ep.register(ls.fileno(), select.EPOLLIN)
    end = now() + 60
    while now() < end:
        for fd, _ in ep.poll(1):
            if fd == ls.fileno():
                c, _a = ls.accept()
                cs[c.fileno()] = c
                ep.register(c.fileno(), select.EPOLLIN)
            elif cs[fd].recv(65536):
                cs[fd].send(rep)
            else:
                ep.unregister(fd)
                cs.pop(fd).close()


ECHO_HEAD = (
    "import sys,json\ndef reply(l):\n m=json.loads(l)\n if 'id' in m:\n  sys.stdout.write(json.dumps({'jsonrpc':'2.0','id':m['id'],"
    "'result':{'protocolVersion':'2025-06-18','capabilities':{},'serverInfo':{'name':'e','version':'0'}}})+'\\n'); sys.stdout.flush()\n"
)
ECHO = {
    "sync echo (json, sys)": ECHO_HEAD + "for l in sys.stdin: reply(l)\n",
    "asyncio echo (json, asyncio)": ECHO_HEAD
    + "import asyncio\nasync def main():\n r=asyncio.StreamReader()\n"
    " await asyncio.get_running_loop().connect_read_pipe(lambda:asyncio.StreamReaderProtocol(r),sys.stdin)\n"
    " while l:=await r.readline(): reply(l)\nasyncio.run(main())\n",
    "asyncio echo + sqlite3 + http.client + subprocess": "import sqlite3,http.client,subprocess\n"
    + ECHO_HEAD
    + "import asyncio\nasync def main():\n r=asyncio.StreamReader()\n"
    " await asyncio.get_running_loop().connect_read_pipe(lambda:asyncio.StreamReaderProtocol(r),sys.stdin)\n"
    " while l:=await r.readline(): reply(l)\nasyncio.run(main())\n",
}


async def m_floor():
    py = sys.executable
    for rep in range(3):  # round trips of 200 bytes
        ls = socket.create_server(("127.0.0.1", 0))

        def tcp():
            c, _ = ls.accept()
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while d := c.recv(4096):
                c.sendall(d)

        pid = forked(tcp)
        s = socket.create_connection(ls.getsockname())
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        xs = pingpong(s.sendall, s.recv, 3000)
        s.close(), ls.close(), os.waitpid(pid, 0)
        R.add(
            "floor: round trip, 200 B, blocking Python both ends",
            "p50",
            "us",
            "TCP loopback",
            q(xs, 0.5),
        )
        R.add(
            "floor: round trip, 200 B, blocking Python both ends",
            "p99",
            "us",
            "TCP loopback",
            q(xs, 0.99),
        )
        a, b = socket.socketpair()

        def uds():
            a.close()
            while d := b.recv(4096):
                b.sendall(d)

        pid = forked(uds)
        b.close()
        xs = pingpong(a.sendall, a.recv, 3000)
        a.close(), os.waitpid(pid, 0)
        R.add(
            "floor: round trip, 200 B, blocking Python both ends",
            "p50",
            "us",
            "unix socket",
            q(xs, 0.5),
        )
        R.add(
            "floor: round trip, 200 B, blocking Python both ends",
            "p99",
            "us",
            "unix socket",
            q(xs, 0.99),
        )
        r1, w1 = os.pipe()
        r2, w2 = os.pipe()

        def pipe():
            os.close(w1), os.close(r2)
            while d := os.read(r1, 4096):
                os.write(w2, d)

        pid = forked(pipe)
        os.close(r1), os.close(w2)
        xs = pingpong(lambda d: os.write(w1, d), lambda n: os.read(r2, n), 3000)
        os.close(w1), os.close(r2), os.waitpid(pid, 0)
        R.add(
            "floor: round trip, 200 B, blocking Python both ends",
            "p50",
            "us",
            "pipe (stdio)",
            q(xs, 0.5),
        )
        R.add(
            "floor: round trip, 200 B, blocking Python both ends",
            "p99",
            "us",
            "pipe (stdio)",
            q(xs, 0.99),
        )
        s = await asyncio.start_server(aecho, "127.0.0.1", 0)
        rd, wr = await asyncio.open_connection(*s.sockets[0].getsockname()[:2])
        xs = []
        for _ in range(1500):
            t = now()
            wr.write(b"p" * 200)
            await rd.readexactly(200)
            xs.append(1e6 * (now() - t))
        wr.close(), s.close()
        R.add(
            "floor: round trip, 200 B, blocking Python both ends",
            "p50",
            "us",
            "asyncio streams, one process",
            q(xs, 0.5),
        )
        R.add(
            "floor: round trip, 200 B, blocking Python both ends",
            "p99",
            "us",
            "asyncio streams, one process",
            q(xs, 0.99),
        )
    for c in (1, 8, 32):
        for rep in range(3):
            await calm()
            ls = socket.create_server(("127.0.0.1", 0))
            pid = forked(fixed_http, ls)
            rq = b"POST /send-message HTTP/1.1\r\nContent-Length: 260\r\n\r\n" + b"x" * 260
            r = drive(ls.getsockname()[1], c, lambda k: rq, None, 0.5)
            kill(pid, signal.SIGKILL), os.waitpid(pid, 0), ls.close()
            R.add(
                "floor: this load generator against a fixed-answer server",
                f"{c} conn",
                "req/s",
                "fixed-answer epoll server",
                r["n"] / r["s"],
            )
    M = "floor: persistence, one 200 B row"
    for rep in range(3):
        for sync in ("OFF", "NORMAL", "FULL"):
            for batch in (1, 32):
                await calm()
                f = f"{SCRATCH}/floor.db"
                d = sqlite3.connect(f, isolation_level=None)
                d.execute("PRAGMA journal_mode=WAL"), d.execute(f"PRAGMA synchronous={sync}")
                d.execute(
                    "CREATE TABLE m(id INTEGER PRIMARY KEY, f TEXT, t TEXT, x TEXT, s TEXT, d INT)"
                )
                t0, n = now(), 0
                while now() - t0 < 0.4:
                    d.execute("BEGIN")
                    for _ in range(batch):
                        d.execute(
                            "INSERT INTO m(f,t,x,s,d) VALUES('aaaaaaaa','bbbbbbbb',?,'2026-01-01T00:00:00.000Z',0)",
                            ("x" * 200,),
                        )
                    d.execute("COMMIT")
                    n += batch
                R.add(
                    M,
                    f"sqlite3 WAL synchronous={sync}, {batch} per commit",
                    "row/s",
                    "python sqlite3",
                    n / (now() - t0),
                )
                d.close()
                for x in ("", "-wal", "-shm"):
                    if os.path.exists(f + x):
                        os.unlink(f + x)
        fd, t0, n = os.open(f"{SCRATCH}/f", os.O_CREAT | os.O_WRONLY | os.O_APPEND), now(), 0
        while now() - t0 < 0.4:
            os.write(fd, b"x" * 300), os.fdatasync(fd)
            n += 1
        R.add(M, "append 300 B + fdatasync", "1/s", "python sqlite3", n / (now() - t0))
        os.close(fd)
    cand = [
        ("python -c pass", [py, "-c", "pass"], False),
        ("python -I -S -c pass", [py, "-I", "-S", "-c", "pass"], False),
        ("python -c 'import asyncio'", [py, "-c", "import asyncio"], False),
    ]
    cand += [(k, [py, "-I", "-c", v], True) for k, v in ECHO.items()]
    for rep in range(OPT.reps):
        for name, argv, stdio in cand:
            await calm()
            t = now()
            try:
                p = popen(
                    argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd=SCRATCH,
                    env={k: os.environ[k] for k in ("PATH", "LANG") if k in os.environ}
                    | {"HOME": SCRATCH, "PEERBENCH_RUN": RUN},
                )
            except OSError as e:
                R.note("floor", name, repr(e))
                continue
            if stdio:
                p.stdin.write(
                    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"b","version":"1"}}}\n'
                )
                ok = select.select([p.stdout], [], [], 20)[0] and p.stdout.readline()
                ms, cpu = 1000 * (now() - t), 1000 * cpu_s([p.pid])
                time.sleep(0.1)
                rss, pss, uss = mem_mb([p.pid])
                if ok:
                    for col, v in (
                        ("ms to initialize response", ms),
                        ("CPU ms", cpu),
                        ("PSS MB", pss),
                        ("USS MB", uss),
                    ):
                        R.add("floor: start of a stdio server", name, "mixed", col, v)
                else:
                    R.note("floor", name, "no answer to initialize")
                p.stdin.close()
                try:
                    p.wait(1)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
            else:
                fd = os.pidfd_open(p.pid)
                select.select([fd], [], [], 20)
                os.close(fd)
                p.wait(1)
                R.add("floor: spawn to exit", name, "ms", "wall", 1000 * (now() - t))
            p.stdout.close()


async def aecho(r, w):
    while d := await r.read(4096):
        w.write(d)
    w.close()
