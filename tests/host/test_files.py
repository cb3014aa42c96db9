"""Files of this user alone: made so, kept so, and refused where somebody else has a hand in it."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_peers.core.errors import StoreError
from claude_peers.host import files

ROOT = Path(__file__).parents[2]
ASK = """
import sys
from claude_peers.host import files
sys.stdin.read()
print(files.secret(sys.argv[1]).hex())
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0o000, 0o002, 0o022, 0o077, 0o777], ids=oct)
def umask(request, tmp_path) -> Iterator[int]:  # the folder is made under an ordinary one
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def foreign(monkeypatch) -> None:
    """Let everything belong to another user."""
    uid = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: uid)


@pytest.fixture
def unchangeable(monkeypatch) -> None:
    """Let permissions stay as they are, as on a file system without them."""
    monkeypatch.setattr(os, "chmod", lambda path, mode: None)


@pytest.fixture
def no_links(monkeypatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)


# Folders


def test_a_folder_and_its_parents_are_private_under_any_umask(umask, tmp_path):
    folder = tmp_path / "a" / "b" / "c.d"

    files.private_folder(str(folder))

    assert [mode(each) for each in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3


@pytest.mark.parametrize("before", [0o777, 0o755, 0o500, 0o700, 0o2770])
def test_a_folder_that_is_there_becomes_private(tmp_path, before):
    folder = tmp_path / "state.d"
    folder.mkdir()
    folder.chmod(before)

    files.private_folder(f"{folder}/")

    assert mode(folder) == 0o700


def test_a_folder_keeps_what_is_in_it(tmp_path):
    (tmp_path / "kept").write_text("x")

    files.private_folder(str(tmp_path))

    assert (tmp_path / "kept").read_text() == "x"


@pytest.mark.parametrize("end", ["", "/"])
def test_a_folder_behind_a_link_is_refused_and_left_alone(tmp_path, end):
    target = tmp_path / "target"
    target.mkdir(mode=0o755)
    link = tmp_path / "state.d"
    link.symlink_to(target)

    with pytest.raises(StoreError, match=r"symbolic link\. Remove the link"):
        files.private_folder(f"{link}{end}")
    assert mode(target) == 0o755


def test_a_link_that_leads_nowhere_is_refused_too(tmp_path):
    (tmp_path / "state.d").symlink_to(tmp_path / "nothing")

    with pytest.raises(StoreError, match="symbolic link"):
        files.private_folder(str(tmp_path / "state.d"))
    assert not (tmp_path / "nothing").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "state.d").touch()

    with pytest.raises(StoreError, match="or move it away"):
        files.private_folder(str(tmp_path / "state.d"))


@pytest.mark.usefixtures("foreign")
def test_another_users_folder_is_refused(tmp_path):
    before = mode(tmp_path)

    with pytest.raises(StoreError, match=r"belongs to user \d+ and not to you\. Remove it"):
        files.private_folder(str(tmp_path))
    assert mode(tmp_path) == before


@pytest.mark.usefixtures("unchangeable")
def test_a_folder_that_others_can_always_write_to_is_refused(tmp_path):
    os.mkdir(tmp_path / "open")
    os.system(f"chmod 777 {tmp_path}/open")

    with pytest.raises(StoreError, match=r"Others may write .* CLAUDE_PEERS_DB"):
        files.private_folder(str(tmp_path / "open"))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_folder_below_one_that_no_system_can_make_is_explained():
    with pytest.raises(StoreError, match=r"/proc/x/y cannot be used: No such file"):
        files.private_folder("/proc/x/y")


def test_only_a_full_disk_passes_by_itself(tmp_path, monkeypatch):
    def refuse(number: int):
        def mkdir(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return mkdir

    told = []
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        monkeypatch.setattr(os, "mkdir", refuse(number))
        with pytest.raises(StoreError) as caught:
            files.private_folder(str(tmp_path / "x"))
        told.append(caught.value.retry_after)
    assert told == [1.0, 1.0, None, None]


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match=r"cannot be used: .*Make its folder yours"):
        files.private_folder(str(tmp_path / "file" / "state.d"))


# Files


def test_a_missing_file_is_created_empty_under_any_umask(umask, tmp_path):
    path = tmp_path / "peers.db"

    files.private_file(str(path))

    assert path.read_bytes() == b""
    assert mode(path) == 0o600


def test_a_file_that_is_there_becomes_private_and_keeps_its_bytes(tmp_path):
    path = tmp_path / "peers.db"
    path.write_bytes(b"rows")
    path.chmod(0o644)

    files.private_file(str(path))

    assert path.read_bytes() == b"rows"
    assert mode(path) == 0o600


