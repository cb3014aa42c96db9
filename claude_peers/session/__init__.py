"""The MCP face: one agent at one end of a pipe."""
