"""The record type ``busy``, made from EPICS base's own ``bo``.

The synApps busy record is a bo that runs its forward link, and completes a
put-callback, only when it is 0 after processing. No wheel has it. So here bo's
record support is copied, and while bo processes, the link set of the forward
link is one of ours: bo comes by just before it would complete the put-callback.

The synApps record takes its stamp when it has written OUT, and what OUT starts is
stamped before it. Newer bo stamp themselves first: so bo's device support is
copied too, and takes the stamp once more behind each write.
"""

from __future__ import annotations

import ctypes
import logging
import re
import tempfile
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_long, c_short, c_ubyte, c_uint, c_ushort, c_void_p
from pathlib import Path

from .base import EpicsBase, IOCError

__all__ = ["BusyRecordType"]

logger = logging.getLogger(__name__)

_Process = CFUNCTYPE(c_long, c_void_p)
_ScanForward = CFUNCTYPE(None, c_void_p)

DEVICE_SUPPORT = """
device(busy, CONSTANT, devBusySoft, "Soft Channel")
device(busy, CONSTANT, devBusySoftRaw, "Raw Soft Channel")
"""
MADE_FROM = {"devBusySoft": "devBoSoft", "devBusySoftRaw": "devBoSoftRaw"}


class _Link(ctypes.Structure):
    """The head of ``struct link`` (link.h)."""

    _fields_ = (("precord", c_void_p), ("type", c_short), ("flags", c_ushort), ("lset", c_void_p))


class _LinkSet(ctypes.Structure):
    """``struct lset`` (dbLink.h)."""

    _fields_ = (
        ("isConstant", c_uint, 1),
        ("isVolatile", c_uint, 1),
        *(
            (name, c_void_p)
            for name in (
                *("openLink", "removeLink", "loadScalar", "loadLS", "loadArray", "isConnected", "getDBFtype"),
                *("getElements", "getValue", "getControlLimits", "getGraphicLimits", "getAlarmLimits"),
                *("getPrecision", "getUnits", "getAlarm", "getTimeStamp", "putValue", "putAsync"),
            )
        ),
        ("scanForward", _ScanForward),
        *((name, c_void_p) for name in ("doLocked", "getAlarmMsg", "getTimeStampTag")),
    )


class _RecordSupport(ctypes.Structure):
    """``struct typed_rset`` (recSup.h)."""

    _fields_ = (
        ("number", c_long),
        *((name, c_void_p) for name in ("report", "init", "init_record")),
        ("process", _Process),
        *(
            (name, c_void_p)
            for name in (
                *("special", "get_value", "cvt_dbaddr", "get_array_info", "put_array_info", "get_units"),
                *("get_precision", "get_enum_str", "get_enum_strs", "put_enum_str"),
                *("get_graphic_double", "get_control_double", "get_alarm_double"),
            )
        ),
    )


class _DeviceSupport(ctypes.Structure):
    """``bodset`` (boRecord.h)."""

    _fields_ = (
        ("number", c_long),
        *((name, c_void_p) for name in ("report", "init", "init_record", "get_ioint_info")),
        ("write", _Process),
    )


class _RecordTypeLocation(ctypes.Structure):
    """``struct recordTypeLocation`` (registryRecordType.h)."""

    _fields_ = (("prset", POINTER(_RecordSupport)), ("sizeOffset", c_void_p))


class _Record:
    """The fields of one busy record that matter here, in the IOC's memory."""

    def __init__(self, base: EpicsBase, name: str) -> None:
        def field(suffix: str) -> int:
            return int(base.address(f"{name}.{suffix}").pfield)

        self.name = ctypes.string_at(field("NAME")).decode()  # not an alias
        self.address = int(base.address(name).precord)
        self.value = c_ushort.from_address(field("VAL"))
        self.active = c_ubyte.from_address(field("PACT"))
        self.put_notify = c_void_p.from_address(field("PPN"))
        self.forward_link = field("FLNK")
        self.link_set = c_void_p.from_address(self.forward_link + _Link.lset.offset)
        self.own_link_set: int | None = None
        self.waiting_put: int | None = None