def test_a_file_that_is_there_is_not_opened_so_that_its_locks_stay(tmp_path):
    path = tmp_path / "peers.db"
    path.write_bytes(b"rows")
    path.chmod(0o644)
    code = (
        "import fcntl, sys\n"
        "with open(sys.argv[1], 'r+b') as file:\n"
        "    try:\n"
        "        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    except OSError:\n"
        "        print('locked')\n"
    )
    with path.open("r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)

        files.private_file(str(path))

        told = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True)
    assert told.stdout == b"locked\n"


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.threat("T33")
def test_a_planted_link_is_refused_and_its_target_left_alone(tmp_path, there):
    target = tmp_path / "target"
    if there:
        target.write_bytes(b"precious")
        target.chmod(0o644)
    link = tmp_path / "peers.db"
    link.symlink_to(target)

    with pytest.raises(StoreError, match="symbolic link"):
        files.private_file(str(link))
    with pytest.raises(StoreError, match="symbolic link"):
        files.read_private(str(link))
    assert target.exists() is there
    if there:
        assert target.read_bytes() == b"precious"
        assert mode(target) == 0o644


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path, kind):
    path = tmp_path / "peers.db"
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)

    with pytest.raises(StoreError, match="or move it away"):
        files.private_file(str(path))
    with pytest.raises(StoreError, match="or move it away"):
        files.read_private(str(path))


@pytest.mark.usefixtures("foreign")
@pytest.mark.threat("T33")
def test_another_users_file_is_refused(tmp_path):
    path = tmp_path / "peers.db"
    path.touch(0o600)

    with pytest.raises(StoreError, match="not to you"):
        files.private_file(str(path))
    with pytest.raises(StoreError, match="not to you"):
        files.read_private(str(path))


@pytest.mark.usefixtures("unchangeable")
def test_a_file_that_others_can_always_read_is_refused(tmp_path):
    path = tmp_path / "peers.db"
    path.touch()
    os.system(f"chmod 644 {path}")

    with pytest.raises(StoreError, match=r"Others may read .*chmod 600"):
        files.private_file(str(path))


# Reading and writing


def test_what_is_written_is_read_under_any_umask(umask, tmp_path):
    path = tmp_path / "runtime"

    files.write_private(str(path), b"one")
    files.write_private(str(path), b"two")

    assert files.read_private(str(path)) == b"two"
    assert mode(path) == 0o600
    assert os.listdir(tmp_path) == ["runtime"]


def test_writing_replaces_a_link_and_not_its_target(tmp_path):
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "runtime").symlink_to(tmp_path / "target")

    files.write_private(str(tmp_path / "runtime"), b"new")

    assert (tmp_path / "target").read_bytes() == b"precious"
    assert files.read_private(str(tmp_path / "runtime")) == b"new"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "runtime"
    files.write_private(str(path), b"old")
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StoreError, match=r"No space left on device\. Free some space"):
        files.write_private(str(path), b"new")
    assert files.read_private(str(path)) == b"old"
    assert os.listdir(tmp_path) == ["runtime"]


def test_a_write_is_on_disk_before_it_takes_the_place(tmp_path, monkeypatch):
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("replace"), replace(*names)))

    files.write_private(str(tmp_path / "runtime"), b"x")

    assert steps == ["fsync", "replace"]


def test_a_file_that_is_not_there_reads_as_nothing(tmp_path):
    assert files.read_private(str(tmp_path / "runtime")) is None


@pytest.mark.parametrize("others", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_read_is_not_believed(tmp_path, others):
    path = tmp_path / "runtime"
    path.write_bytes(b"x")
    path.chmod(others)

    with pytest.raises(StoreError, match=f"Run `chmod 600 {path}`"):
        files.read_private(str(path))


@pytest.mark.threat("T33")
def test_a_link_that_is_planted_at_the_last_moment_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "target").touch(0o600)
    (tmp_path / "runtime").symlink_to(tmp_path / "target")
    monkeypatch.setattr(os, "lstat", lambda path: os.stat(tmp_path / "target"))

    with pytest.raises(StoreError, match="cannot be used"):
        files.read_private(str(tmp_path / "runtime"))


# The secret


def test_the_secret_is_made_once_and_is_private(umask, tmp_path):
    made = files.secret(str(tmp_path))

    assert len(made) == 32
    assert files.secret(str(tmp_path)) == made
    assert (tmp_path / "secret").read_text() == made.hex()
    assert mode(tmp_path / "secret") == 0o600
    assert os.listdir(tmp_path) == ["secret"]


