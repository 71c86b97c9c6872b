"""What completion by monitor gains, and what it never does: see README.md."""
