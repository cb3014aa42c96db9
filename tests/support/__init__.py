"""What tests drive the product with, from outside: processes, MCP over stdio, raw HTTP."""
