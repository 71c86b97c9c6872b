"""The self-check: an IOC whose busy record is none does not start."""

from __future__ import annotations

import sys
from importlib.metadata import version

import pytest

from busy_callback_flyer.ioc import EmbeddedIOC, IOCError

BROKEN_SERVER = """
import sys
from busy_callback_flyer.ioc import busy_record, server
{fault}
server.main(sys.argv[1:])
"""

PLAIN_BO = """
busy_record.BusyRecordType._process = lambda self, address: self._bo_process(address)
"""
NO_FORWARD_LINK = """
class Deaf(busy_record.BusyRecordType):
    def __init__(self, base, processed):
        super().__init__(base, processed)
        base.scan_forward = lambda link: None
server.BusyRecordType = Deaf
"""
CRASH = """
import os, signal
busy_record.BusyRecordType._process = lambda self, address: os.kill(os.getpid(), signal.SIGKILL)
"""


def start_broken(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    intact = EmbeddedIOC._command

    def command(self: EmbeddedIOC, port: int, repeater_port: int) -> list[str]:
        options = [part for part in intact(self, port, repeater_port) if part.startswith("--")]
        return [sys.executable, "-c", BROKEN_SERVER.format(fault=fault), *options]

    monkeypatch.setattr(EmbeddedIOC, "_command", command)
    EmbeddedIOC(controller=False).start()


def test_a_plain_bo_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IOCError) as error:
        start_broken(monkeypatch, PLAIN_BO)
    sentence = str(error.value)
    assert "a put-callback returned while it was Busy" in sentence
    assert "FLNK ran while it was Busy" in sentence
    assert "event" not in sentence.partition("\n")[0]
    assert version("epicscorelibs") in sentence


def test_a_forward_link_that_never_runs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IOCError, match=r"does not behave as one: FLNK did not run once when it was Done\."):
        start_broken(monkeypatch, NO_FORWARD_LINK)


def test_a_crash_in_the_check_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IOCError, match="ended while it was starting"):
        start_broken(monkeypatch, CRASH)


def test_its_records_are_not_announced(rows_ioc: EmbeddedIOC) -> None:
    assert not [name for name in rows_ioc.pvs if "self_check" in name]
