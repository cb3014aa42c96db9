"""Whatever a test does to a session, no message that came may be missing afterwards."""

from collections.abc import Iterator

import pytest
from support.rig import Rig


@pytest.fixture(autouse=True)
def accounted_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in whose sessions a message is neither unread nor acknowledged."""
    made: list[Rig] = []
    begin = Rig.__init__

    def noted(rig: Rig, *given: object, **named: object) -> None:
        begin(rig, *given, **named)  # type: ignore[arg-type]  # whatever a rig takes
        made.append(rig)

    with monkeypatch.context() as watched:
        watched.setattr(Rig, "__init__", noted)
        yield
    for rig in made:
        assert not rig.missing, rig.missing
