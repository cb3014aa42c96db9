"""Builds the single file that runs claude-peers: `python3 build_zipapp.py`.

The file is a zip behind a `#!` line. In it lie

- `__main__.py`: finds a Python that is new enough and starts us (see `claude_peers/bundle/`);
- `py311/`, `py312/` ...: our code and the dependencies without native parts, compiled for each
  Python found here, so that nothing is compiled or unpacked when it starts;
- `src/`: the same as sources, for every other Python;
- `layers/`: what has native parts, one zip for each platform and Python, and its files' hashes;
- `licenses/`: what the authors of the dependencies ask to be passed on.

It needs Python 3.11 and pip, nothing else. Two builds with the same Pythons and the same versions
of the dependencies give the same bytes.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from claude_peers.bundle.layers import manifest
from claude_peers.bundle.start import FILE, UNBUILT, build_id
from claude_peers.bundle.stub import MAIN

ROOT = Path(__file__).resolve().parent
SUPPORTED = range(11, 15)
LAYERS = {"psutil": ("psutil",), "sdk": ("mcp", "cryptography")}  # layer: its requirements
# The systems that need psutil, with what its wheels call them: a file built here runs there too.
APPLE = {"macosx_arm64": "macosx_11_0_arm64", "macosx_x86_64": "macosx_10_9_x86_64"}
ELSEWHERE = APPLE | {"win_amd64": "win_amd64"}
UNWANTED = {"__pycache__", "RECORD", "REQUESTED", "INSTALLER", "direct_url.json", "py.typed"}

COMPILE = """
import pathlib, py_compile, sys
tree, target = map(pathlib.Path, sys.argv[1:])
for source in sorted(tree.rglob("*.py")):
    name = source.relative_to(tree)
    py_compile.compile(
        source, target / name.with_suffix(".pyc"), name.as_posix(), doraise=True, optimize=0,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
"""
PROBE = """
import importlib.util, sys
sys.path.insert(0, sys.argv[1])
from claude_peers.bundle.layers import machine_tag
print(importlib.util.MAGIC_NUMBER.hex(), machine_tag())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    """An interpreter to compile with.

    Attributes:
        magic: what its compiled files begin with, in hexadecimal.
        machine: the platform and Python its native modules are for.
    """

    executable: str
    minor: int
    magic: str
    machine: str

    @property
    def folder(self) -> str:
        """The folder in the file for code it compiled."""
        return f"py3{self.minor}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A tree of installed packages that has to be unpacked to be imported."""

    name: str
    machine: str
    python: Python
    tree: Path


def run(*command: str) -> str:
    """Return what `command` prints, run without the user's Python settings."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    environ |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    return done.stdout


def probe(executable: str) -> Python | None:
    """Return the interpreter behind `executable` if it works and is one we support."""
    try:
        magic, machine = run(executable, "-c", PROBE, str(ROOT)).split()
        minor = int(re.findall(r"-py3(\d+)", machine)[0])
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None
    python = Python(executable=executable, minor=minor, magic=magic, machine=machine)
    return python if minor in SUPPORTED else None


def find_pythons(named: Iterable[str]) -> list[Python]:
    """Return this interpreter, the named ones, and for every other version one from PATH."""
    found: dict[int, Python] = {}
    on_path = [path for minor in SUPPORTED if (path := shutil.which(f"python3.{minor}"))]
    for executable in (sys.executable, *named, *on_path):
        if python := probe(executable):
            found.setdefault(python.minor, python)
        elif executable not in on_path:  # what is on the PATH may be a stub of pyenv
            raise SystemExit(f"{executable} is not a CPython 3.11 to 3.14 that works")
    return list(found.values())


def fetched(
    python: Python, requirements: Iterable[str], into: Path, *options: str, required: bool = True
) -> bool:
    """Install `requirements` into the folder `into`, as pip is configured.

    Where that fails and is not required, say so and return False: the file serves without.
    """
    pip = [sys.executable, "-m", "pip"]
    if python.executable != sys.executable:
        pip += ["--python", python.executable]
    target = ("--no-user", "--no-compile", "--target", str(into))
    try:
        run(*pip, "install", "--quiet", *target, *options, *requirements)
    except subprocess.CalledProcessError as error:
        if required:
            raise
        print(f"left out {into.name}, because pip says:\n{error.stderr}", file=sys.stderr)
        return False
    for commands in ("bin", "Scripts"):
        shutil.rmtree(into / commands, ignore_errors=True)
    return True


def read_requirements(root: Path) -> dict[str, str]:
    """Return the requirements in pyproject.toml by name."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return {re.split(r"[^\w.-]", line)[0]: line for line in project["dependencies"]}


def gather(root: Path, requirements: Mapping[str, str], python: Python, work: Path) -> Path:
    """Return a folder with the package and the dependencies that have no native parts.

    Their licenses and versions are left beside it.
    """
    code, licenses = work / "code", work / "licenses"
    layered = {name for names in LAYERS.values() for name in names}
    fetched(python, [text for name, text in requirements.items() if name not in layered], code)
    versions = []
    for facts in sorted(code.glob("*.dist-info")):
        versions.append(facts.name.removesuffix(".dist-info").replace("-", "==", 1))
        (licenses / facts.stem).mkdir(parents=True)
        for text in (path for path in facts.rglob("*") if re.match("LICEN|COPYING", path.name)):
            shutil.copy(text, licenses / facts.stem)
        shutil.rmtree(facts)
    if native := [path.name for path in code.rglob("*") if path.suffix in {".so", ".pyd"}]:
        raise SystemExit(f"{native} cannot be imported from a zip: give their package a layer")
    (work / "versions").write_text("\n".join(versions), "utf-8")
    shutil.copytree(root / "claude_peers", code / "claude_peers")
    shutil.copy(root / "LICENSE", licenses)
    return code


def layers_here(
    requirements: Mapping[str, str], pythons: Sequence[Python], work: Path, *, sdk: bool
) -> Iterator[Layer]:
    """Fetch what has native parts, for this system and the Pythons found."""
    same = ("--constraint", str(work / "versions"))
    for name in LAYERS if sdk else ["psutil"]:
        texts = [requirements[each] for each in LAYERS[name]]
        for python in pythons:
            tree = work / f"{name}-{python.machine}"
            if fetched(python, texts, tree, *same, required=python is pythons[0]):
                yield Layer(name=name, machine=python.machine, python=python, tree=tree)


def layers_elsewhere(requirement: str, pythons: Sequence[Python], work: Path) -> Iterator[Layer]:
    """Fetch psutil for other systems; its native part fits every Python there."""
    for system, platform in ELSEWHERE.items():
        tree = work / f"psutil-{system}"
        wheel = ("--platform", platform, "--only-binary=:all:", "--no-deps")
        here = pythons[0].machine.startswith(system)
        if not here and fetched(pythons[0], [requirement], tree, *wheel, required=False):
            for each in pythons:
                machine = f"{system}-{each.folder}"
                yield Layer(name="psutil", machine=machine, python=each, tree=tree)


def files(tree: Path, *, sources: bool) -> dict[str, bytes]:
    """Return what is of use under `tree`, with or without Python's sources."""
    useless = {".pyi"} if sources else {".pyi", ".py"}
    return {
        path.relative_to(tree).as_posix(): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file()
        and path.suffix not in useless
        and not UNWANTED.intersection(path.relative_to(tree).parts)
    }


def compiled(python: Python, tree: Path) -> dict[str, bytes]:
    """Return the useful files under `tree`, with compiled code in place of the sources."""
    with TemporaryDirectory() as target:
        run(python.executable, "-c", COMPILE, str(tree), target)
        code = files(Path(target), sources=True)
    return files(tree, sources=False) | code


def under(folder: str, entries: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return `entries` as they lie in `folder`."""
    return {f"{folder}/{name}": content for name, content in entries.items()}


def zipped(entries: Mapping[str, bytes], head: bytes = b"") -> bytes:
    """Return a zip of `entries` behind `head`, the same bytes each time."""
    buffer = BytesIO()
    buffer.write(head)
    with ZipFile(buffer, "w") as archive:
        for name in sorted(entries):
            info = ZipInfo(name)  # dated 1980
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = 0o100644 << 16
            info.compress_type = ZIP_STORED if name.endswith(".zip") else ZIP_DEFLATED
            archive.writestr(info, entries[name], compresslevel=9)
    return buffer.getvalue()


def build(
    code: Path, licenses: Path, *, pythons: Iterable[Python], layers: Iterable[Layer]
) -> bytes:
    """Return the single file's content."""
    entries = under("src", files(code, sources=True))
    entries |= under("licenses", files(licenses, sources=True))
    for python in pythons:
        entries |= under(python.folder, compiled(python, code))
    modules = {"mcp": "sdk", "psutil": "psutil"}
    own = {path.stem for path in code.iterdir()}  # these come from the file, not from a layer
    for layer in layers:
        content = compiled(layer.python, layer.tree)
        tops = {name: re.split("[/.]", name)[0] for name in content}
        content = {name: data for name, data in content.items() if tops[name] not in own}
        modules |= {tops[name]: layer.name for name in content if tops[name].isidentifier()}
        stem = f"layers/{layer.name}-{layer.machine}"
        hashes = {name: sha256(data).hexdigest() for name, data in content.items()}
        entries[f"{stem}.sha256"] = manifest(hashes).encode()
        entries[f"{stem}.zip"] = zipped(content)
    main = MAIN.replace("@LAYERS@", repr(dict(sorted(modules.items())))).replace("@BUILD@", UNBUILT)
    main = main.replace("@CODE@", repr({python.magic: python.folder for python in pythons}))
    entries["__main__.py"] = main.encode()
    entries["__main__.py"] = main.replace(UNBUILT, build_id(entries)).encode()
    return zipped(entries, b"#!/usr/bin/env python3\n")


def write(output: Path, content: bytes) -> None:
    """Put the finished file in place in one step, for it may be running."""
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = output.with_name(f"{output.name}.new")
    fresh.write_bytes(content)
    fresh.chmod(0o755)
    fresh.replace(output)


def main() -> None:
    """Build the file as the command line asks."""
    parser = argparse.ArgumentParser(description="Build the single file that runs claude-peers.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / FILE)
    parser.add_argument("--no-sdk", action="store_true", help="leave out the MCP SDK")
    parser.add_argument("--python", action="append", default=[], help="compile for it as well")
    asked = parser.parse_args()
    pythons = find_pythons(asked.python)
    requirements = read_requirements(ROOT)
    with TemporaryDirectory() as folder:
        work = Path(folder)
        try:
            code = gather(ROOT, requirements, pythons[0], work)
            layers = [
                *layers_here(requirements, pythons, work, sdk=not asked.no_sdk),
                *layers_elsewhere(requirements["psutil"], pythons, work),
            ]
            content = build(code, work / "licenses", pythons=pythons, layers=layers)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{error}\n{error.stdout}{error.stderr}") from None
    write(asked.output, content)
    print(f"{asked.output}: {len(content) / 2**20:.1f} MiB for", *(each.folder for each in pythons))


if __name__ == "__main__":
    main()
