"""EPICS base (the part that makes an IOC), bound with ctypes.

The libraries come from the wheel ``epicscorelibs``. They are loaded by
`EpicsBase`, not when this module is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import os
from collections.abc import Iterator
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_long, c_short, c_void_p
from pathlib import Path
from typing import Any

__all__ = ["DBR_CHAR", "DBR_DOUBLE", "DBR_STRING", "EpicsBase", "IOCError", "RecordAddress"]

# database request types (dbFldTypes.h)
DBR_STRING = 0
DBR_CHAR = 1
DBR_DOUBLE = 10

NOT_INSTALLED = "The embedded IOC needs epicscorelibs, which is not installed: pip install busy_callback_flyer[ioc]"


class IOCError(RuntimeError):
    """The embedded IOC did not start, or cannot do what was asked of it."""


class RecordAddress(ctypes.Structure):
    """Where a field lives in the IOC's memory (``struct dbAddr`` of dbAddr.h)."""

    _fields_ = (
        ("precord", c_void_p),
        ("pfield", c_void_p),
        ("pfldDes", c_void_p),
        ("no_elements", c_long),
        ("field_type", c_short),
        ("field_size", c_short),
        ("special", c_short),
        ("dbr_field_type", c_short),
    )

    @property
    def offset(self) -> int:
        """Distance in bytes of the field from the start of its record."""
        return int(self.pfield) - int(self.precord)


