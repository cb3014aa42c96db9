"""HTTP load: one epoll loop, any number of connections, one request in flight on each."""

from __future__ import annotations

import json, os, select, shutil, socket

from procs import RUN, now


def drive(port, nconn, nxt, on=None, seconds=1.0, limit=None, patience=20.0):
    """nxt(i) gives connection i's next request (None ends it); on(i, body) sees the answer. One request in flight a connection."""
    ep, cs, lat, issued, errs = select.epoll(), {}, [], 0, 0

    def dial(i):
        s = socket.create_connection(("127.0.0.1", port), 3)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.setblocking(False)
        cs[s.fileno()] = [s, i, b"", 0.0]
        ep.register(s.fileno(), select.EPOLLIN)
        return cs[s.fileno()]

    def drop(c):
        ep.unregister(c[0].fileno())
        del cs[c[0].fileno()]
        c[0].close()

    def fire(c):
        nonlocal issued
        t = now()
        r = nxt(c[1]) if t < end and (limit is None or issued < limit) else None
        if r is None:
            return drop(c)
        issued += 1
        c[3] = t
        c[0].send(r)

    t0 = now()
    end = t0 + seconds
    last = t0
    for i in range(nconn):
        fire(dial(i))
    while cs and now() < end + patience:
        for fd, _ in ep.poll(0.5):
            c = cs.get(fd)
            if not c:
                continue
            try:
                d = c[0].recv(1 << 20)
            except BlockingIOError:
                continue
            except OSError:
                d = b""
            if not d:
                errs += 1
                i = c[1]
                drop(c)
                if errs < 50:
                    fire(dial(i))
                continue
            c[2] += d
            h = c[2].find(b"\r\n\r\n")
            if h < 0:
                continue
            hd = c[2][:h].lower()
            k = hd.find(b"content-length:")
            if k >= 0:
                n = int(hd[k + 15 :].split(b"\r", 1)[0])
                if len(c[2]) < h + 4 + n:
                    continue
                body = c[2][h + 4 : h + 4 + n]
            elif c[2].endswith(b"0\r\n\r\n"):
                body = b"".join(c[2][h + 4 :].split(b"\r\n")[1::2])
            else:
                continue
            last = now()
            lat.append(1000 * (last - c[3]))
            if b" 200" not in hd[:16]:
                errs += 1
            c[2] = b""
            if on:
                on(c[1], body)
            fire(c)
    for c in list(cs.values()):
        errs += 1
        drop(c)
    ep.close()
    return {"n": len(lat), "s": max(last - t0, 1e-9), "lat": lat, "errors": errs}


SLEEPERS: list[int] = []


def live_pids(n):
    """Distinct live pids for peers registered over HTTP (the seeds drop peers whose pid is dead or repeated)."""
    exe = shutil.which("sleep")
    while len(SLEEPERS) < n:
        SLEEPERS.append(os.posix_spawn(exe, ["sleep", "3600"], {"PEERBENCH_RUN": RUN}))
    return SLEEPERS[:n]


def reg_req(inst, k, pid):
    return inst.req(
        "/register",
        {
            "pid": pid,
            "cwd": f"/home/user/projects/service-{k}",
            "git_root": f"/home/user/projects/service-{k}",
            "tty": None,
            "hostname": socket.gethostname(),
            "summary": f"Working on service {k}: refactoring the request pipeline and its tests, branch feature/x-{k}.",
        },
    )


def register(inst, pids, base=0, nconn=4):
    ids, todo = [], iter(list(enumerate(pids, base)))
    r = drive(
        inst.port,
        nconn,
        lambda i: next((reg_req(inst, k, p) for k, p in todo), None),
        lambda i, b: ids.append(json.loads(b)["id"]),
        30,
    )
    return ids, r
