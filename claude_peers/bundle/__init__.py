"""What only the single file needs: how it starts, and how it unpacks native code."""
