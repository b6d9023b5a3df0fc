"""How well does each classic recommender, and all of them together as the retrieval stage, find held-back products? MovieLens-100k, 8:1:1.

    python -m benchmarks.top_n --data FOLDER [--json OUT]

The folder holds `ml-100k.inter` as RecBole ships it (or MovieLens's own u.data). Ratings are split at random by row with seed 2020, every rating counts as
taken, and a user's training and validation films are left out when test ones are ranked. All read the training rows alone; validation chooses the
settings of each recommender and the weights of the hybrid.
"""

# Letters: R = users, N = films, S = settings.

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from benchmarks._results import machine, today
from guidelens.errors import InputError
from guidelens.evaluation.bootstrap import Interval, mean_interval, paired_difference
from guidelens.models.baselines.hybrid import Hybrid
from guidelens.models.baselines.linear import Als, ease
from guidelens.models.baselines.neighbours import UserKnn, item_knn
from guidelens.models.baselines.neural import Ncf
from guidelens.models.baselines.popularity import Popularity
from guidelens.models.baselines.recommender import Recommender
from guidelens.models.baselines.transitions import transitions
from guidelens.models.histories import Histories
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

SPLIT_SEED = 2020
TOP = 10
_NUM_BOOTSTRAP = 1000
_OURS = "hybrid"


class Row(Frozen):
    """Mean over users with a test film. chosen: the settings that ranked validation films best, None where there is nothing to choose."""

    ndcg_at_10: Interval
    recall_at_10: Interval
    val_ndcg_at_10: float
    chosen: str
    seconds: float


class TopNStudy(Frozen):
    machine: str
    date: str
    command: str
    users: int
    films: int
    rows: dict[str, Row]
    ndcg_gain_of_hybrid: dict[str, Interval]


def read(folder: Path) -> tuple[Histories, Histories, Histories]:
    """Training, validation and test films of each user, oldest first.

    Raises:
        InputError: the folder holds neither file.
    """
    for name, has_header in (("ml-100k.inter", True), ("u.data", False)):
        if (folder / name).is_file():
            names = ["user", "film", "rating", "ts"]
            frame = pl.read_csv(folder / name, separator="\t", has_header=has_header, new_columns=names)
            break
    else:
        raise InputError(f"--data must be a folder with ml-100k.inter or u.data, got {folder}")
    part = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(frame.height) * 10 // frame.height
    part_of_row = np.where(part < 8, 0, part - 7)
    frame = frame.with_columns(pl.col("user").rank("dense") - 1, pl.col("film").rank("dense") - 1, pl.Series("part", part_of_row)).sort("user", "ts", "film")
    users, films = int(frame["user"].max()) + 1, int(frame["film"].max()) + 1  # type: ignore[arg-type]
    return tuple(_histories(frame.filter(pl.col("part") == number), users, films) for number in range(3))  # type: ignore[return-value]


def _histories(frame: pl.DataFrame, users: int, films: int) -> Histories:
    counts = np.bincount(frame["user"].to_numpy(), minlength=users)
    return Histories(np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]), frame["film"].to_numpy().astype(np.int64), films)


