"""Replaying recorded conversations: what was sent goes out again, what came back is compared.

A recording has placeholders where values differ from run to run. The first answer that holds one
binds it, every later one must hold the same. Ours may say more than the recording (extra keys of
an object), never less and never something else.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.http import Response, post, request

FOLDER = Path(__file__).parents[1] / "golden"
BIG = "0123456789abcdef" * 6400
SHAPES = {
    "id": "[a-z0-9]{8}",
    "pid": r"\d+",
    "mid": r"\d+",
    "dlid": r"\d+",
    "token": r"[^\s\"]+",
    "ts": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
    "cwd": r"[^\s:]+",
    "port": r"\d+",
    "sig": "[0-9a-f]{64}",
    "any": ".*",
}
_PLACEHOLDER = re.compile(rf"<(?:({'|'.join(SHAPES)})(?::\w+)?|big:\d+:[0-9a-f]+)>")
_BARE = re.compile(r"(?<=[:\[,])(<(?:pid|mid|dlid):\w+>)")
_BARE_VALUE = re.compile(r"<(?:pid|mid|dlid):\w+>")


@dataclass(frozen=True, slots=True)
class Difference:
    """What we answer instead, on purpose.

    Attributes:
        reason: why; a reader who knows upstream asks.
        body: our answer in the recording's notation; empty where only the status is promised.
        undo: our broker has one peer more than upstream's from here on: take it away again,
            because later answers of the recording do not show it.
    """

    status: int
    reason: str
    body: str = ""
    undo: bool = False


@dataclass(slots=True)
class Bindings:
    """What the placeholders stand for in this run."""

    values: dict[str, str] = field(default_factory=dict)

    def fill(self, text: str) -> str:
        """Return `text` with every placeholder replaced by its value."""
        return _PLACEHOLDER.sub(lambda found: self._value(found[0]), text)

    def differences(self, wanted: Any, given: Any, where: str = "$") -> Iterator[str]:
        """Yield where `given` lacks or contradicts `wanted`; bind what is seen first."""
        match wanted:
            case dict() if isinstance(given, dict):
                yield from self._fields(wanted, given, where)
            case list() if isinstance(given, list) and len(wanted) == len(given):
                for place, (value, other) in enumerate(zip(wanted, given, strict=True)):
                    yield from self.differences(value, other, f"{where}[{place}]")
            case str() if self._text(wanted, given):
                pass
            case _ if type(wanted) is not type(given) or wanted != given:
                yield f"{where} is {_brief(given)}, recorded {self._known(_brief(wanted))}"

    def matches(self, wanted: str, given: str) -> bool:
        """Return whether `given` is `wanted` with its placeholders filled; bind the new ones."""
        names: list[str] = []
        parts, last = [], 0
        for found in _PLACEHOLDER.finditer(wanted):
            parts.append(re.escape(wanted[last : found.start()]))
            parts.append(self._pattern(found, names))
            last = found.end()
        parts.append(re.escape(wanted[last:]))
        result = re.fullmatch("".join(parts), given, re.DOTALL)
        if result is not None:
            self.values.update(zip(names, result.groups(), strict=True))
        return result is not None

    def _fields(self, wanted: dict[str, Any], given: dict[str, Any], where: str) -> Iterator[str]:
        for name, value in wanted.items():
            if name in given:
                yield from self.differences(value, given[name], f"{where}.{name}")
            else:
                yield f"{where}.{name} is missing"

    def _text(self, wanted: str, given: Any) -> bool:
        if _BARE_VALUE.fullmatch(wanted):
            return type(given) is int and self.matches(wanted, str(given))
        return isinstance(given, str) and self.matches(wanted, given)

    def _pattern(self, found: re.Match[str], names: list[str]) -> str:
        name, kind = found[0], found[1]
        if kind is None or name in self.values:
            return re.escape(self._value(name))
        if ":" not in name:
            return SHAPES[kind]
        if name in names:
            return rf"\{names.index(name) + 1}"
        names.append(name)
        return f"({SHAPES[kind]})"

    def _known(self, text: str) -> str:
        return _PLACEHOLDER.sub(
            lambda found: self.values.get(found[0], found[0]) if found[1] else found[0], text
        )

    def _value(self, name: str) -> str:
        return BIG if name.startswith("<big:") else self.values[name]


def load(name: str) -> list[dict[str, Any]]:
    """Return the lines of a recording."""
    text = (FOLDER / name).read_text("ascii")
    return [json.loads(line) for line in text.splitlines()]


def session(recording: str, name: str) -> list[dict[str, Any]]:
    """Return the lines of one session of a recording, of which there are some."""
    lines = [each for each in load(recording) if each["session"] == name]
    assert lines, f"{recording} has no session {name}"
    return lines


def parse(text: str) -> Any:
    """Return a recorded JSON text, bare placeholders as strings."""
    return json.loads(_BARE.sub(r'"\1"', text))


def _brief(value: Any) -> str:
    return json.dumps(value).replace(BIG, "<big>")[:600]


@dataclass(slots=True, kw_only=True)
class Replay:
    """One conversation with a broker.

    Attributes:
        before: what else happens in the world just before a case.
    """

    port: int
    bindings: Bindings
    deliberate: Mapping[str, Difference] = field(default_factory=dict)
    before: Mapping[str, Callable[[], object]] = field(default_factory=dict)

    def complaints(self, recordings: Iterable[dict[str, Any]]) -> list[str]:
        """Replay everything and return what came out otherwise than agreed."""
        return [
            f"{each['case']}: {complaint}" for each in recordings for complaint in self._step(each)
        ]

    def send(self, recorded: dict[str, Any]) -> Response:
        """Send one recorded request."""
        fill = self.bindings.fill
        body = b""
        if "body_b64" in recorded:
            body = base64.b64decode(recorded["body_b64"])
        elif recorded["body_text"]:
            body = fill(recorded["body_text"]).encode()
        headers = {
            name: fill(value)
            for name, value in recorded["headers"].items()
            if name.lower() not in {"host", "content-length"}
        }
        path = fill(recorded["path"])
        return request(self.port, recorded["method"], path, body=body, headers=headers)

    def _step(self, each: dict[str, Any]) -> list[str]:
        self.before.get(each["case"], lambda: None)()
        ours = self.send(each["request"])
        if each["request"]["path"] == "/register":
            for found in _PLACEHOLDER.finditer(each["response"]["body_text"]):
                self.bindings.values.pop(found[0], None)
        agreed = self.deliberate.get(each["case"])
        if agreed is None:
            return self._compare(each["response"], ours)
        if agreed.undo and not self._undo(ours):
            return ["should have left a peer behind"]
        if not agreed.undo and not self._compare(each["response"], ours):
            return ["is listed as a difference but answers as recorded"]
        return self._agreed(agreed, ours)

    def _compare(self, recorded: dict[str, Any], ours: Response) -> list[str]:
        if recorded["status"] != ours.status:
            return [f"status {ours.status}, recorded {recorded['status']}: {ours.body[:300]!r}"]
        kind, wanted = ours.headers.get("content-type"), recorded["headers"].get("content-type")
        if kind != wanted:
            return [f"content-type {kind}, recorded {wanted}"]
        return self._bodies(recorded["body_text"], ours)

    def _agreed(self, agreed: Difference, ours: Response) -> list[str]:
        if ours.status != agreed.status:
            return [f"status {ours.status}, agreed {agreed.status}: {ours.body[:300]!r}"]
        return self._bodies(agreed.body, ours) if agreed.body else []

    def _bodies(self, wanted: str, ours: Response) -> list[str]:
        if "json" not in ours.headers.get("content-type", "") or not wanted:
            return list(self.bindings.differences(wanted, ours.text))
        return list(self.bindings.differences(parse(wanted), ours.json()))

    def _undo(self, ours: Response) -> bool:
        """Take away the peer that `ours` is about; return whether it was there."""
        peer_id = ours.json().get("id", "")
        listed = post(self.port, "/list-peers", {"scope": "machine"}).json()
        post(self.port, "/unregister", {"id": peer_id})
        return peer_id in [each["id"] for each in listed]
