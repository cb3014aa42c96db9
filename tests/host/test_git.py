"""Repositories as git itself sees them, read without running it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import eventually

from claude_peers.host import git, processes
from claude_peers.host.git import Repository

GIT = shutil.which("git")
pytestmark = pytest.mark.skipif(GIT is None, reason="git is not installed")
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def scratch_configuration(monkeypatch, tmp_path):
    """Let git see neither the user's settings nor a repository above the test's folder."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    (tmp_path / "gitconfig").write_text(
        "[user]\nname = Ann\nemail = ann@example.invalid\n"
        '[init]\ndefaultBranch = main\n[protocol "file"]\nallow = always\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


def run(folder: Path, *arguments: object) -> str:
    command = [GIT, "-C", str(folder), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


def commit(folder: Path, **files: str) -> None:
    for name, content in files.items():
        (folder / name).write_text(content)
    run(folder, "add", ".")
    run(folder, "commit", "--quiet", "--allow-empty", "-m", "change")


@pytest.fixture
def repo(tmp_path) -> Path:
    folder = tmp_path / "widget"
    folder.mkdir()
    run(folder, "init", "--quiet")
    commit(folder, first="1")
    return folder


def told_by_git(folder: Path) -> tuple[str, str]:
    common = run(folder, "rev-parse", "--git-common-dir")
    return run(folder, "rev-parse", "--show-toplevel"), os.path.realpath(folder / common)


def test_a_repository_is_known_from_any_folder_in_it(repo):
    inside = repo / "a" / "b"
    inside.mkdir(parents=True)

    for folder in (repo, inside):
        root, common = told_by_git(folder)
        assert git.inspect(str(folder)) == Repository(
            root=root, common_dir=common, branch="main", name="widget"
        )


def test_a_repository_without_a_commit_has_a_branch(tmp_path):
    run(tmp_path, "init", "--quiet", "-b", "new/idea", "empty")

    assert git.inspect(str(tmp_path / "empty")).branch == "new/idea"


def test_a_folder_behind_a_link_has_the_root_git_prints(repo, tmp_path):
    (repo / "src").mkdir()
    (tmp_path / "link").symlink_to(repo / "src")

    found = git.inspect(str(tmp_path / "link"))

    assert found.root == told_by_git(tmp_path / "link")[0] == os.path.realpath(repo)


@pytest.mark.parametrize("branch", ["feature/a.b", "\u00fc", "refs"])
def test_a_branch_is_named_in_full(repo, branch):
    run(repo, "checkout", "--quiet", "-b", branch)

    found = git.inspect(str(repo)).branch

    assert found == branch == run(repo, "rev-parse", "--abbrev-ref", "HEAD")


def test_a_detached_head_is_a_short_commit(repo):
    run(repo, "checkout", "--quiet", "--detach")

    assert git.inspect(str(repo)).branch == run(repo, "rev-parse", "--short", "HEAD")


@pytest.mark.bug("U14")
def test_a_linked_work_tree_shares_the_common_folder_and_the_name(repo, tmp_path):
    tree = tmp_path / "elsewhere"
    run(repo, "worktree", "add", "--quiet", "-b", "side", tree)
    root, common = told_by_git(tree)

    found = git.inspect(str(tree))

    assert found == Repository(root=root, common_dir=common, branch="side", name="widget")
    assert found.common_dir == git.inspect(str(repo)).common_dir


def test_a_submodule_is_a_repository_of_its_own(repo, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    run(other, "init", "--quiet")
    commit(other, file="1")
    run(repo, "submodule", "--quiet", "add", other, "libs/part")
    part = repo / "libs" / "part"
    root, common = told_by_git(part)

    found = git.inspect(str(part))

    assert found == Repository(root=root, common_dir=common, branch="main", name="part")


@pytest.mark.parametrize(
    ("bare", "name"), [("widget/.bare", "widget"), ("widget.git", "widget"), ("plain", "plain")]
)
def test_a_work_tree_of_a_bare_repository_is_named_after_it(repo, tmp_path, bare, name):
    place = tmp_path / "in" / bare
    run(tmp_path, "clone", "--quiet", "--bare", repo, place)
    tree = tmp_path / "tree"
    run(place, "worktree", "add", "--quiet", tree, "main")

    found = git.inspect(str(tree))

    assert (found.root, found.common_dir) == told_by_git(tree)
    assert (found.branch, found.name) == ("main", name)


def test_a_repository_whose_name_starts_with_a_dot_keeps_it(tmp_path):
    run(tmp_path, "init", "--quiet", ".dotfiles")

    assert git.inspect(str(tmp_path / ".dotfiles")).name == ".dotfiles"


def test_a_separate_git_folder_is_followed(tmp_path):
    run(tmp_path, "init", "--quiet", "--separate-git-dir", tmp_path / "store", "work")

    found = git.inspect(str(tmp_path / "work"))

    assert (found.root, found.common_dir) == told_by_git(tmp_path / "work")
    assert found.name == "work"


def test_a_folder_without_a_repository_has_none(tmp_path):
    assert git.inspect(str(tmp_path)) is None
    assert git.inspect(str(tmp_path / "missing" / "folder")) is None
    assert git.inspect("/") is None
    assert git.inspect("nul\0") is None


def test_gits_own_folders_are_no_work_tree(repo, tmp_path):
    run(tmp_path, "clone", "--quiet", "--bare", repo, repo / "bare")

    for folder in (repo / ".git", repo / ".git" / "refs", repo / "bare", repo / "bare" / "refs"):
        assert git.inspect(str(folder)) is None


@pytest.mark.parametrize(
    ("head", "branch"),
    [
        ("ref: refs/heads/.invalid\n", ""),
        ("ref: refs/remotes/origin/x\n", "refs/remotes/origin/x"),
        ("ref: refs/heads/a\r\n", "a"),
        (f"{SHA}\n", "0123456"),
        (f"{SHA[:32] * 2}\n", "0123456"),
        ("nonsense", ""),
        ("", ""),
        (b"ref: refs/heads/\xff", "\ufffd"),
    ],
)
def test_a_head_is_understood_or_left_out(repo, head, branch):
    (repo / ".git" / "HEAD").write_bytes(head if isinstance(head, bytes) else head.encode())

    assert git.inspect(str(repo)).branch == branch


def test_a_head_that_is_a_link_as_of_old_is_understood(repo):
    (repo / ".git" / "HEAD").unlink()
    (repo / ".git" / "HEAD").symlink_to("refs/heads/main")

    assert git.inspect(str(repo)).branch == "main"


@pytest.mark.parametrize("place", [".git/HEAD", ".git/commondir", ".git"])
def test_a_pipe_where_a_file_should_be_holds_nobody_up(repo, place):
    path = repo / place
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    os.mkfifo(path)

    found = git.inspect(str(repo))

    assert found is None or found.branch in ("", "main")


@pytest.mark.parametrize("content", ["", "gitdir: /nowhere", "gitdir: .", "garbage", "x" * 9999])
def test_a_file_that_leads_nowhere_is_no_repository(tmp_path, content):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".git").write_text(content)

    assert git.inspect(str(tmp_path / "work")) is None


def test_a_file_that_may_not_be_read_tells_nothing(repo, monkeypatch):
    def refuse(path: str, flags: int) -> int:
        raise PermissionError

    monkeypatch.setattr(git.os, "open", refuse)

    assert git.inspect(str(repo)).branch == ""


# Recent files


def test_changed_files_come_first_and_each_once(repo):
    commit(repo, second="2")
    commit(repo, third="3", **{"with space": "4"})
    (repo / "first").write_text("changed")
    (repo / "staged").write_text("new")
    run(repo, "add", "staged")
    inside = repo / "sub"
    inside.mkdir()

    found = git.recent_files(str(inside))

    assert found[:2] == ["first", "staged"]
    assert sorted(found) == ["first", "second", "staged", "third", "with space"]


def test_no_more_files_than_asked_for_are_named(repo):
    commit(repo, **{f"f{number:02}": "x" for number in range(30)})

    assert len(git.recent_files(str(repo))) == 10
    assert git.recent_files(str(repo), most=2) == ["f00", "f01"]
    assert git.recent_files(str(repo), most=0) == []


def test_a_repository_without_a_commit_names_no_files(tmp_path):
    run(tmp_path, "init", "--quiet", "empty")

    assert git.recent_files(str(tmp_path / "empty")) == []


def test_a_folder_without_a_repository_names_no_files(tmp_path):
    assert git.recent_files(str(tmp_path)) == []
    assert git.recent_files(str(tmp_path / "missing")) == []
    assert git.recent_files("nul\0") == []


@pytest.mark.parametrize("path", ["", "/nowhere", ".", "bin"])
def test_without_git_there_are_no_files(repo, monkeypatch, path):
    monkeypatch.chdir(repo)
    monkeypatch.setenv("PATH", path)

    assert git.recent_files(str(repo)) == []


def test_a_git_in_the_current_folder_is_not_run(tmp_path, monkeypatch):
    planted = tmp_path / "git.exe"
    planted.touch(0o755)
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join(("", ".", "relative", str(tmp_path / "missing")))

    assert git._program(path, "git.exe") is None
    assert git._program(f"{path}{os.pathsep}{tmp_path}", "git.exe") == str(planted)


def test_the_repositorys_own_programs_are_not_run(repo, tmp_path):
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    for setting in ("core.fsmonitor", "diff.external", "core.pager", "diff.x.textconv"):
        run(repo, "config", setting, trap)
    commit(repo, **{".gitattributes": "* diff=x\n"})
    (tmp_path / "sprung").unlink(missing_ok=True)
    (repo / "first").write_text("changed")

    assert git.recent_files(str(repo))[0] == "first"
    assert not (tmp_path / "sprung").exists()


def test_variables_of_a_git_that_runs_us_do_not_mislead(repo, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))

    assert git.recent_files(str(repo)) == ["first"]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for git")
def test_a_git_that_hangs_is_ended_and_asks_nobody(repo, tmp_path, monkeypatch):
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "git").write_text(
        '#!/bin/sh\necho "$$ $GIT_OPTIONAL_LOCKS $GIT_TERMINAL_PROMPT" >>"${0%/*}/log"\n'
        "read -r line && echo asked\nexec sleep 600\n"
    )
    (slow / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
    monkeypatch.setattr(git, "_TIMEOUT", 0.5)

    assert git.recent_files(str(repo)) == []
    started = [line.split() for line in (slow / "log").read_text().splitlines()]
    assert [line[1:] for line in started][:1] == [["0", "0"]]
    for pid, *_ in started:
        eventually(lambda pid=pid: processes.identify(int(pid)) is None)
