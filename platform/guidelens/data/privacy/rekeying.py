"""The lake's pseudonyms carried over to the home's newest key, in every version, without knowing the ids behind them.

Rows keep what they mean: a shopper's history stays one, tombstones hold, and records read again are known again.
"""

from collections.abc import Callable

import polars as pl

from guidelens.data.lake.lake import DataFile, Lake, Manifest
from guidelens.data.lake.rewriting import Change, Rewritten, rewrite_every_version
from guidelens.data.lake.tables import rewritten
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.catalog_rows import row_sha256
from guidelens.data.records.settling import record_sha256
from guidelens.errors import ConfigError
from guidelens.schemas.tables import SCHEMAS, Table

_NAMES = ("shopper_key", "anonymous_key")


def lake_key_id(manifest: Manifest, pseudonyms: Pseudonymizer) -> str:
    """Of the key that the version's pseudonyms are made with: one from before keys were noted has the first, an empty lake the newest."""
    return manifest.key_id or (pseudonyms.key_ids[0] if manifest.version else pseudonyms.key_id)


def require_key(lake: Lake, manifest: Manifest, pseudonyms: Pseudonymizer) -> None:
    """Rows under two keys would make one shopper two, and let a forgotten one back in.

    Raises:
        ConfigError: the lake is under another key than the one in use.
    """
    held = lake_key_id(manifest, pseudonyms)
    if held != pseudonyms.key_id:
        raise ConfigError(
            f"lake {lake.uri} must be under the key in use ({pseudonyms.key_id}), got {held}; a key was made and not applied, or while this ran: "
            "run `guidelens keys apply`, then this again"
        )


def rekey(lake: Lake, pseudonyms: Pseudonymizer, note: Callable[[int, int], None]) -> Rewritten:
    """Carries every pseudonym of every version over to the key in use; nothing where they are.

    Raises:
        CommitConflictError: other writers were faster twelve times in a row.
        StorageError: the home lacks the key that the lake is under.
    """

    def change(file: DataFile, named_by: Manifest) -> tuple[list[DataFile], int]:
        held = lake_key_id(named_by, pseudonyms)
        return ([file], 0) if held == pseudonyms.key_id else _carried(lake, file, pseudonyms, held)

    return rewrite_every_version(lake, Change("carried to another key", change, key_id=pseudonyms.key_id, loses_events=False), note)


def _carried(lake: Lake, file: DataFile, pseudonyms: Pseudonymizer, key_id: str) -> tuple[list[DataFile], int]:
    if file.table is Table.QUARANTINE:
        return _originals_carried(lake, file, pseudonyms, key_id)
    if "shopper_key" not in SCHEMAS[file.table].names:
        return [file], 0
    rows = lake.read_file(file)
    names = [name for name in _NAMES if name in rows.columns]
    number = rows.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in names)).height
    if not number:
        return [file], 0
    known = pl.concat([rows[name].drop_nulls().alias("key") for name in names]).unique()
    carried = dict(zip(known, (pseudonyms.carried(key, key_id) for key in known), strict=True))
    rows = rows.with_columns(pl.col(name).replace_strict(carried, default=None, return_dtype=pl.String) for name in names)
    if "key_id" in rows.columns:
        rows = rows.with_columns(key_id=pl.when(pl.col("key_id").is_not_null()).then(pl.lit(pseudonyms.key_id)))
    if "row_sha256" in rows.columns:
        rows = rows.with_columns(row_sha256=pl.Series([row_sha256(row) for row in rows.drop("row_sha256").iter_rows(named=True)], dtype=pl.String))
    return rewritten(lake, file, rows), number


def _originals_carried(lake: Lake, file: DataFile, pseudonyms: Pseudonymizer, key_id: str) -> tuple[list[DataFile], int]:
    rows = lake.read_file(file)
    raws = [None if raw is None else pseudonyms.carried_original(raw, key_id) for raw in rows["raw"]]
    hit = [new != raw for new, raw in zip(raws, rows["raw"], strict=True)]
    if not any(hit):
        return [file], 0
    places = rows.select("kind", "source", "offset", "record_sha256").iter_rows()
    digests = [
        record_sha256(kind, source, offset, raw) if changed else known for (kind, source, offset, known), raw, changed in zip(places, raws, hit, strict=True)
    ]
    return rewritten(lake, file, rows.with_columns(raw=pl.Series(raws, dtype=pl.Binary), record_sha256=pl.Series(digests, dtype=pl.String))), sum(hit)