def test_two_users_secrets_differ(tmp_path):
    for name in ("a", "b"):
        files.private_folder(str(tmp_path / name))

    assert files.secret(str(tmp_path / "a")) != files.secret(str(tmp_path / "b"))


def test_processes_that_start_at_once_agree_on_the_secret(tmp_path):
    command = [sys.executable, "-c", ASK, str(tmp_path)]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        for _ in range(12)
    ]
    for child in children:
        child.stdin.close()
    told = set()
    for child in children:
        told.add(child.stdout.read())
        child.stdout.close()
        assert child.wait() == 0

    assert told == {files.secret(str(tmp_path)).hex().encode() + b"\n"}
    assert os.listdir(tmp_path) == ["secret"]


def test_the_slower_of_two_takes_the_winners_secret(tmp_path, monkeypatch):
    link, winner = os.link, "ab" * 32

    def slow(source: str, target: str) -> None:
        if not os.path.exists(target):
            files.write_private(target, winner.encode())
        link(source, target)

    monkeypatch.setattr(os, "link", slow)

    assert files.secret(str(tmp_path)) == bytes.fromhex(winner)
    assert os.listdir(tmp_path) == ["secret"]


@pytest.mark.usefixtures("no_links")
def test_where_links_are_unknown_there_is_a_secret_all_the_same(tmp_path):
    made = files.secret(str(tmp_path))

    assert files.secret(str(tmp_path)) == made
    assert os.listdir(tmp_path) == ["secret"]


def test_an_unfinished_secret_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    files.private_file(str(path))
    pauses: list[float] = []

    def finish(seconds: float) -> None:
        pauses.append(seconds)
        path.write_text("cd" * 32)

    monkeypatch.setattr(files.time, "sleep", finish)

    assert files.secret(str(tmp_path)) == b"\xcd" * 32
    assert len(pauses) == 1


@pytest.mark.parametrize("content", [b"", b"short", b"z" * 64, b"\xff" * 64, b"a" * 65])
def test_a_damaged_secret_is_named_with_its_remedy(tmp_path, monkeypatch, content):
    monkeypatch.setattr(files, "_PAUSE", 0)
    files.write_private(str(tmp_path / "secret"), content)

    with pytest.raises(StoreError, match=r"holds no secret\. Delete it"):
        files.secret(str(tmp_path))
    assert (tmp_path / "secret").read_bytes() == content


def test_a_planted_secret_is_refused(tmp_path):
    (tmp_path / "theirs").write_text("ab" * 32)
    (tmp_path / "secret").symlink_to(tmp_path / "theirs")

    with pytest.raises(StoreError, match="symbolic link"):
        files.secret(str(tmp_path))


def test_a_secret_in_a_folder_that_is_missing_is_explained(tmp_path):
    with pytest.raises(StoreError, match="cannot be used"):
        files.secret(str(tmp_path / "missing"))


# Locks


def test_a_lock_is_seen_while_somebody_holds_it(tmp_path):
    path = tmp_path / "broker.lock"
    assert not files.is_locked(str(path))
    assert not path.exists()

    with path.open("w") as holder:
        assert not files.is_locked(str(path))
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert files.is_locked(str(path))
    assert not files.is_locked(str(path))


def test_looking_at_a_lock_does_not_keep_it(tmp_path):
    path = tmp_path / "broker.lock"
    with path.open("w") as holder:
        assert not files.is_locked(str(path))
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_that_cannot_be_asked_for_counts_as_free(tmp_path, monkeypatch):
    def refuse(fd: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    (tmp_path / "broker.lock").touch()
    monkeypatch.setattr(fcntl, "flock", refuse)

    assert not files.is_locked(str(tmp_path / "broker.lock"))


# Systems without permissions


@pytest.mark.usefixtures("foreign")
def test_where_files_have_no_permissions_they_are_not_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PERMISSIONS", False)
    folder = tmp_path / "state.d"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "old").write_bytes(b"x")

    files.private_folder(str(folder))
    files.private_folder(str(folder / "new"))
    files.private_file(str(folder / "old"))
    files.private_file(str(folder / "new.db"))

    assert mode(folder) == 0o755
    assert files.read_private(str(folder / "old")) == b"x"
    assert files.secret(str(folder)) == files.secret(str(folder))


def test_where_files_have_no_permissions_a_link_is_refused_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PERMISSIONS", False)
    (tmp_path / "secret").symlink_to(tmp_path / "theirs")

    with pytest.raises(StoreError, match="symbolic link"):
        files.secret(str(tmp_path))
