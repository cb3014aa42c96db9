"""A single file to test, built of a small package and of what this Python has installed.

Nothing is fetched: pip's part in a real build is the subject of test_install.py.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
MAIN = """
import sys

def main():
    exec(sys.argv[1], {})
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes several seconds")


@pytest.fixture(scope="session")
def find_python() -> Callable[[str], str]:
    """Return a function that returns an interpreter of a version, or skips the test."""

    def find(version: str) -> str:
        pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
        found = [shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")]
        for python in map(str, filter(None, found)):
            if not subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
                return python
        pytest.skip(f"there is no Python {version} here")

    return find


def copy_installed(names: Iterable[str], into: Path) -> Path:
    """Copy these distributions, and what they require, out of this Python; return `into`."""
    waiting, seen = [Requirement(name) for name in names], set()
    while waiting:
        wanted = waiting.pop()
        if (key := (wanted.name, frozenset(wanted.extras))) in seen:
            continue
        seen.add(key)
        found = metadata.distribution(wanted.name)
        for file in found.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                (into / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), into / file)
        for required in map(Requirement, found.requires or ()):
            extras = ("", *wanted.extras)
            marker = required.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(required)
    return into


@pytest.fixture(scope="session")
def install() -> Callable[[Iterable[str], Path], Path]:
    return copy_installed


@pytest.fixture(scope="session")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_zipapp", ROOT / "build_zipapp.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tree of a package that does what its first argument says."""
    tree = tmp_path_factory.mktemp("code")
    package = tree / "claude_peers"
    shutil.copytree(ROOT / "claude_peers" / "bundle", package / "bundle")
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(MAIN)
    (package / "late.py").write_text("WORD = 'still here'\n")
    copy_installed(["h11"], tree)
    for facts in tree.glob("*.dist-info"):
        shutil.rmtree(facts)
    return tree


@pytest.fixture(scope="session")
def licenses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("licenses")
    shutil.copy(ROOT / "LICENSE", folder)
    return folder


@pytest.fixture(scope="session")
def psutil_layer(builder, tmp_path_factory: pytest.TempPathFactory):
    tree = tmp_path_factory.mktemp("psutil")
    copy_installed(["psutil"], tree)
    here = builder.probe(sys.executable)
    return builder.Layer(name="psutil", machine=here.machine, python=here, tree=tree)


@pytest.fixture(scope="session")
def content(builder, code: Path, licenses: Path, psutil_layer) -> bytes:
    """Return the file's bytes, compiled for the Python that runs the tests."""
    pythons = [psutil_layer.python]
    return builder.build(code, licenses, pythons=pythons, layers=[psutil_layer])


@pytest.fixture
def pyz(builder, content: bytes, tmp_path: Path) -> Path:
    file = tmp_path / "somewhere" / "claude-peers.pyz"
    builder.write(file, content)
    return file


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return a clean environment with a home and a temporary folder of its own."""
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()
    return {
        "HOME": str(tmp_path / "home"),
        "PATH": os.defpath,
        "TMPDIR": str(tmp_path / "temporary"),
    }


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return the cache folder of `environ`, which is not there yet."""
    return tmp_path / "home" / ".cache" / "claude-peers"


@pytest.fixture
def run(pyz: Path, environ: dict[str, str]) -> Run:
    """Return a function that runs a line of code in the file's process."""

    def start(
        line: str, *, python: str = sys.executable, flags: Iterable[str] = (), **more: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, *flags, str(pyz), line],
            env=environ | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return start
