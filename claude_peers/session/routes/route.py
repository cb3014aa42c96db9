"""What the session's router may expect of every way to push a text to its agent."""

from typing import Protocol


class Route(Protocol):
    """One way to push text into the agent's session, without its asking.

    A route hands text over; whether the agent saw it is for others to prove. It neither frames nor
    shortens what it is given, and it keeps no copy.
    """

    @property
    def name(self) -> str:
        """How settings and roster call it, the same for ever."""
        ...

    @property
    def available(self) -> bool:
        """Whether a text could be pushed right now; it may be otherwise a moment later.

        Cheap enough to ask before each push: it waits for nobody, and asking changes nothing.
        """
        ...

    async def push(self, text: str) -> bool:
        """Hand over `text`; return True only if every byte of it was.

        False means that it was not pushed and has to go another way; what may be seen of it
        nevertheless is for the implementation to say. It fails in no other way, and its waiting is
        bounded.
        """
        ...

    def close(self) -> None:
        """Leave nothing behind, no file and no process; afterwards the route is not available.

        Closing twice is closing once.
        """
        ...
