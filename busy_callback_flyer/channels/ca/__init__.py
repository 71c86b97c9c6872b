"""Channel Access by libca, in a client context of our own."""

from .array import CAArray
from .busy import CABusy
from .count import CACount

__all__ = ["CAArray", "CABusy", "CACount"]