def metrics(recommender: Recommender, known: Histories, hidden: Histories, out: tuple[Histories, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NDCG@10 and recall@10 of each user with a hidden film; films of `out` are left out of the ranking."""
    scores_RN = np.array(recommender.scores(known), dtype=np.float32)
    for taken in out:
        scores_RN[taken.rows, taken.products] = -np.inf
    top = np.argsort(-scores_RN, axis=1, kind="stable")[:, :TOP]
    relevant = hidden.matrix().toarray() > 0
    hit = np.take_along_axis(relevant, top, axis=1)
    num, discount = relevant.sum(axis=1), 1 / np.log2(np.arange(hit.shape[1]) + 2)
    best = np.concatenate([[np.inf], np.cumsum(discount)])[np.minimum(num, len(discount))]
    asked = num > 0
    return ((hit * discount).sum(axis=1) / best)[asked], (hit.sum(axis=1) / np.maximum(num, 1))[asked]


def candidates(train: Histories) -> Iterator[tuple[str, list[tuple[str, Callable[[], Recommender]]]]]:
    """Each recommender's settings, from which validation chooses."""
    yield "popularity", [("", lambda: Popularity.fit(train))]
    grid = list(itertools.product((50, 100, 300, 600), (0.0, 10.0)))
    yield "item_knn", [(f"cosine, k {k}, shrinkage {s:g}", lambda k=k, s=s: item_knn(train, num_neighbours=k, shrinkage=s)) for k, s in grid]  # type: ignore[misc]
    yield "item_knn_pearson", [(f"k {k}", lambda k=k: item_knn(train, similarity="pearson", num_neighbours=k)) for k in (20, 50, 100)]  # type: ignore[misc]
    users = list(itertools.product((50, 100, 200), (0.0, 0.3)))
    yield "user_knn", [(f"k {k}, rarity {r}", lambda k=k, r=r: UserKnn.fit(train, num_neighbours=k, rarity=r)) for k, r in users]  # type: ignore[misc]
    yield "transitions", [(f"decay {d}", lambda d=d: transitions(train, backward=1.0, decay=d, gap_decay=0.9)) for d in (0.9, 0.97, 0.99)]  # type: ignore[misc]
    yield "ease", [(f"l2 {l2:g}", lambda l2=l2: ease(train, l2=l2)) for l2 in (100.0, 200.0, 400.0, 800.0)]  # type: ignore[misc]
    factors = list(itertools.product((32, 64), (2.0, 4.0), (20.0, 50.0, 100.0)))
    yield "als", [(f"{d} factors, alpha {a:g}, l2 {l2:g}", lambda d=d, a=a, l2=l2: Als.fit(train, num_factors=d, alpha=a, l2=l2)) for d, a, l2 in factors]  # type: ignore[misc]
    yield "ncf", [(f"{epochs} epochs", lambda epochs=epochs: Ncf.fit(train, epochs=epochs)) for epochs in (10, 20)]  # type: ignore[misc]


def studied(parts: tuple[Histories, Histories, Histories]) -> TopNStudy:
    train, val, test = parts
    chosen: dict[str, Recommender] = {}
    rows: dict[str, Row] = {}
    ndcg: dict[str, NDArray[np.float64]] = {}

    def keep(name: str, one: Recommender, setting: str, val_ndcg: float, seconds: float) -> None:
        ndcg[name], recall = metrics(one, train, test, (train, val))
        drawn = {"num_bootstrap": _NUM_BOOTSTRAP, "seed": 0}
        found = (mean_interval(ndcg[name], **drawn), mean_interval(recall, **drawn))  # type: ignore[arg-type]
        rows[name] = Row(ndcg_at_10=found[0], recall_at_10=found[1], val_ndcg_at_10=val_ndcg, chosen=setting, seconds=seconds)
        progress(f"{name}: NDCG@10 {found[0].value:.4f} ({setting})")

    for name, settings in candidates(train):
        begun = time.perf_counter()
        fitted = [(float(metrics(one, train, val, (train,))[0].mean()), setting, one) for setting, one in ((setting, fit()) for setting, fit in settings)]
        val_ndcg, setting, chosen[name] = max(fitted, key=lambda found: found[0])
        keep(name, chosen[name], setting, val_ndcg, (time.perf_counter() - begun) / len(settings))
    begun = time.perf_counter()
    mixed = Hybrid.fit(chosen, train, val)
    keep(_OURS, mixed, "", float(metrics(mixed, train, val, (train,))[0].mean()), time.perf_counter() - begun)
    return TopNStudy(
        machine=machine(),
        date=today(),
        command="python -m benchmarks.top_n --data ml-100k",
        users=len(train),
        films=train.num_products,
        rows=rows,
        ndcg_gain_of_hybrid={
            name: paired_difference(ndcg[_OURS], found, num_bootstrap=_NUM_BOOTSTRAP, seed=0) for name, found in ndcg.items() if name != _OURS
        },
    )


def as_markdown(study: TopNStudy) -> str:
    lines = [
        "# Top-N on MovieLens-100k",
        "",
        f"`{study.command}`, {study.machine}, {study.date}: {study.users} users, {study.films} films, rows 8:1:1 at random (seed {SPLIT_SEED}).",
        "Mean over users with a test film, 95 % interval over users; settings chosen on validation. Gain: the hybrid's NDCG@10 minus this one's.",
        "",
        "| | NDCG@10 | Recall@10 | hybrid's gain | validation NDCG@10 | chosen | s a fit |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in study.rows.items():
        gain = study.ndcg_gain_of_hybrid.get(name)
        cells = [
            _cell(row.ndcg_at_10),
            _cell(row.recall_at_10),
            "" if gain is None else _cell(gain),
            f"{row.val_ndcg_at_10:.4f}",
            row.chosen,
            f"{row.seconds:.1f}",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _cell(found: Interval) -> str:
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder with ml-100k.inter or u.data.")
@click.option("--json", "out", default=None, type=click.Path(dir_okay=False, path_type=Path), help="File for the figures.")
def command(data: Path, out: Path | None) -> None:
    """Rank held-back films by every recommender, and print the table."""
    torch.set_num_threads(1)
    study = studied(read(data))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(study.model_dump(mode="json"), indent=1) + "\n")
    print(as_markdown(study))


if __name__ == "__main__":
    run_command(command)
