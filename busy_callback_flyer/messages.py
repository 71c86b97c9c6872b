"""Documents as messages for a bus: msgpack, with numpy arrays, and without what others' listeners would run.

The format is that of `msgpack_numpy`, which packs arrays of objects by pickle, and unpickles whatever it is sent: here
they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgpack_numpy
import numpy as np
from msgpack.fallback import Packer, Unpacker  # `msgpack_numpy.patch` replaces the faster ones with those that pickle

__all__ = ["pack", "unpack", "unpack_all"]

PLAIN = re.compile(r"[<>|=][biufcSU]\d+")
"""Types of arrays that are numbers or texts."""


def pack(document: Any) -> bytes:
    """Make a message of a document, or of its name and it.

    Raises
    ------
    TypeError
        Something in it is neither plain nor an array of numbers or texts.
    """
    message: bytes = Packer(default=_packable).pack(document)
    return message


def unpack(message: bytes) -> Any:
    """Make a document of a message.

    Raises
    ------
    ValueError
        It has an array of objects.
    """
    unpacker = Unpacker(object_hook=_array, max_buffer_size=len(message))
    unpacker.feed(message)
    return unpacker.unpack()


def unpack_all(file: BinaryIO) -> Iterator[Any]:
    """Documents of a file of messages, up to one that is cut short."""
    return iter(Unpacker(file, object_hook=_array, max_buffer_size=0))


def _packable(value: Any) -> Any:
    if isinstance(value, np.ndarray) and not PLAIN.fullmatch(value.dtype.str):
        raise TypeError(f"an array of {value.dtype} is not sent")
    return msgpack_numpy.encode(value)


def _array(found: dict[Any, Any]) -> Any:
    if b"nd" in found and (found.get(b"kind") or not PLAIN.fullmatch(str(found.get(b"type")))):
        raise ValueError(f"an array of {found.get(b'type')} is not taken from others")
    return msgpack_numpy.decode(found)
