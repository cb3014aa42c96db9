"""What /proc tells about the processes under test, and how they are started and ended."""

from __future__ import annotations

import asyncio, ctypes, os, re, resource, signal, subprocess, time

RUN = "pb%x" % int.from_bytes(os.urandom(5), "big")
LIBC = ctypes.CDLL(None, use_errno=True)
TICK = os.sysconf("SC_CLK_TCK")
now = time.perf_counter


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:
        return b""


def proc_table():
    t = {}
    for d in os.listdir("/proc"):
        if d.isdigit():
            s = read(f"/proc/{d}/stat")
            if s:
                f = s[s.rindex(b")") + 2 :].split()
                t[int(d)] = (int(f[1]), f)  # ppid, fields from state on
    return t


def pids_of(tag):
    """Processes carrying tag in their environment, and their descendants (zombies left out)."""
    t, tagb = proc_table(), tag.encode()
    mine = {
        p
        for p in t
        if p != os.getpid() and t[p][1][0] != b"Z" and tagb in read(f"/proc/{p}/environ")
    }
    grew = True
    while grew:
        new = {p for p, (pp, f) in t.items() if pp in mine and p not in mine and f[0] != b"Z"}
        mine |= new
        grew = bool(new)
    return mine


def cpu_s(pids, children=False):
    n = 0
    for p in pids:
        s = read(f"/proc/{p}/stat")
        if s:
            f = s[s.rindex(b")") + 2 :].split()
            n += int(f[11]) + int(f[12]) + (int(f[13]) + int(f[14]) if children else 0)
    return n / TICK


def wakeups(pids):
    n = 0
    for p in pids:
        try:
            for t in os.listdir(f"/proc/{p}/task"):
                m = re.search(
                    rb"\nvoluntary_ctxt_switches:\s*(\d+)", read(f"/proc/{p}/task/{t}/status")
                )
                n += int(m[1]) if m else 0
        except OSError:
            pass
    return n


def mem_mb(pids):
    tot = {"Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for p in pids:
        for ln in read(f"/proc/{p}/smaps_rollup").decode().splitlines():
            k = ln.split(":")[0]
            if k in tot:
                tot[k] += int(ln.split()[1])
    return (
        tot["Rss"] / 1024,
        tot["Pss"] / 1024,
        (tot["Private_Clean"] + tot["Private_Dirty"]) / 1024,
    )


def port_owners(port, pids):
    inodes = set()
    for f in ("/proc/net/tcp", "/proc/net/tcp6"):
        for ln in read(f).decode().splitlines()[1:]:
            c = ln.split()
            if c[3] == "0A" and int(c[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{c[9]}]")
    own = set()
    for p in pids:
        try:
            for fd in os.listdir(f"/proc/{p}/fd"):
                try:
                    if os.readlink(f"/proc/{p}/fd/{fd}") in inodes:
                        own.add(p)
                        break
                except OSError:
                    pass
        except OSError:
            pass
    return own


def kill(pid, sig):
    try:
        os.kill(pid, sig)
    except OSError:
        pass


def reap():
    for p, (pp, f) in proc_table().items():  # orphans come to us: we are the child subreaper
        if pp == os.getpid() and f[0] == b"Z" and p not in KNOWN:
            try:
                os.waitpid(p, os.WNOHANG)
            except OSError:
                pass


KNOWN: dict[int, subprocess.Popen] = {}


def popen(argv, **kw):
    p = subprocess.Popen(argv, start_new_session=True, bufsize=0, **kw)
    KNOWN[p.pid] = p
    return p


def busy_s():
    """CPU seconds spent by the whole machine (not idle, not iowait)."""
    f = [int(x) for x in read("/proc/stat").split(b"\n", 1)[0].split()[1:9]]
    return (sum(f) - f[3] - f[4]) / TICK


def own_s():
    a, b = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return a.ru_utime + a.ru_stime + b.ru_utime + b.ru_stime


async def gone(p, timeout):
    """Wait for a child to end; return the moment, or None. A pidfd tells at once, polling does not."""
    loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    fd = os.pidfd_open(p.pid)
    loop.add_reader(fd, lambda: done.done() or done.set_result(now()))
    try:
        return await asyncio.wait_for(done, timeout)
    except asyncio.TimeoutError:
        return None
    finally:
        loop.remove_reader(fd)
        os.close(fd)
        p.poll()


def descend(pid):
    """A process and everything below it."""
    t, mine, grew = proc_table(), {pid}, True
    while grew:
        new = {p for p, (pp, _) in t.items() if pp in mine and p not in mine}
        mine |= new
        grew = bool(new)
    return mine
