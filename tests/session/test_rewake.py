"""The pipe on which a session's waiter waits: one text each, and nothing is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio.lowlevel
import pytest
from support.loop import until
from support.waiting import eventually

from claude_peers.core.errors import StoreError
from claude_peers.session.routes.rewake import Rewake, is_running, sweep
from claude_peers.session.routes.route import Route
from claude_peers.wire import hooks

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes"),
]
CLIENT = 4242
LONG = "ä🙂" * 15_000
"""As long as a push gets, and more bytes than a pipe holds."""


class Waiter:
    """A hook as the client starts it."""

    def __init__(self, folder: Path, client: int = CLIENT, entrypoint: str = "cli") -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", hooks.waiter(str(folder.parent))["command"]],
            env={
                "PATH": os.environ["PATH"],
                "LC_ALL": "C.UTF-8",
                "CLAUDE_CODE_ENTRYPOINT": entrypoint,
                "CLAUDE_PID": str(client),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )

    def end(self) -> tuple[int, str]:
        """Return the exit status and what the client would show."""
        _, shown = self.process.communicate(timeout=15)
        return self.process.returncode, shown

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stderr.close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "wake"


@pytest.fixture
def route(folder):
    route = Rewake(str(folder), CLIENT)
    route.open()
    yield route
    route.close()


@pytest.fixture
def wait(folder):
    started = []

    def start(**given):
        started.append(Waiter(folder, **given))
        return started[-1]

    yield start
    for waiter in started:
        waiter.kill()


async def armed(route):
    await until(lambda: route.available)


def test_it_is_a_route(route):
    checked: Route = route

    assert checked.name == "rewake"


async def test_a_waiter_takes_one_text_and_ends_with_the_status_that_wakes(route, wait):
    waiter = wait()
    await armed(route)

    assert await route.push("wake up\nsecond line")
    assert waiter.end() == (2, "wake up\nsecond line\n")
    assert not route.available


async def test_a_waiter_can_be_armed_again_and_again(route, wait):
    for turn in range(3):
        waiter = wait()
        await armed(route)

        assert await route.push(f"turn {turn}")
        assert waiter.end() == (2, f"turn {turn}\n")


async def test_without_a_waiter_nothing_is_pushed_and_nothing_kept_for_the_next(route, wait):
    assert not route.available
    assert not await route.push("too early")

    waiter = wait()
    await armed(route)
    assert await route.push("in time")
    assert waiter.end() == (2, "in time\n")


async def test_asking_whether_one_is_armed_ends_no_waiter(route, wait):
    waiter = wait()
    await armed(route)

    assert all(route.available for _ in range(100))
    assert await route.push("still there")
    assert waiter.end()[0] == 2


@pytest.mark.parametrize("text", ["", "\n"])
async def test_a_text_of_nothing_leaves_the_waiter_armed(route, wait, text):
    wait()
    await armed(route)

    assert not await route.push(text)
    assert route.available


async def test_a_text_longer_than_the_pipe_arrives_whole(route, wait):
    waiter = wait()
    await armed(route)

    pushed = asyncio.create_task(route.push(LONG))
    shown = asyncio.create_task(asyncio.to_thread(waiter.end))

    assert await pushed
    assert await shown == (2, f"{LONG}\n")


async def test_of_two_pushes_at_once_one_is_refused_and_the_other_arrives_alone(route, wait):
    waiter = wait()
    await armed(route)

    pushed = await asyncio.gather(route.push(LONG), route.push("me too"))

    assert pushed == [True, False]
    assert waiter.end() == (2, f"{LONG}\n")


async def test_a_push_while_the_waiter_still_reads_is_refused(route, folder):
    with open_reader(folder) as reader:
        assert await route.push("first")

        assert not route.available
        assert not await route.push("second")
        assert reader.read() == b"first"


async def test_a_waiter_that_stops_reading_costs_a_bounded_wait(folder, caplog):
    route = Rewake(str(folder), CLIENT, patience=0)
    route.open()
    with open_reader(folder):
        assert not await route.push(LONG)

        assert not route.available, "the stalled waiter is given up"
    with open_reader(folder) as reader:
        assert await route.push("next")
        assert reader.read() == b"next"
    route.close()


async def test_a_waiter_that_dies_while_it_reads_is_noticed(route, folder):
    reader = open_reader(folder)
    pushed = asyncio.create_task(route.push(LONG))
    await anyio.lowlevel.checkpoint()  # let it fill the pipe
    assert not pushed.done()

    reader.close()

    assert not await pushed


async def test_the_pipe_is_private(folder):
    before = os.umask(0)
    try:
        route = Rewake(str(folder), CLIENT)
        route.open()
    finally:
        os.umask(before)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / str(CLIENT)).stat().st_mode & 0o777 == 0o600
    route.close()


@pytest.mark.parametrize("kind", ["link", "file", "folder", "open pipe"])
def test_what_is_no_pipe_of_ours_is_refused_and_left_alone(folder, kind):
    folder.mkdir(mode=0o700)
    path = folder / str(CLIENT)
    match kind:
        case "link":
            os.mkfifo(folder / "target", 0o600)
            path.symlink_to(folder / "target")
        case "file":
            path.write_text("mine")
        case "folder":
            path.mkdir()
        case _:
            os.mkfifo(path)
            path.chmod(0o666)
    route = Rewake(str(folder), CLIENT)

    with pytest.raises(StoreError, match=str(path)):
        route.open()

    assert not route.available
    route.close()
    assert os.path.lexists(path)


def test_another_users_pipe_is_refused(folder, monkeypatch):
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / str(CLIENT), 0o600)
    found = os.lstat(folder / str(CLIENT))
    real = os.lstat
    foreign = os.stat_result((*found[:4], os.getuid() + 1, *found[5:]))
    monkeypatch.setattr(
        os, "lstat", lambda path: foreign if str(path).endswith(str(CLIENT)) else real(path)
    )

    with pytest.raises(StoreError, match="belongs to user"):
        Rewake(str(folder), CLIENT).open()


def test_a_pipe_that_is_exchanged_while_it_is_opened_is_refused(folder, monkeypatch):
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / str(CLIENT), 0o600)
    seen = os.lstat(folder / str(CLIENT))
    (folder / str(CLIENT)).chmod(0o622)
    monkeypatch.setattr(os, "lstat", lambda path: os.stat(folder) if path == str(folder) else seen)

    with pytest.raises(StoreError, match="Others may use"):
        Rewake(str(folder), CLIENT).open()


def test_a_folder_that_cannot_be_written_is_named(folder, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "mkfifo", refuse)

    with pytest.raises(StoreError, match=r"Permission denied\. Remove it"):
        Rewake(str(folder), CLIENT).open()


async def test_a_waiter_that_was_there_before_the_server_is_armed(folder, wait):
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / str(CLIENT), 0o600)
    waiter = wait()
    waits(folder, CLIENT)
    route = Rewake(str(folder), CLIENT)

    route.open()
    route.open()
    await armed(route)

    assert await route.push("good morning")
    assert waiter.end() == (2, "good morning\n")
    route.close()


async def test_the_pid_of_an_earlier_clients_waiter_keeps_nobody_from_waiting(folder, wait):
    folder.mkdir(mode=0o700)
    (folder / f"{CLIENT}.pid").symlink_to(str(os.getpid()))
    route = Rewake(str(folder), CLIENT)

    route.open()
    wait()

    await armed(route)
    route.close()


async def test_closing_ends_the_waiter_and_leaves_nothing(route, folder, wait):
    waiter = wait()
    await armed(route)

    route.close()
    route.close()

    assert waiter.end() == (0, "")
    assert os.listdir(folder) == []
    assert not route.available
    assert not await route.push("too late")
    route.open()
    assert os.listdir(folder) == []


async def test_closing_removes_the_pid_of_a_waiter_that_was_killed(route, folder, wait):
    waiter = wait()
    await armed(route)
    waiter.kill()

    route.close()

    assert os.listdir(folder) == []


async def test_closing_during_a_push_leaves_nothing_once_it_is_done(route, folder, wait):
    waiter = wait()
    await armed(route)
    pushed = asyncio.create_task(route.push(LONG))
    await anyio.lowlevel.checkpoint()

    route.close()

    assert await pushed
    assert waiter.end() == (2, f"{LONG}\n")
    assert os.listdir(folder) == []


def test_closing_leaves_a_successors_pipe_alone(route, folder):
    os.unlink(route.path)
    successor = Rewake(str(folder), CLIENT)
    successor.open()

    route.close()

    assert os.listdir(folder) == [str(CLIENT)]
    successor.close()


def test_closing_a_pipe_that_somebody_removed_is_no_error(route, folder):
    os.unlink(route.path)

    assert not route.available
    route.close()
    assert os.listdir(folder) == []


async def test_a_pipe_that_cannot_be_made_anew_ends_the_route_and_misleads_nobody(
    route, folder, monkeypatch, caplog
):
    def refuse(path, mode):
        raise OSError(28, "No space left on device")

    with open_reader(folder) as reader:
        monkeypatch.setattr(os, "mkfifo", refuse)

        assert await route.push("the last one")
        assert reader.read() == b"the last one"
    assert not route.available
    assert os.listdir(folder) == []
    assert "cannot be made anew" in caplog.text


PROGRAM = """
import sys
from claude_peers.session.routes.rewake import Rewake
route = Rewake(sys.argv[1], int(sys.argv[2]))
route.open()
print(flush=True)
sys.stdin.read()
"""


def test_a_server_that_is_killed_takes_its_waiter_along(folder, wait):
    server = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(CLIENT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with server:
        assert server.stdout.readline()
        waiter = wait()
        eventually(lambda: reads(folder))

        server.kill()

    assert waiter.end() == (0, "")


def test_a_headless_session_arms_nobody(route, wait):
    assert wait(entrypoint="sdk-cli").end() == (0, "")
    assert not route.available


def test_a_sweep_frees_the_waiters_of_dead_clients_and_touches_no_others(folder, wait):
    folder.mkdir(mode=0o700)
    for name in ("11", "12", "13.new"):
        os.mkfifo(folder / name, 0o600)
    for name in ("12.pid", "13.pid", "notes", "14.txt"):
        (folder / name).symlink_to("nowhere")
    waiter = wait(client=11)
    waits(folder, 11)

    sweep(str(folder), alive=lambda pid: pid == 12)

    # Whether it read already, or was about to: it ends, and wakes nobody.
    assert waiter.end()[0] == 0
    assert sorted(os.listdir(folder)) == ["12", "12.pid", "14.txt", "notes"]


def test_a_sweep_before_the_first_session_does_nothing(folder):
    sweep(str(folder))

    assert not folder.exists()


def test_by_itself_a_sweep_asks_the_system_who_lives(folder):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    folder.mkdir(mode=0o700)
    for pid in (gone.pid, os.getpid()):
        os.mkfifo(folder / str(pid), 0o600)

    sweep(str(folder))

    assert os.listdir(folder) == [str(os.getpid())]
    assert is_running(os.getpid()) and not is_running(gone.pid)


async def test_where_there_are_no_pipes_the_route_is_never_available(folder):
    route = Rewake(str(folder), CLIENT, pipes=False)

    route.open()
    sweep(str(folder), pipes=False)

    assert not route.available
    assert not await route.push("hello")
    route.close()
    assert not folder.exists()


def open_reader(folder):
    """Read as a waiter does, but only when told to."""
    reader = os.open(folder / str(CLIENT), os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    return open(reader, "rb")


def waits(folder, client):
    """Return once a waiter has said who it is."""
    eventually(lambda: os.path.lexists(folder / f"{client}.pid"))


def reads(folder):
    """Whether somebody reads, where a server holds the pipe so that asking ends nobody."""
    with suppress(OSError):
        os.close(os.open(folder / str(CLIENT), os.O_WRONLY | os.O_NONBLOCK))
        return True
    return False
