"""Coding agents find each other and talk: one MCP server that is also the broker."""

__version__ = "0.1.0"
