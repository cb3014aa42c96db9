"""What the product does, in terms of two ports: Store and Transport."""
