"""What the simulation itself knows of each message, and what must be true of it.

It is kept from outside: from what was durable on the disk, what senders were told, and what
agents were shown. Nothing of it comes from the broker's own counts.
"""

from dataclasses import dataclass, field
from typing import Any

from simulation.disk import done
from simulation.world import World

from claude_peers.core.models import Draft, Receipt, State

OVER = (State.SEEN, State.ANSWERED)


@dataclass
class Letter:
    """One logical message, however often its sender tries.

    Attributes:
        place: the how manieth its sending process has sent to its recipient.
        tries: how often the agent has asked its session to send it.
        doubtful: whether a try had no answer, so that nobody knows what became of it.
        refused: whether a broker said no to all tries, and nobody has tried again since.
        number: the id its sender was told.
        stored: the ids under which it became durable.
        begun: the time at which its agent first asked.
    """

    sender: str
    process: int
    recipient: str
    place: int
    tries: int = 0
    doubtful: bool = False
    refused: bool = False
    number: int | None = None
    stored: list[int] = field(default_factory=list)
    begun: float = 0.0


class Book:
    """All letters by their text, which is unique."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.letters: dict[str, Letter] = {}
        self.texts: dict[int, str] = {}
        self.shown: dict[str, list[tuple[int, str]]] = {}
        self._told: dict[tuple[int, int], list[str]] = {}
        self._untold: set[tuple[int, int]] = set()
        self._last: dict[tuple[int, str], int] = {}
        world.disk.told = self.durable

    # What senders do and learn

    def durable(self, draft: Draft, receipt: Receipt) -> None:
        """Take note of a message that the store has accepted."""
        letter, number = self.letters[draft.text], receipt.message.id
        self.texts[number] = draft.text
        self.world.note(0, f"durable {number}: {draft.text}")
        if letter.stored:
            self.world.violated(f"{draft.text} was accepted twice: {letter.stored} and {number}")
        if letter.refused:
            self.world.violated(f"{draft.text} was refused, and accepted as {number} nevertheless")
        letter.stored.append(number)
        self._in_order(letter, draft.text)

    def _in_order(self, letter: Letter, text: str) -> None:
        # Its sender gave up on it once, or the store did: what was sent beside it went ahead.
        if letter.tries > 1 or letter.begun <= self.world.disk.failed_at:
            return
        pair = (letter.process, letter.recipient)
        if letter.place < self._last.get(pair, -1):
            self.world.violated(f"{text} was overtaken by {self._last[pair]}")
        self._last[pair] = letter.place

    def acknowledged(self, text: str, number: int) -> None:
        """Take note of an ok: from now on it must be there."""
        letter = self.letters[text]
        letter.number = number
        self.world.note(letter.process, f"ok {number}: {text}")
        if number not in letter.stored:
            self.world.violated(f"{text} was acknowledged as {number} and is not durable")

    def refused(self, text: str, why: str) -> None:
        """Take note of a no: it must not be there, ever."""
        letter = self.letters[text]
        letter.refused = not (letter.doubtful or letter.number)
        self.world.note(letter.process, f"refused: {text}: {why}")
        if letter.refused and letter.stored:
            self.world.violated(f"{text} was refused ({why}) and is durable as {letter.stored}")

    def unknown(self, text: str) -> None:
        """Take note that a try had no answer."""
        self.letters[text].doubtful = True
        self.world.note(self.letters[text].process, f"no answer: {text}")

    # What recipients see

    def show(self, agent: str, pid: int, view: dict[str, Any], via: str) -> None:
        """Take note of a text that an agent was shown by one of its processes."""
        number, text = view["id"], view["text"]
        again = bool(view.get("redelivered"))
        self.world.note(pid, f"{via} {number}: {text}{' again' if again else ''}")
        letter = self.letters.get(text)
        if letter is None or self.texts.get(number) != text:
            self.world.violated(f"{pid} was shown {number}, which nobody has sent")
            return
        if letter.recipient != agent:
            self.world.violated(f"{agent} was shown {text}, which is for {letter.recipient}")
        before = self._told.setdefault((pid, number), [])
        # What was pushed is listed by its first line when the agent asks; that is no repetition.
        same = [each for each in before if not (each == "pushed" and via == "taken")]
        if same and not again and (pid, number) not in self._untold:
            self.world.violated(f"{pid} was shown {number} twice, by {before} and {via}")
        before.append(via)
        self.shown.setdefault(text, []).append((pid, via))

    def untold(self, pid: int, ids: list[int]) -> None:
        """Take note that the broker could not be told what became of messages.

        It failed, or there was none for longer than a session waits: then they may come again,
        and the broker does not know that they do.
        """
        self._untold.update((pid, number) for number in ids)

    # In the end

    def undelivered(self) -> list[int]:
        """Return the accepted messages that no agent has seen for sure."""
        history = done(self.world.disk.store.history(limit=len(self.texts) + 1))
        return [message.id for message in history if message.state not in OVER]

    def close(self) -> None:
        """Check that all that was accepted is accounted for."""
        store = self.world.disk.store
        history = done(store.history(limit=len(self.texts) + 10))
        ledger = done(store.ledger())
        found = sorted(message.id for message in history)
        if found != sorted(self.texts) or ledger.accepted != len(self.texts) or ledger.purged:
            self.world.violated(f"accepted {sorted(self.texts)}, found {found}: {ledger}")
        for text, letter in self.letters.items():
            if letter.number is not None and letter.number not in found:
                self.world.violated(f"{text} was acknowledged and is lost")
            if letter.stored and text not in self.shown:
                self.world.violated(f"{text} was accepted and never shown")
