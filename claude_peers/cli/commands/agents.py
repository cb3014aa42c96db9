"""List the peers of this machine, as agentmesh's command of that name does."""

from claude_peers.cli.commands import peers

arguments = peers.arguments
run = peers.run
