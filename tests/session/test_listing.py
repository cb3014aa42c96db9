"""What the list of tools tells a client beyond their arguments."""

import pytest
from support.machine import Machine


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
def test_each_tool_says_that_it_destroys_nothing_and_stays_among_the_users_agents(
    machine: Machine,
):
    hints = {each["name"]: each["annotations"] for each in machine.session().list_tools()}

    assert "send_message" in hints
    assert all(
        (each["destructiveHint"], each["openWorldHint"]) == (False, False)
        for each in hints.values()
    )
