"""What `check` found: one thing that was looked at, how bad it is, and all of them."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Finding", "Mark", "Report"]


class Mark(str, enum.Enum):
    """How bad it is."""

    ok = "ok"
    note = "note"
    """Nothing is wrong, but it is good to know."""
    warning = "warn"
    """It flies, but maybe not as it should."""
    failure = "FAIL"
    """It does not fly."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    """A PV, or what of the flyer."""
    mark: Mark
    says: str
    advice: str = ""
    """What to do; for what is wrong there is always something."""

    def __str__(self) -> str:
        line = f"{self.mark.value:<5} {self.subject}: {self.says}"
        return f"{line}\n      -> {self.advice}" if self.advice else line


@dataclass
class Report:
    """What `check` found."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way of a flight."""
        return all(finding.mark is not Mark.failure for finding in self.findings)

    @property
    def summary(self) -> str:
        """In a sentence."""
        marks = [finding.mark for finding in self.findings]
        failures, warnings = marks.count(Mark.failure), marks.count(Mark.warning)
        warned = f", with {warnings} warning{'s' * (warnings > 1)}" if warnings else ""
        if failures:
            return f"It does not fly: {failures} thing{'s' * (failures > 1)} to mend{warned}."
        if "flight" in [finding.subject for finding in self.findings]:
            return f"It flies{warned}."
        return f"Nothing is in the way of a flight{warned}; --fly tries one."

    def to_dict(self) -> dict[str, Any]:
        """Of plain values, for a JSON file."""
        return {"ok": self.ok, "findings": [{**asdict(found), "mark": found.mark.value} for found in self.findings]}

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))
