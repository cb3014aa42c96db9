"""What travels: bodies, frames and the oddities of other implementations."""
