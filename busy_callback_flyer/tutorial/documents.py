"""What a run emits, in a few words a document."""

from __future__ import annotations

from typing import Any

SHOWN = 6
"""Rows of a page; of a longer one the first and the last."""


def print_document(name: str, document: Any) -> None:
    """Print it: a subscriber for a RunEngine."""
    if name == "descriptor":
        print(
            f"descriptor: the stream {document['name']!r}, keys: {', '.join(sorted(document['data_keys'])) or 'none'}"
        )
    elif name == "event_page":
        keys = sorted(document["data"])
        rows = list(zip(*(document["data"][key] for key in keys), strict=True))
        print(f"event_page: {len(rows)} rows")
        print("  ".join(f"{key:>12}" for key in keys))
        half = SHOWN // 2
        for row in rows if len(rows) <= SHOWN else [*rows[:half], ["…"] * len(keys), *rows[-half:]]:
            print("  ".join(f"{cell:>12}" if isinstance(cell, str) else f"{cell:12.4f}" for cell in row))
    elif name == "stop":
        print(f"stop: {document['exit_status']}")
    else:
        print(name)
