"""Who must not come back: the pseudonyms that ingest and training drop."""

from guidelens.data.lake import Lake, Manifest
from guidelens.schemas.tables import Table


def forgotten_keys(lake: Lake, manifest: Manifest) -> frozenset[str]:
    """The pseudonyms of the shoppers who asked to be forgotten, as of a manifest."""
    return frozenset(lake.read(Table.TOMBSTONES, ["shopper_key"], manifest=manifest)["shopper_key"].to_list())