class BusyRecordType:
    """Makes the record type ``busy`` known to an IOC.

    Call `register` before records are loaded, `adopt_records` when they are,
    before the IOC starts.

    Parameters
    ----------
    base : EpicsBase
        The IOC, with base's own record types registered.
    processed : callable
        Told the name and the value of a busy record each time it was processed,
        by anybody, with the record locked. It must return at once.
    """

    def __init__(self, base: EpicsBase, processed: Callable[[str, int], None]) -> None:
        self._base = base
        self._processed = processed
        self._records: dict[int, _Record] = {}
        # everything that C holds a pointer to lives as long as this object
        bo_support = self._symbol("pvar_rset_boRSET")
        self._bo_process = _RecordSupport.from_address(bo_support).process
        self._support = _RecordSupport.from_buffer_copy(ctypes.string_at(bo_support, ctypes.sizeof(_RecordSupport)))
        self._support.process = _Process(self._process)
        self._location = _RecordTypeLocation(
            ctypes.pointer(self._support), self._symbol("pvar_func_boRecordSizeOffset")
        )
        self._link_set = _LinkSet(scanForward=_ScanForward(self._before_completion))
        self._devices = {name: self._device(bo) for name, bo in MADE_FROM.items()}

    def _device(self, bo: str) -> _DeviceSupport:
        """Bo's device support, but the record is stamped when it has written."""
        original = self._symbol(f"pvar_dset_{bo}")
        write, stamp = _DeviceSupport.from_address(original).write, self._base.stamp

        def write_then_stamp(record: int) -> int:
            status: int = write(record)
            stamp(record)
            return status

        device = _DeviceSupport.from_buffer_copy(ctypes.string_at(original, ctypes.sizeof(_DeviceSupport)))
        device.write = _Process(write_then_stamp)
        return device

    def _symbol(self, name: str) -> int:
        try:
            value = c_void_p.in_dll(self._base.records, name).value
        except ValueError:
            value = None
        if value is None:
            raise IOCError(f"epicscorelibs {self._base.version} has no {name}, which the busy record is made from.")
        return value

    def register(self) -> None:
        """Define the record type and register its code."""
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "busyRecord.dbd"
            file.write_text(busy_definition((self._base.dbd_path / "boRecord.dbd").read_text()))
            self._base.load_definitions(file)
        self._base.register_record_type("busy", self._location)
        for name, device in self._devices.items():
            self._base.register_device_support(name, device)

    def adopt_records(self) -> None:
        """Learn where the loaded busy records keep their fields."""
        for name in self._base.record_names("busy"):
            record = _Record(self._base, name)
            self._records[record.address] = record

    def _process(self, address: int) -> int:
        record = self._records[address]
        record.own_link_set = record.link_set.value
        record.link_set.value = ctypes.addressof(self._link_set)
        status: int = self._bo_process(address)
        record.link_set.value = record.own_link_set
        if record.waiting_put is not None:
            record.put_notify.value, record.waiting_put = record.waiting_put, None
        if not record.active.value:
            self._tell(record.name, record.value.value)
        return status

    def _before_completion(self, link: int) -> None:
        """Bo is about to run the forward link and to complete a put-callback."""
        record = self._records[_Link.from_address(link).precord]
        if record.value.value == 0:
            record.link_set.value = record.own_link_set
            self._base.scan_forward(record.forward_link)
        else:
            record.waiting_put = record.put_notify.value
            record.put_notify.value = None

    def _tell(self, name: str, value: int) -> None:
        try:
            self._processed(name, value)
        except Exception:
            logger.exception("%s: what was told of its processing failed", name)


def busy_definition(bo_definition: str) -> str:
    """The definition (dbd) of the record type busy, from that of bo."""
    text, renamed = re.subn(r"recordtype\s*\(\s*bo\s*\)", "recordtype(busy)", bo_definition)
    text, zero = re.subn(r"(field\s*\(\s*ZNAM\s*,[^{]*\{)", r'\1 initial("Done")', text)
    text, one = re.subn(r"(field\s*\(\s*ONAM\s*,[^{]*\{)", r'\1 initial("Busy")', text)
    if (renamed, zero, one) != (1, 1, 1):
        raise IOCError("The bo record of this epicscorelibs is not defined in the way that busy is made from.")
    # bo's variables exist once, with bo
    return re.sub(r"(?m)^\s*variable\s*\(.*$", "", text) + DEVICE_SUPPORT
