"""What a process and all below it hold and use, out of /proc. No script of its own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SAMPLED_EVERY_S = 0.1


def family(root: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parents.setdefault(int(stat_of(int(path.name))[1]), []).append(int(path.name))
            except OSError:
                continue
    found = [root]
    for process in found:
        found += parents.get(process, [])
    return found


def stat_of(process: int) -> list[str]:
    """/proc/PID/stat behind the name, which may hold anything.

    Raises:
        OSError: there is no such process any more.
    """
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


@contextmanager
def sampled_memory_mb(root: int) -> Iterator[list[float]]:
    """Collects the megabytes that a process and all below it hold together, ten times a second; a shared page counts once."""
    found, ended = [_held_mb(root)], threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLED_EVERY_S):
            found.append(_held_mb(root))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _held_mb(root: int) -> float:
    """The sum of the proportional set sizes: each page, divided by how many processes map it."""
    total_kb = 0
    for process in family(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total_kb += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total_kb / 1024
