"""What crashed and overtaken writers left in a lake: objects that no version names. They do no harm; they take room."""

from datetime import datetime, timedelta

from guidelens.data.lake.event_ids import KEY_OF
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.staging import is_stale, runs
from guidelens.schemas.tables import Table
from guidelens.storage import Entry

GRACE = timedelta(hours=24)


def orphans(lake: Lake, before: datetime, now: datetime) -> list[Entry]:
    """Objects written before `before` that no version names and that no run under way can still come to name; halves of broken writes too."""
    # Listed before the manifests are read: a run that ends in between has committed by then.
    folders = [*(f"{table}/" for table in Table), *(f"_ids/{table}/" for table in KEY_OF)]
    found = [entry for folder in folders for entry in lake.store.entries(folder)]
    limit = min([before, *(run.begun for run in runs(lake.store).values() if not is_stale(run, now))])
    named = set[str]().union(*(manifest.keys for manifest in lake.manifests()))
    unnamed = [entry for entry in found if entry.key not in named]
    return [entry for entry in [*unnamed, *lake.store.unfinished()] if entry.modified < limit]


def collect(lake: Lake, found: list[Entry]) -> None:
    """Deletes orphans."""
    for entry in found:
        lake.store.delete(entry.key)
