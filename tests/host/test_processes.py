"""Facts about processes, from /proc and from psutil, which must agree."""

import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from support.waiting import eventually

from claude_peers.core.models import Process
from claude_peers.host import linux, portable, processes

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
BACKENDS = [linux, portable] if sys.platform == "linux" else [portable]
NOBODYS_PID = 2**22 + 1
"""Above every pid there can be."""


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.__name__.rpartition(".")[2])
def backend(request, monkeypatch) -> ModuleType:
    monkeypatch.setattr(processes, "_system", request.param)
    return request.param


@contextmanager
def running(*command: str, program: str | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    child = subprocess.Popen(command, executable=program, stdin=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with running("sleep", "600") as child:
        yield child


def dead_pid() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_a_process_is_known_by_pid_and_start_time(backend, sleeper):
    process = processes.identify(sleeper.pid)

    assert process == Process(pid=sleeper.pid, started=processes.start_time(sleeper.pid))
    assert processes.identify(sleeper.pid) == process
    assert processes.alive(process)


def test_a_start_time_is_the_same_for_whoever_asks(backend, sleeper):
    code = f"from {backend.__name__} import start_time; print(start_time({sleeper.pid}))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert told.stdout.strip() == processes.start_time(sleeper.pid)


@pytest.mark.bug("U5")
def test_another_process_under_the_same_pid_is_not_alive(backend, sleeper):
    assert not processes.alive(Process(pid=sleeper.pid, started="1"))
    assert not processes.alive(Process(pid=sleeper.pid, started=""))


@pytest.mark.parametrize("pid", [0, -1, NOBODYS_PID, 2**31, 2**64])
def test_a_pid_that_nobody_has_tells_nothing(backend, pid):
    assert processes.start_time(pid) is None or pid == 0
    assert not processes.alive(Process(pid=pid, started="1"))
    assert processes.parent_of(pid) is None
    assert processes.command_line(pid) == []
    assert processes.ancestors(pid) == []
    assert not processes.is_stopped(pid)
    assert processes.terminal(pid) is None
    assert not processes.revive(Process(pid=pid, started="1"))


def test_a_process_that_has_vanished_is_gone(backend):
    pid = dead_pid()

    assert processes.identify(pid) is None
    assert processes.command_line(pid) == []
    assert not processes.alive(Process(pid=pid, started="1"))


def test_a_zombie_is_not_alive(backend):
    child = subprocess.Popen(["sleep", "600"])
    process = processes.identify(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    assert not processes.alive(process)
    assert not processes.revive(process)
    child.wait()


@on_linux
@pytest.mark.parametrize("name", ["a) S 1 (b", ") R 99", "((((", "a b c", ") Z 0 0 0 0", "x\ny) T"])
def test_a_name_with_parentheses_and_spaces_misleads_nobody(backend, tmp_path, name):
    program = tmp_path / name
    shutil.copy(shutil.which("sleep"), program)
    with running("sleep", "600", program=str(program)) as child:
        stat = Path(f"/proc/{child.pid}/stat").read_text()
        process = processes.identify(child.pid)

        assert f"({name[:15]})" in stat
        assert processes.parent_of(child.pid) == os.getpid()
        assert processes.alive(process)
        assert not processes.is_stopped(child.pid)
        if backend is linux:
            assert process.started == stat.rpartition(")")[2].split()[19]


def test_parents_come_nearest_first_and_no_more_than_asked_for(backend):
    with running("sh", "-c", "sleep 600 & echo; wait") as shell:
        child = eventually(lambda: psutil.Process(shell.pid).children())[0]
        expected = [shell.pid, os.getpid(), os.getppid()]

        assert processes.ancestors(child.pid)[:3] == expected
        assert processes.ancestors(child.pid, most=2) == expected[:2]
        assert processes.ancestors(child.pid, most=0) == []
        child.kill()


def test_the_top_has_no_parent(backend):
    top = (os.getpid(), *processes.ancestors(os.getpid(), most=100))[-1]

    assert processes.parent_of(top) is None
    assert processes.ancestors(top) == []


def test_a_loop_of_parents_ends(monkeypatch):
    monkeypatch.setattr(processes._system, "parent_of", lambda pid: 3 - pid)

    assert processes.ancestors(1, most=100) == [2, 1]


@pytest.mark.parametrize("arguments", [(), ("",), ("a b", "", "\u00e9"), ("last", "")])
def test_a_command_line_keeps_its_arguments_apart(backend, arguments):
    code = "import sys; sys.stdin.read()"
    command = [sys.executable, "-c", code, *arguments]
    child = subprocess.Popen(command, stdin=subprocess.PIPE)

    assert eventually(lambda: processes.command_line(child.pid)) == command
    child.communicate()


@on_linux
def test_a_command_line_that_is_not_text_is_still_told(sleeper):
    with running(os.fsdecode(b"sl\xffp"), "600", program=shutil.which("sleep")) as child:
        assert eventually(lambda: linux.command_line(child.pid)[1:])
        assert linux.command_line(child.pid) == ["sl\ufffdp", "600"]


def test_a_stopped_process_is_known_and_revived(backend, sleeper):
    process = processes.identify(sleeper.pid)
    assert not processes.is_stopped(sleeper.pid)

    sleeper.send_signal(signal.SIGSTOP)
    eventually(lambda: processes.is_stopped(sleeper.pid))
    assert processes.alive(process)
    assert not processes.revive(Process(pid=sleeper.pid, started="1"))
    assert processes.is_stopped(sleeper.pid)

    assert processes.revive(process)
    eventually(lambda: not processes.is_stopped(sleeper.pid))


@on_linux
def test_a_process_that_may_not_be_signalled_is_not_revived(monkeypatch, sleeper):
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    process = Process(pid=sleeper.pid, started=linux.start_time(sleeper.pid))
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", refuse)

        assert not linux.revive(process)
    assert linux.revive(process)


@pytest.mark.bug("U5")
@pytest.mark.parametrize(
    ("failure", "there"),
    [(PermissionError, True), (ProcessLookupError, False), (OverflowError, False), (None, True)],
)
@pytest.mark.fault("F34")
def test_a_process_that_proc_hides_is_asked_for_by_signal(monkeypatch, failure, there):
    def kill(pid: int, number: int) -> None:
        assert number == 0
        if failure:
            raise failure

    monkeypatch.setattr(linux, "read", lambda path: None)
    monkeypatch.setattr(os, "kill", kill)

    assert linux.alive(Process(pid=1234, started="1")) is there


@pytest.mark.bug("U5")
@pytest.mark.parametrize(
    ("failure", "there"),
    [(psutil.AccessDenied(1), True), (psutil.NoSuchProcess(1), False)],
)
def test_a_process_that_psutil_may_not_see_counts_as_alive(monkeypatch, failure, there):
    def refuse(pid: int) -> None:
        raise failure

    monkeypatch.setattr(psutil, "Process", refuse)

    assert portable.alive(Process(pid=1234, started="1")) is there
    assert portable.start_time(1234) is None


@pytest.fixture
def on_a_terminal() -> Iterator[tuple[int, int, str]]:
    """Return a process with a terminal, a child of it without, and the terminal's name."""
    pid, controller = pty.fork()
    if pid == 0:
        os.execlp("sh", "sh", "-c", "tty; setsid sleep 600 & echo $!; wait")
    told = b""
    while told.count(b"\n") < 2:
        told += os.read(controller, 1024)
    name, child = told.decode().split()[:2]
    yield pid, int(child), name.removeprefix("/dev/")
    os.kill(int(child), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(controller)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_terminal_is_the_one_of_the_process_or_of_an_ancestor(backend, on_a_terminal):
    pid, child, name = on_a_terminal

    assert processes.terminal(pid) == name
    eventually(lambda: backend.terminal(child) is None)
    assert processes.terminal(child) == name


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (136 << 8 | 3, "pts/3"),
        (137 << 8 | 1, "pts/257"),
        (136 << 8 | 0x2C | 0x1 << 20, "pts/300"),
        (4 << 8 | 2, "tty2"),
        (9 << 8 | 9, None),
        (0, None),
    ],
)
def test_a_terminal_is_named_by_its_device_number(monkeypatch, device, name):
    files = {
        "/proc/7/stat": b"7 (x) S 1 7 7 %d" % device + b" 0" * 40,
        "/sys/dev/char/4:2/uevent": b"MAJOR=4\nMINOR=2\nDEVNAME=tty2\n",
    }
    monkeypatch.setattr(linux, "read", files.get)

    assert linux.terminal(7) == name


def test_a_system_without_terminals_tells_none(monkeypatch):
    monkeypatch.setattr(psutil, "Process", lambda pid: object())

    assert portable.terminal(7) is None


def test_the_machine_and_its_user_have_a_name(backend):
    import socket

    assert processes.host_name() == socket.gethostname()
    assert processes.user_id() == os.getuid()
    assert processes.boot_id()
    assert processes.boot_id() == processes.boot_id()


@on_linux
def test_boot_and_namespace_are_the_kernels():
    assert linux.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert processes.pid_namespace() == linux.pid_namespace()
    assert linux.pid_namespace().startswith("pid:[")
    assert portable.pid_namespace() == ""


def test_a_system_without_namespaces_has_none(monkeypatch):
    def missing(path: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "readlink", missing)

    assert linux.pid_namespace() == ""


def test_where_users_have_no_number_it_is_minus_one(monkeypatch):
    monkeypatch.delattr(os, "getuid")

    assert portable.user_id() == -1


def test_a_boot_is_told_by_the_system_or_else_by_the_machines_name(monkeypatch):
    monkeypatch.setattr(portable, "_output", lambda *command: "UUID")
    assert portable.boot_id("darwin") == "UUID"
    assert portable.boot_id("win32") == portable.host_name()

    monkeypatch.setattr(portable, "_output", lambda *command: "")
    assert portable.boot_id("darwin") == portable.host_name()


def test_a_tool_of_the_system_that_fails_says_nothing(monkeypatch):
    assert portable._output("/bin/echo", "yes") == "yes"
    assert portable._output("/nowhere/tool") == ""
    monkeypatch.setattr(portable, "_TIMEOUT", 0.01)
    assert portable._output("/bin/sleep", "600") == ""


def test_a_start_time_without_users_is_the_plain_time():
    class Windows:
        def create_time(self) -> float:
            return 1.5

    assert portable._started(Windows()) == "1.5"


def test_the_facts_cost_a_linux_process_no_large_import():
    heavy = "psutil", "platformdirs", "subprocess", "pathlib", "ctypes", "shutil", "secrets"
    code = (
        "import sys; before = set(sys.modules);"
        "from claude_peers.host import processes, sockets, files, paths, git;"
        "processes.alive(processes.identify(1)); sockets.listener_uid(1);"
        "print(*(set(sys.modules) - before))"
    )
    told = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, check=True, text=True, cwd=ROOT
    )

    assert "claude_peers.host.processes" in told.stdout.split()
    assert not set(heavy) & set(told.stdout.split())


ROOT = Path(__file__).parents[2]
