"""Named places where the drills kill a process to see that nothing is lost; outside drills `reach` does nothing.

The one setting of the core that is read from the environment, because Ray's workers must inherit it: GUIDELENS_CRASH_AT=POINT:NTH:FILE
kills the process that reaches POINT the NTH time, once: FILE, made then, disarms every other process.
"""

import os
import signal
from pathlib import Path
from typing import NamedTuple

POINTS = (
    "staging.part_written",
    "staging.done",
    "ids.before_file",
    "ids.after_file",
    "data.before_file",
    "data.after_file",
    "quarantine.before_file",
    "quarantine.after_file",
    "manifest.before",
    "create.written",
    "manifest.after",
    "staging.before_removal",
    "staging.after_removal",
    "compaction.file_written",
    "inbox.sealed",
    "inbox.committed",
    "inbox.removed",
    "rewrite.committed",
    "rewrite.history_replaced",
    "put.begun",
)


class _Armed(NamedTuple):
    point: str
    nth: int
    mark: Path


def _from_environment() -> _Armed | None:
    given = os.environ.get("GUIDELENS_CRASH_AT")
    if not given:
        return None
    point, nth, mark = given.split(":", 2)
    return _Armed(point, int(nth), Path(mark))


_armed = _from_environment()
_reached = 0


def arm(point: str, nth: int, mark: Path) -> None:
    """This process dies at `point`, the nth time it comes there, unless `mark` exists by then."""
    global _armed, _reached
    assert point in POINTS
    _armed, _reached = _Armed(point, nth, mark), 0


def reach(point: str) -> None:
    global _reached
    if _armed is None or point != _armed.point:
        return
    _reached += 1
    if _reached >= _armed.nth:
        try:
            _armed.mark.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
