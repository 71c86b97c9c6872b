"""What the peers have in common that hear of the record by a callback."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bluesky.protocols import Status

if TYPE_CHECKING:
    from ophyd.status import Status as OphydStatus


class ByCallback:
    """Done is the first 0 after the put: of a short flight Busy and Done may come as one event."""

    _status: OphydStatus | None = None
    _heard_at = 0.0

    def kickoff(self) -> Status:
        # Here, as it brings up ophyd, and the peer has to say first by which control layer.
        from ophyd.status import Status as OphydStatus

        status: Status = OphydStatus()
        self._status = status
        self._put_busy()
        return status

    def _put_busy(self) -> None:
        raise NotImplementedError

    def _heard(self, value: int) -> None:
        if value == 0 and self._status is not None:
            self._heard_at = time.time()
            status, self._status = self._status, None
            status.set_finished()

    def marks(self) -> dict[str, float]:
        return {"event": self._heard_at}
