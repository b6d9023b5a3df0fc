"""Refused records tried again with today's contracts, limits and decoder: those that are good now are taken in and leave quarantine in one commit."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from guidelens.config import Config, Home
from guidelens.data.records.sources import Kind
from guidelens.schemas.base import Frozen
from pipelines.cluster import ray_session

if TYPE_CHECKING:
    import polars as pl

    from guidelens.data.images.photos import PhotoPlan
    from guidelens.data.ingest.event_intake import EventIntake
    from guidelens.data.records.replay import Good
    from guidelens.data.records.validation import Checker


class LeftFor(Frozen):
    """How many records a rule holds back now, the source of the first of them, and what is wrong with that one."""

    records: int
    first: str
    message: str


class QuarantineReplayed(Frozen):
    """Counts by kind. tried = released + left; released = accepted + duplicate + forgotten. manifest: the lake's version after it.

    released: no longer in quarantine. duplicate: the lake had the record already. forgotten: of a shopper who asked to be. reasons: why those
    left stay, by rule, the commonest first.
    """

    lake: str
    manifest: int
    tried: dict[Kind, int]
    released: dict[Kind, int]
    left: dict[Kind, int]
    accepted: dict[Kind, int]
    duplicate: dict[Kind, int]
    forgotten: dict[Kind, int]
    reasons: dict[Kind, dict[str, LeftFor]]


def run(home: Home, config: Config, quarantined: "pl.DataFrame", lake: str | None = None) -> QuarantineReplayed:
    """Tries refused records again, with `ingest.rename` applied; one commit takes the good ones in and out of quarantine.

    Args:
        quarantined: rows of the quarantine table.

    Raises:
        CommitConflictError: other writers were faster again and again.
        StorageError: a store did not answer.
    """
    by_kind = {kind: rows for kind in Kind if (rows := quarantined.filter(quarantined["kind"] == str(kind))).height}
    has_photos = Kind.PHOTOS in by_kind
    with ray_session() if has_photos else nullcontext():
        return _Replay(home, config, lake).run(by_kind)


class _Replay:
    def __init__(self, home: Home, config: Config, lake: str | None) -> None:
        from guidelens.data.lake.lake import Lake
        from guidelens.data.pseudonyms import Pseudonymizer

        self.home, self.config = home, config
        self.lake: Lake = Lake(lake or home.lake_uri, home.s3)
        self.pseudonyms: Pseudonymizer = Pseudonymizer.open(home.keys)
        self.now = datetime.now(UTC)

    def run(self, by_kind: "Mapping[Kind, pl.DataFrame]") -> QuarantineReplayed:
        good = self._good(by_kind)
        released = {kind: len(found.ids) for kind, found in good.items()}
        manifest, counts = self._taken_in(good) if any(released.values()) else (self.lake.manifest().version, {})
        taken = {kind: counts.get(kind, (0, 0)) for kind in good}
        return QuarantineReplayed(
            lake=self.lake.uri,
            manifest=manifest,
            tried={kind: rows.height for kind, rows in by_kind.items()},
            released=released,
            left={kind: found.left.height for kind, found in good.items()},
            accepted={kind: accepted for kind, (accepted, _) in taken.items()},
            duplicate={kind: released[kind] - accepted - forgotten for kind, (accepted, forgotten) in taken.items()},
            forgotten={kind: forgotten for kind, (_, forgotten) in taken.items()},
            reasons={kind: _reasons(found) for kind, found in good.items()},
        )

    def _good(self, by_kind: "Mapping[Kind, pl.DataFrame]") -> "dict[Kind, Good]":
        from guidelens.data.images.replay import models_again, photos_again
        from guidelens.data.ingest.intake import images_of_products, known_models, known_photos, of_products
        from guidelens.data.records.replay import WHOLE, tried_again

        good = {kind: tried_again(by_kind[kind], self._checker(kind)) for kind in WHOLE if kind in by_kind}
        catalogue = good[Kind.CATALOGUE].rows if Kind.CATALOGUE in good else None
        if Kind.PHOTOS in by_kind:
            images, known = images_of_products(self.lake, catalogue), known_photos(self.lake, self.lake.manifest())
            good[Kind.PHOTOS] = photos_again(by_kind[Kind.PHOTOS], images, known, self.home.s3, self._embedded)
        if Kind.MODELS in by_kind:
            named = [path for path in of_products(self.lake, "model_3d", catalogue).values() if path]
            good[Kind.MODELS] = models_again(by_kind[Kind.MODELS], named, known_models(self.lake), self.home.s3)
        return {kind: good[kind] for kind in by_kind}

    def _checker(self, kind: Kind) -> "Checker":
        from guidelens.data.records.validation import Checker

        return Checker(kind, self.pseudonyms, self.now, renamed=self.config.ingest.rename, replayed=True)

    def _embedded(self, plan: "PhotoPlan", folder: str) -> "pl.DataFrame":
        from guidelens.data.ingest.stages import embed_photos, set_up_ray_data

        set_up_ray_data()
        return embed_photos(plan.tasks, plan.contents, folder, self.home.s3, self.config.ingest)

    def _taken_in(self, good: "Mapping[Kind, Good]") -> tuple[int, dict[Kind, tuple[int, int]]]:
        """The manifest's version, and accepted and refused (forgotten) by kind."""
        from guidelens.data.ingest.intake import StagedKind, take_in
        from guidelens.data.ingest.stages import embed_texts, set_up_ray_data
        from guidelens.data.records.replay import LABEL

        staged: dict[Kind, StagedKind] = {kind: StagedKind(found.rows, [LABEL]) for kind, found in good.items() if kind is not Kind.EVENTS and found.ids}
        released = frozenset(record for found in good.values() for record in found.ids)
        with ray_session(), self._events(good.get(Kind.EVENTS)) as events:
            set_up_ray_data()
            embed = partial(embed_texts, config=self.config.ingest)
            done = take_in(self.lake, staged, embed, self.now, events, released, pseudonyms=self.pseudonyms)
        totals = {kind: report.total for kind, report in done.reports.items()}
        return done.manifest.version, {kind: (total.accepted, total.quarantined) for kind, total in totals.items()}

    @contextmanager
    def _events(self, found: "Good | None") -> "Iterator[EventIntake | None]":
        """The good events as an intake of a file of their originals, which hold no shopper's id; None where there are none."""
        from guidelens.data.ingest.event_intake import EventIntake, EventSource
        from guidelens.data.ingest.stages import run_for
        from guidelens.data.lake.staging import staging
        from guidelens.data.records.replay import LABEL, as_lines
        from guidelens.data.records.sources import chunks_of, record_files

        if found is None or not found.ids:
            yield None
            return
        self.home.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.home.work, prefix="replay-") as folder, staging(self.lake.store) as prefix:
            (Path(folder) / "events.jsonl").write_bytes(as_lines(found.originals))
            files = record_files(Kind.EVENTS, (folder,), self.home.s3)
            chunks = chunks_of(files, self.config.ingest.event_chunk_bytes, self.home.s3)
            source = EventSource(chunks, [LABEL], self._checker(Kind.EVENTS), self.home.s3, prefix)
            yield EventIntake(self.lake, source, self.config.ingest, run_for(sum(file.size_bytes for file in files), self.config.ingest))


def _reasons(found: "Good") -> dict[str, LeftFor]:
    import polars as pl

    firsts = found.left.group_by("rule").agg(records=pl.len(), first=pl.col("source").first(), message=pl.col("message").first())
    rows = firsts.sort("records", "rule", descending=[True, False]).iter_rows(named=True)
    return {row.pop("rule"): LeftFor(**row) for row in rows}