class EpicsBase:
    """The IOC of this process: EPICS base allows one in a process's life.

    Raises
    ------
    IOCError
        epicscorelibs is not installed, or lacks what is needed.
    """

    def __init__(self) -> None:
        try:
            self.dbd_path = Path(library_path("dbCore")).parents[1] / "dbd"
            self.libca_path = library_path("ca")
            # global, because the registration looks its symbols up in the whole process
            self._com = ctypes.CDLL(library_path("Com"), mode=ctypes.RTLD_GLOBAL)
            self._core = ctypes.CDLL(library_path("dbCore"), mode=ctypes.RTLD_GLOBAL)
            self.records = ctypes.CDLL(library_path("dbRecStd"), mode=ctypes.RTLD_GLOBAL)
            self._kept: list[object] = []
            self._declare()
        except ImportError as error:
            raise IOCError(NOT_INSTALLED) from error
        except (OSError, AttributeError) as error:
            raise IOCError(f"epicscorelibs {self.version} cannot be used: {error}") from error

    @property
    def version(self) -> str:
        """That of epicscorelibs."""
        return importlib.metadata.version("epicscorelibs")

    def _declare(self) -> None:
        def function(name: str, restype: Any, *argtypes: Any, library: ctypes.CDLL = self._core) -> Any:
            bound = library[name]  # an item, unlike an attribute, is nobody else's
            bound.restype = restype
            bound.argtypes = argtypes
            return bound

        address = POINTER(RecordAddress)
        self._load_database = function("dbLoadDatabase", c_int, c_char_p, c_char_p, c_char_p)
        self._load_records = function("dbLoadRecords", c_int, c_char_p, c_char_p)
        self._register_all = function("registerAllRecordDeviceDrivers", c_int, c_void_p)
        self._register_types = function("registerRecordTypes", c_int, c_void_p, c_int, POINTER(c_char_p), c_void_p)
        self._register_device = function("registryDeviceSupportAdd", c_int, c_char_p, c_void_p)
        self._ioc_init = function("iocInit", c_int)
        self._name_to_addr = function("dbNameToAddr", c_long, c_char_p, address)
        self._get_field = function(
            "dbGetField", c_long, address, c_short, c_void_p, POINTER(c_long), POINTER(c_long), c_void_p
        )
        self._put_field = function("dbPutField", c_long, address, c_short, c_void_p, c_long)
        self._scan_lock = function("dbScanLock", None, c_void_p)
        self._scan_unlock = function("dbScanUnlock", None, c_void_p)
        self.scan_forward = function("dbScanFwdLink", None, c_void_p)
        self.stamp = function("recGblGetTimeStamp", None, c_void_p)
        self._alloc_entry = function("dbAllocEntry", c_void_p, c_void_p)
        self._free_entry = function("dbFreeEntry", None, c_void_p)
        self._first_type = function("dbFirstRecordType", c_long, c_void_p)
        self._next_type = function("dbNextRecordType", c_long, c_void_p)
        self._first_record = function("dbFirstRecord", c_long, c_void_p)
        self._next_record = function("dbNextRecord", c_long, c_void_p)
        self._type_name = function("dbGetRecordTypeName", c_char_p, c_void_p)
        self._record_name = function("dbGetRecordName", c_char_p, c_void_p)
        self._call_at_exits = function("epicsExitCallAtExits", None, library=self._com)
        self._flush_log = function("errlogFlush", None, library=self._com)

    def _refuse(self, failed: int, message: str) -> None:
        if failed:
            self._flush_log()  # its own words go to stderr from another thread
            raise IOCError(message)

    @property
    def _database(self) -> c_void_p:
        return c_void_p.in_dll(self._core, "pdbbase")

    # -- before iocInit

    def load_definitions(self, file: str | os.PathLike[str] = "base.dbd") -> None:
        """Load record types and device support (a .dbd file)."""
        failed = self._load_database(os.fsencode(file), os.fsencode(self.dbd_path), None)
        self._refuse(failed, f"EPICS base cannot load the definitions {os.fspath(file)}.")

    def register(self) -> None:
        """Register the code of everything that base.dbd names."""
        self._refuse(self._register_all(self._database), "EPICS base cannot register its record support.")

    def register_record_type(self, name: str, location: ctypes.Structure) -> None:
        """Register the code of one record type (``struct recordTypeLocation``)."""
        names = (c_char_p * 1)(name.encode())
        self._kept.append((names, location))  # the registry holds pointers to both
        failed = self._register_types(self._database, 1, names, byref(location))
        self._refuse(failed, f"EPICS base cannot register the record type {name}.")

    def register_device_support(self, name: str, support: ctypes.Structure) -> None:
        """Register the code of one device support (``struct dset``)."""
        named = name.encode()
        self._kept.append((named, support))  # the registry holds pointers to both
        known = self._register_device(named, ctypes.addressof(support))
        self._refuse(not known, f"EPICS base cannot register the device support {name}.")

    def load_records(self, file: str | os.PathLike[str], macros: dict[str, str]) -> None:
        """Load records (a .db file)."""
        failed = self._load_records(os.fsencode(file), macro_string(macros).encode())
        self._refuse(failed, f"EPICS base cannot load the records of {os.fspath(file)}.")

    def init(self) -> None:
        """Start the IOC."""
        self._refuse(self._ioc_init(), "EPICS base cannot start the IOC (iocInit failed).")

    # -- after it

    def record_names(self, record_type: str | None = None) -> list[str]:
        """Names of all records, or of those of one type."""
        entry = c_void_p(self._alloc_entry(self._database))
        names = []
        failed = self._first_type(entry)
        while not failed:
            if record_type in (None, self._type_name(entry).decode()):
                absent = self._first_record(entry)
                while not absent:
                    names.append(self._record_name(entry).decode())
                    absent = self._next_record(entry)
            failed = self._next_type(entry)
        self._free_entry(entry)
        return names

    def address(self, name: str) -> RecordAddress:
        """Look a record's field up: ``"prj:mybusy"``, ``"prj:mybusy.FLNK"``."""
        address = RecordAddress()
        self._refuse(self._name_to_addr(name.encode(), byref(address)), f"The IOC has no {name}.")
        return address

    def get(self, address: RecordAddress) -> float:
        """Read a number."""
        value, length = c_double(), c_long(1)
        failed = self._get_field(byref(address), DBR_DOUBLE, byref(value), None, byref(length), None)
        self._refuse(failed, "EPICS base refused to read the field.")
        return value.value

    def put(self, address: RecordAddress, request_type: int, data: object, length: int) -> None:
        """Write, process and post, as a Channel Access put does."""
        failed = self._put_field(byref(address), request_type, data, length)
        self._refuse(failed, "EPICS base refused to write the field.")

    @contextlib.contextmanager
    def locked(self, address: RecordAddress) -> Iterator[None]:
        """Hold the lock of a record (and of those linked to it)."""
        self._scan_lock(address.precord)
        try:
            yield
        finally:
            self._scan_unlock(address.precord)

    def exit(self) -> None:
        """Run what EPICS base has registered for the end of the process."""
        self._call_at_exits()


def library_path(name: str) -> str:
    """Path of a library of epicscorelibs."""
    # not by epicscorelibs.path, which imports all of setuptools: 0.2 s
    path: str = importlib.import_module(f"epicscorelibs.lib.{name}_dsoinfo").sofilename
    return path


def macro_string(macros: dict[str, str]) -> str:
    """Macro definitions in the form that dbLoadRecords reads."""

    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return ",".join(f"{name}={quoted(value)}" for name, value in macros.items())
