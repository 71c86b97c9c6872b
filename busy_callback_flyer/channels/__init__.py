"""Ways to reach a record, a file a way."""
