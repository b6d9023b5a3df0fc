"""Who must not come back: the pseudonyms that ingest and training drop."""

import polars as pl

from guidelens.data.lake.lake import Lake, Manifest
from guidelens.schemas.tables import Table

PERSONAL = (Table.EVENTS, Table.SHOPPERS, Table.CONSENTS, Table.REVIEWS)
"""Tables whose rows are about one shopper each."""


def forgotten_keys(lake: Lake, manifest: Manifest) -> frozenset[str]:
    """The pseudonyms of the shoppers who asked to be forgotten, as of a manifest."""
    return frozenset(lake.read(Table.TOMBSTONES, ["shopper_key"], manifest=manifest)["shopper_key"].to_list())


def sweep(lake: Lake, keys: frozenset[str]) -> None:
    """Deletes data files that no version names and that hold a forgotten shopper: what crashed or overtaken ingests left.

    Safe beside running ingests once the tombstone is committed: whoever prepared such a file must redo it without the shopper.
    """
    named = {file.key for manifest in lake.manifests() for file in manifest.files}
    for table in PERSONAL:
        for key in lake.store.keys(f"{table}/"):
            rows = pl.DataFrame() if key in named else lake.read_key(table, key)
            if any(rows[name].is_in(sorted(keys)).any() for name in ("shopper_key", "anonymous_key") if name in rows.columns):
                lake.store.delete(key)
