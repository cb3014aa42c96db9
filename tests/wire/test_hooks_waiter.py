"""The shell that waits for mail, run by real shells on a real FIFO."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.waiting import eventually

from claude_peers.wire import hooks

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
CLIENT = 4711
SHELLS = {
    "sh": ["/bin/sh"],
    **{name: [path] for name in ("bash", "dash", "zsh", "ksh") if (path := shutil.which(name))},
    **({"busybox": [path, "sh"]} if (path := shutil.which("busybox")) else {}),
}


class Waiters:
    """A state folder with its FIFO, and the shells that wait on it."""

    def __init__(self, root: Path, shell: list[str]) -> None:
        self.state = root / 'it\'s a "state" $HOME folder.d'
        self.fifo = Path(hooks.fifo(str(self.state), CLIENT))
        self.lock = Path(f"{self.fifo}.pid")
        self.slept = root / "slept"
        self.fifo.parent.mkdir(parents=True)
        os.mkfifo(self.fifo)
        self.shell = shell
        self.bin = root / "bin"
        self.bin.mkdir()
        self.sleep_does(f"echo . >>'{self.slept}'")
        self.started: list[subprocess.Popen[bytes]] = []

    def sleep_does(self, what: str) -> None:
        """Put a `sleep` in front of the system's that does something else than sleep."""
        (self.bin / "sleep").write_text(f"#!/bin/sh\n{what}\n")
        (self.bin / "sleep").chmod(0o755)

    def start(self, **environ: str | None) -> subprocess.Popen[bytes]:
        given = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "CLAUDE_CODE_ENTRYPOINT": "cli",
            "CLAUDE_PID": str(CLIENT),
            **environ,
        }
        waiter = subprocess.Popen(
            [*self.shell, "-c", hooks.waiter(str(self.state))["command"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: value for name, value in given.items() if value is not None},
        )
        self.started.append(waiter)
        return waiter

    def armed(self) -> int | None:
        """Return the FIFO, open for writing, if somebody reads it."""
        with contextlib.suppress(OSError):
            return os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
        return None

    def write(self, mail: bytes) -> None:
        """Write as the server does: wait for a reader, write, close."""
        opened = eventually(lambda: self.armed() or 0, what="a waiter")
        with os.fdopen(opened, "wb") as pipe:
            os.set_blocking(opened, True)
            pipe.write(mail)

    def close(self) -> None:
        for waiter in self.started:
            waiter.kill()
            waiter.communicate()


@pytest.fixture(params=SHELLS)
def waiters(tmp_path, request):
    made = Waiters(tmp_path, SHELLS[request.param])
    yield made
    made.close()


def end(waiter):
    """Return how a waiter ended and what it said."""
    out, err = waiter.communicate(timeout=20)
    assert out == b""
    return waiter.returncode, err


@pytest.mark.parametrize(
    "mail",
    [
        b"hello\n",
        b"no line feed at the end",
        b"  two\n\n\n\tlines \\n \\ %s $HOME `id` 'q' \"q\" *  \n",
        "Jürgen \U0001f389 \x81\x88\x80 日本語\n".encode(),
        b"-n\n-e\n",
        bytes(range(0x20, 0x7F)) * 400,
    ],
)
def test_mail_comes_out_on_stderr_and_wakes(waiters, mail):
    waiter = waiters.start()
    waiters.write(mail)
    assert end(waiter) == (2, mail.removesuffix(b"\n") + b"\n")
    assert not waiters.lock.is_symlink()


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_no_character_is_lost_or_changed(waiters, text):
    waiter = waiters.start()
    waiters.write(text.encode())
    assert end(waiter) == (2, text.removesuffix("\n").encode() + b"\n")


def test_a_server_that_ends_ends_the_waiter_without_a_word(waiters):
    waiter = waiters.start()
    waiters.write(b"")
    assert end(waiter) == (0, b"")
    assert not waiters.lock.is_symlink()


def test_a_second_waiter_ends_at_once_and_the_first_goes_on(waiters):
    first = waiters.start()
    eventually(waiters.lock.is_symlink, what="the first waiter's lock")
    assert end(waiters.start()) == (0, b"")
    waiters.write(b"for the first")
    assert end(first) == (2, b"for the first\n")


def test_of_many_that_start_at_once_one_waits(waiters):
    started = [waiters.start() for _ in range(6)]
    eventually(lambda: sum(each.poll() == 0 for each in started) == 5, what="five that ended")
    waiters.write(b"mail")
    assert sorted(end(each) for each in started) == [(0, b"")] * 5 + [(2, b"mail\n")]


@pytest.mark.parametrize("entrypoint", [None, "", "sdk-cli", "cli2"])
def test_only_a_terminal_session_is_waited_for(waiters, entrypoint):
    waiters.fifo.unlink()
    assert end(waiters.start(CLAUDE_CODE_ENTRYPOINT=entrypoint)) == (0, b"")
    assert not waiters.slept.exists(), "it did not end at once"


def test_without_a_server_it_gives_up_after_five_seconds(waiters):
    waiters.fifo.unlink()
    assert end(waiters.start()) == (0, b"")
    assert waiters.slept.read_text().count(".") == 50  # a tenth of a second each
    assert "sleep 0.1;" in hooks.waiter("/s")["command"]
    assert not waiters.lock.is_symlink()


def test_a_plain_file_in_the_fifos_place_is_not_read(waiters):
    waiters.fifo.unlink()
    waiters.fifo.write_text("old")
    assert end(waiters.start()) == (0, b"")


def test_a_server_that_starts_later_is_waited_for(waiters):
    waiters.fifo.rename(waiters.fifo.with_name("later"))
    waiters.sleep_does(f'cd "{waiters.bin}/.."/*.d/wake && mv later {CLIENT}')
    waiter = waiters.start()
    waiters.write(b"mail")
    assert end(waiter) == (2, b"mail\n")


def test_the_lock_of_a_waiter_that_is_gone_is_taken_over(waiters):
    gone = subprocess.Popen(["true"])
    gone.wait()
    waiters.lock.symlink_to(str(gone.pid))
    waiter = waiters.start()
    waiters.write(b"mail")
    assert end(waiter) == (2, b"mail\n")


def test_the_lock_of_the_next_waiter_is_left_alone(waiters):
    waiter = waiters.start()
    eventually(waiters.lock.is_symlink, what="the lock")
    waiters.lock.unlink()
    waiters.lock.symlink_to("1")
    waiters.write(b"")
    assert end(waiter) == (0, b"")
    assert os.readlink(waiters.lock) == "1"


def test_a_waiter_that_is_killed_leaves_no_reader_behind(waiters):
    waiter = waiters.start()
    opened = eventually(lambda: waiters.armed() or 0, what="a waiter")
    waiter.terminate()
    waiter.communicate(timeout=20)
    with pytest.raises(BrokenPipeError):
        os.write(opened, b"mail")
    os.close(opened)
    assert waiters.armed() is None


def test_a_client_that_does_not_tell_its_pid_is_the_shells_parent(waiters):
    waiters.fifo.rename(waiters.fifo.with_name(str(os.getpid())))
    waiters.fifo = waiters.fifo.with_name(str(os.getpid()))
    waiter = waiters.start(CLAUDE_PID=None)
    waiters.write(b"mail")
    assert end(waiter) == (2, b"mail\n")
