"""A disk that loses its power: replays recorded system calls, and cuts them off anywhere.

The model is a disk that keeps its promises and nothing more: what an fsync of a file covered is
there afterwards, whatever was written since may be there, or not, or in part. A removal is kept
with the next fsync of any file, as journalling file systems do.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

TRACED = "openat,pwrite64,write,fsync,fdatasync,ftruncate,unlink,unlinkat"
_CALL = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)\) += (\d+)")
_BYTE = re.compile(r"\\x([0-9a-f]{2})")
_QUOTED = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_OPEN_FILE = re.compile(r"^(\d+)<([^>]*)>")


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happens to a file: bytes at an offset, or without bytes a new size.

    A size of -1 is the end of the file itself.
    """

    path: str
    at: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Sync:
    """A finished fsync."""

    path: str


@dataclass(frozen=True, slots=True)
class Ack:
    """Somebody was told that a message is accepted."""

    number: int


Event = Change | Sync | Ack
Files = dict[str, bytearray]


@dataclass(slots=True)
class Disk:
    """What is on the disk for certain, and what is on its way."""

    certain: Files = field(default_factory=dict)
    on_way: list[Change] = field(default_factory=list)

    def take(self, event: Change | Sync) -> None:
        """Go on by one event."""
        if isinstance(event, Change):
            self.on_way.append(event)
            return
        kept = [each for each in self.on_way if each.path == event.path or each.at < 0]
        self.on_way = [each for each in self.on_way if each not in kept]
        for change in kept:
            _apply(self.certain, change)

    def cut(self, survives: Callable[[Change], bool]) -> Files:
        """Return the files as they are found when the power is back."""
        files = {path: bytearray(content) for path, content in self.certain.items()}
        for change in filter(survives, self.on_way):
            _apply(files, change)
        return files


def recorded(trace: Path, folder: Path) -> list[Event]:
    """Return what a trace of strace (`-f -y -xx`) tells about the files in `folder`."""
    calls = filter(None, map(_CALL.match, _whole_lines(trace)))
    events = (_event(call[1], call[2], f"{folder}/") for call in calls)
    return [event for event in events if event is not None]


def cuts(events: list[Event], *, seed: int, every: int = 2) -> Iterator[tuple[set[int], Files]]:
    """Cut the power after each acknowledgement and between writes: what was told, what is left."""
    chance = random.Random(seed)
    disk, told = Disk(), set[int]()
    for place, event in enumerate(events):
        if isinstance(event, Ack):
            told.add(event.number)
        else:
            disk.take(event)
        if isinstance(event, Ack) or place % every == 0:
            for survives in (_nothing, _everything, lambda _: chance.random() < 0.5):
                yield set(told), disk.cut(survives)


def _nothing(_: Change) -> bool:
    return False


def _everything(_: Change) -> bool:
    return True


def _apply(files: Files, change: Change) -> None:
    if change.at < 0:
        files.pop(change.path, None)
        return
    content = files.setdefault(change.path, bytearray())
    end = change.at + len(change.data)
    content.extend(bytes(max(0, end - len(content))))
    if change.data:
        content[change.at : end] = change.data
    else:
        del content[change.at :]


def _whole_lines(trace: Path) -> Iterator[str]:
    """Yield each call on one line: those that another thread interrupted are put together."""
    begun: dict[str, str] = {}
    for line in trace.read_text(encoding="ascii", errors="replace").splitlines():
        pid, _, rest = line.partition(" ")
        if rest.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>")
        elif resumed := re.match(r"\s*<\.\.\. \w+ resumed>(.*)", rest):
            yield begun.pop(pid, "") + resumed[1]
        else:
            yield line


def _event(call: str, args: str, folder: str) -> Event | None:
    if call in ("unlink", "unlinkat", "openat"):
        return _named(call, args, _quoted(args).decode(errors="replace"), folder)
    file = _OPEN_FILE.match(args)
    if file is None:
        return None
    if call == "write" and file[1] == "1":
        word, _, number = _quoted(args).decode(errors="replace").partition(" ")
        return Ack(int(number)) if word == "ACK" else None
    path = _BYTE.sub(lambda byte: chr(int(byte[1], 16)), file[2])
    return _written(call, args, path) if path.startswith(folder) else None


def _named(call: str, args: str, path: str, folder: str) -> Change | None:
    """Return what a call does to the file it names: it is removed, or opened and emptied."""
    if not path.startswith(folder) or (call == "openat" and "O_TRUNC" not in args):
        return None
    return Change(path, 0 if call == "openat" else -1)


def _written(call: str, args: str, path: str) -> Change | Sync | None:
    last = args.rpartition(",")[2].strip()
    match call:
        case "pwrite64":
            return Change(path, int(last), _quoted(args))
        case "ftruncate":
            return Change(path, int(last))
        case "fsync" | "fdatasync":
            return Sync(path)
        case _:
            return None


def _quoted(args: str) -> bytes:
    text = _QUOTED.search(args)
    return bytes(int(byte, 16) for byte in _BYTE.findall(text[1])) if text else b""
