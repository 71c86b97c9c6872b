"""Texts of records, which bear no encoding."""

from __future__ import annotations


def decoded(text: bytes) -> str:
    """Decode what a record holds, up to its end: UTF-8, else Latin-1."""
    text = text.split(b"\0")[0]
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
