"""An EPICS IOC with a busy record, from pip alone, in a process of its own.

Importing this package loads neither libca nor any EPICS client, so that the
environment of a client can be set first.
"""

from .base import IOCError
from .process import EmbeddedIOC

__all__ = ["EmbeddedIOC", "IOCError"]
