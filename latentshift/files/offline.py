"""Whether the network may be asked: `--offline` sets a variable, so that worker processes know; the hub's own counts too."""

from __future__ import annotations

import os
from collections.abc import Callable

VARIABLE, HUBS = "LATENTSHIFT_OFFLINE", "HF_HUB_OFFLINE"


def is_off() -> bool:
    """Whether the network is switched off."""
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in (VARIABLE, HUBS))


def switch_off() -> Callable[[], None]:
    """Switch the network off for this process and its children; return what puts the switch back."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"

    def back() -> None:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before

    return back
