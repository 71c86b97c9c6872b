"""What the peers have in common that hear of the record by a callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bluesky.protocols import Status

if TYPE_CHECKING:
    from ophyd.status import Status as OphydStatus


class ByCallback:
    """Done is the first 0 after the put: of a short flight Busy and Done may come as one event."""

    _knows: Callable[[], None] | None = None
    _status: OphydStatus

    def kickoff(self, knows: Callable[[], None]) -> Status:
        # Here, as it brings up ophyd, and the peer has to say first by which control layer.
        from ophyd.status import Status as OphydStatus

        self._knows, self._status = knows, OphydStatus()
        self._put_busy()
        status: Status = self._status
        return status

    def _put_busy(self) -> None:
        raise NotImplementedError

    def _heard(self, value: int) -> None:
        if value == 0 and self._knows is not None:
            knows, self._knows = self._knows, None
            knows()
            self._status.set_finished()

    def marks(self) -> dict[str, float]:
        return {}
