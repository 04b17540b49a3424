"""A worker of a sharded run, started by the run: `python -m latentshift.commands.shardwork OUT --who NAME --device DEVICE`.

It takes shard numbers on stdin and answers in JSON lines on stdout (see `latentshift.shards.local`). Where stdin ends, the run
is over or its coordinator is dead: the worker ends at once.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any

from ..errors import LatentshiftError


def main(argv: list[str]) -> None:
    """Work until stdin ends."""
    place, who, device = argv[0], argv[argv.index("--who") + 1], argv[argv.index("--device") + 1]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a user's own code prints is no answer
    shards: queue.Queue[int] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            shards.put(int(line))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()

    def say(**words: Any) -> None:
        try:
            out.write(json.dumps(words) + "\n")
        except OSError:
            os._exit(0)

    from ..shards.local import told

    try:
        from .shardjob import open_maker

        maker = open_maker(place, f"{who}-{os.getpid()}", device)
        say(ready=True)
        heard = 0
        while True:
            index = shards.get()
            last = time.monotonic()

            def tell(rows: int) -> None:
                nonlocal last
                if time.monotonic() - last >= 1:
                    last = time.monotonic()
                    say(rows=rows)

            entry = maker.make(index, tell)
            notes = maker.engine.run_.notes[heard:]
            heard += len(notes)
            say(entry=entry.line(), notes=notes)
    except LatentshiftError as error:
        say(error=told(error))


if __name__ == "__main__":
    main(sys.argv[1:])
