"""Channel Access by libca, in a client context of our own."""

import ophyd  # noqa: F401 - before epics: it chooses the libca that pyepics loads

# isort: split
from .array import CAArray
from .busy import CABusy
from .count import CACount

__all__ = ["CAArray", "CABusy", "CACount"]
