"""Texts of records, which bear no encoding."""

from __future__ import annotations


def decoded(text: bytes) -> str:
    """Decode what a record holds, up to its end: UTF-8, else Latin-1. A UTF-8 character that was cut off is dropped."""
    text = text.split(b"\0")[0]
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        whole = text[: error.start].decode()
        cut_off = error.reason == "unexpected end of data" and not whole.isascii()
        return whole if cut_off else text.decode("latin-1")
