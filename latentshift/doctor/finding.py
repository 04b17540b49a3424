"""What a check found: the fact with its figures, the consequence for refining, the option that mends it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: from bad to good: refining cannot work; it works badly or misleads; worth knowing; as it should be
LEVELS = ("broken", "warning", "note", "good")


@dataclass(frozen=True)
class Finding:
    """`topic` is a short fixed word, `what` was seen (with figures), `means` follows for refining, `mend` helps (or '')."""

    topic: str
    level: str
    what: str
    means: str
    mend: str = ""

    def __post_init__(self) -> None:
        assert self.level in LEVELS, self.level

    def line(self) -> str:
        """Return the finding in one line."""
        return f"{self.what}: {self.means}" + (f" {self.mend}" if self.mend else "")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Return findings from bad to good, else in their order."""
    return sorted(findings, key=lambda f: LEVELS.index(f.level))
