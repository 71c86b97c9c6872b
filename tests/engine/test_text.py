"""Texts without an encoding: what is a letter stays one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busy_callback_flyer.engine.text import decoded


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.binary())
def test_utf_8_up_to_the_end(text: str, behind: bytes) -> None:
    assert decoded(text.encode()) == decoded(text.encode() + b"\0" + behind) == text


@pytest.mark.parametrize("text", ["µm", "°", "é", "café", "Gießen, 5 µm", "Ångström"])
def test_latin_1(text: str) -> None:
    assert decoded(text.encode("latin-1")) == text


@pytest.mark.parametrize(("text", "kept"), [("µm²/µs²", "µm²/µs"), ("5 µm, 3 €", "5 µm, 3 ")])
def test_a_character_that_was_cut_off(text: str, kept: str) -> None:
    assert decoded(text.encode()[:-1]) == kept


@given(st.binary())
def test_any_bytes_are_a_text(text: bytes) -> None:
    assert isinstance(decoded(text), str)
