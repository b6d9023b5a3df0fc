"""Which older versions of the lake are kept, where a stream writes one every few seconds. Removes manifests, never data files.

Versions that a stream wrote go once they are an hour old, but for the last one of each hour and those that a run was trained on.
All others stay. `garbage.py` removes the files that no version names any more.
"""

from datetime import datetime, timedelta

from guidelens.data.lake.lake import Lake
from guidelens.data.lake.staging import is_stale, runs

KEPT_WHOLE = timedelta(hours=1)


def thin(lake: Lake, now: datetime) -> int:
    """Removes passing versions that are old enough; how many.

    A writer that began before a version was written may still try to write the same one; so such versions wait for it to end.
    """
    limit = min([now - KEPT_WHOLE, *(run.begun for run in runs(lake.store).values() if not is_stale(run, now))])
    times = lake.version_times()
    last_of_hour = {written.replace(minute=0, second=0, microsecond=0): version for version, written in sorted(times.items())}
    kept = {*last_of_hour.values(), *lake.pinned(), max(times, default=0)}
    old = [version for version, written in times.items() if written < limit and version not in kept]
    passing = [version for version in old if lake.manifest(version).passing]
    for version in passing:
        lake.drop_version(version)
    return len(passing)
