"""A judge must be a network that nothing climbed: what an honest critic looked through is recorded, and refused here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import RequestError


def family(network: str) -> str:
    """Return a network's family: its name without sizes and versions.

    >>> family("squeezenet112"), family("squeezenet10"), family("FD-resnet20")
    ('squeezenet', 'squeezenet', 'fd-resnet')
    """
    return re.sub(r"[\d._]+$", "", network.lower())


def may_not_judge(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the networks that a run's record (run.json) or a critic's card excludes as judges."""
    found = record.get("honest") or {}
    return tuple(str(n) for n in found.get("may_not_judge") or ())


def refuse_partial(network: str, climbed: Sequence[str], where: str = "") -> None:
    """Raise RequestError where `network` belongs to the family of one that the climbed critic looked through."""
    for other in climbed:
        if family(network) == family(other):
            raise RequestError(
                f"{network} may not judge these samples: the critic that improved them looks through {other}",
                where=where,
                way_out="Judge with another network (--network), or with pixels.",
            )
