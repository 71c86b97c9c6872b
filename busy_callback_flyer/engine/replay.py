"""What a verb means after a pause: a policy without I/O.

The RunEngine pauses and resumes, and then sends the messages since the last checkpoint again. It also gives plans up
in a pause without telling the flyer. What comes next tells the two apart: `resume` comes before a replay; any other
verb comes from a plan that goes on, or cleans up.
"""

from __future__ import annotations


class Replay:
    """Remembers a pause or a resume until the next verb.

    Attributes
    ----------
    paused : bool
        The RunEngine paused, and neither resumed nor went on since: a verb means that the plan was given up.
    resumed : bool
        The RunEngine resumed: a `kickoff` may be sent again, and rejoins the flight.
    """

    def __init__(self) -> None:
        self.paused = False
        self.resumed = False

    def pause(self) -> None:
        """The RunEngine pauses."""
        self.paused, self.resumed = True, False

    def resume(self, *, known_to_be_over: bool) -> None:
        """The RunEngine resumes. What the plan knows to be over is not rejoined: a kickoff is another try."""
        self.paused, self.resumed = False, not known_to_be_over

    def failure_told(self) -> None:
        """The plan sees that its flight failed: a kickoff after that is no replay."""
        self.resumed = False

    def verb(self) -> tuple[bool, bool]:
        """A verb was called, and what comes later does not depend on the pause; `paused` and `resumed` of before."""
        before = self.paused, self.resumed
        self.paused = self.resumed = False
        return before
