"""Who is new, and what is: how well shoppers without a past and products without one are served, and what each part that is there for them buys.

    python -m benchmarks.cold_start [--seeds 1000-1004] [--work DIR] [--out benchmarks/results]

A fifth of each shop's products appears after training: they are in the catalogue, and nothing of them is in the training and validation rows
(no impression, no click, no visit, no session about one). The joint model is fitted on the same rows as it ships, and without each part; the
baselines beside it are fitted and chosen as in every report. Figures are of the test requests with a click, the whole catalogue ranked.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from benchmarks._shops import untrained_shop, work_folder
from benchmarks.seeds import Figure, figure_of, parse_seeds
from guidelens.config import Config, WorldSize
from guidelens.data.examples import Examples, concat
from guidelens.data.visits import InterestMedians
from guidelens.evaluation.guide import classic_baselines
from guidelens.evaluation.ranking import ProductScorer, RankingRows, clicked_requests, score_requests
from guidelens.evaluation.slices import PROFILE_ONLY, SESSION_ONLY, product_slices, slices
from guidelens.inference.guide_files import ITEMS
from guidelens.inference.scorer import GuideScorer
from guidelens.models.items import Catalogue
from guidelens.models.outcomes import with_targets
from guidelens.presets import load
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.packed import NUM_RECENT, PACKED_DTYPE
from guidelens.training.data import FitJob
from guidelens.training.fit import fit_guide
from guidelens.training.publish import publish
from pipelines.cluster import ray_session
from pipelines.entry import progress, run_command

# Letters: R = requests, N = products, K = places of a slate, V = recent visits.

NEW_SHARE = 0.2
SHIPPED = "model"
_STILL, _SLOW = "train.model.content_noise=0", "train.likeness_pace=1"
MODELS: dict[str, tuple[str, ...]] = {
    SHIPPED: (),
    "model, no ids dropped": ("train.model.id_dropout=0",),
    "model, content without noise": (_STILL,),
    "model, likeness at the common pace": (_SLOW,),
    "model, neither of the two": (_STILL, _SLOW),
}
"""Settings of the joint model by what it is called."""
PEERS = ("popularity", "item_knn", "transitions", "hybrid", "content")
KNOWN = "known shopper and products"
SMALL = WorldSize(num_products=160, num_shoppers=800, num_sessions=9000, num_frames=320, views_per_product=3)


class ColdStudy(Frozen):
    """figures: (slice, ranked by, metric) joined by ` | `; gains: of the shipped model over each other, NDCG@10, paired by seed."""

    machine: str
    date: str
    command: str
    seeds: tuple[int, ...]
    requests: dict[str, tuple[int, ...]]
    figures: dict[str, Figure]
    gains: dict[str, Figure]


def new_products(seed: int, num_products: int) -> NDArray[np.bool_]:
    """(N,) which products appear after training."""
    return np.random.default_rng(sub_seed(seed, "new_products")).random(num_products) < NEW_SHARE


def before_launch(examples: Examples, new_N: NDArray[np.bool_], hashes_N: NDArray[np.int64]) -> Examples:
    """The log as it would be had the new products appeared where the test part begins.

    Sessions about one are not in the training and validation rows, and no slate there shows one; of visits to one only those of the
    test part's time are in any shopper's past.
    """
    test = examples.of("test")
    about = _among(examples.focus_row, new_N) | _among(examples.plan_row, new_N)
    early = examples.take((examples.split != "test") & ~about)
    hidden_RK = _among(early.slate_rows, new_N)
    early = dataclasses.replace(
        early,
        slate_rows=np.where(hidden_RK, -1, early.slate_rows).astype(np.int32),
        click=np.where(hidden_RK, 0, early.click).astype(np.float32),
        purchase=np.where(hidden_RK, 0, early.purchase).astype(np.float32),
        interest_observed=early.interest_observed & ~hidden_RK,
    )
    whole, launch_us = concat([early, test]), int(test.ts_us.min())
    return dataclasses.replace(whole, packed=np.array([_without(row, hashes_N[new_N], launch_us) for row in whole.packed], dtype=object))


def _among(rows: NDArray[np.integer], chosen_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray((rows >= 0) & chosen_N[np.maximum(rows, 0)])


def _without(packed: bytes | None, hashes: NDArray[np.int64], launch_us: int) -> bytes | None:
    """A shopper's row without visits to some products before a time; what is left moves up."""
    if packed is None:
        return None
    row = np.frombuffer(packed, dtype=PACKED_DTYPE).copy()
    visits_V = np.arange(NUM_RECENT) < row["num_recent"][0]
    gone_V = visits_V & np.isin(row["recent_products"][0], hashes) & (row["recent_ts_us"][0] < launch_us)
    if not gone_V.any():
        return packed
    kept = np.flatnonzero(visits_V & ~gone_V)
    for name in ("recent_products", "recent_ts_us", "recent_values"):
        values = row[name][0].copy()
        row[name][0] = 0
        row[name][0, : len(kept)] = values[kept]
    row["num_recent"] = len(kept)
    return bytes(row.tobytes())


def of_seed(seed: int, settings: tuple[str, ...] = ()) -> Config:
    """The default settings but for those given, on a small shop."""
    config = load("laptop", settings, seed=seed)
    return config.model_copy(update={"demo": config.demo.model_copy(update={"world": SMALL})})


def study(config: Config, work: Path) -> tuple[dict[str, int], dict[str, float]]:
    """Requests of each slice, and a shop's figures by slice, scorer and metric."""
    items, examples = untrained_shop(config, work)
    catalogue = Catalogue.of_table(items)
    new_N = new_products(config.seed, len(catalogue))
    examples = with_targets(before_launch(examples, new_N, catalogue.hashes_N), catalogue, config)
    test = examples.of("test")
    folder = Path(tempfile.mkdtemp(prefix="gl-cold-"))
    try:
        scorers: dict[str, ProductScorer] = {**fitted(items, examples, config.seed, folder)}
        scorers |= {name: scorer for name, scorer in classic_baselines(examples, catalogue).items() if name in PEERS}
        rows = {name: score_requests(scorer, test) for name, scorer in scorers.items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    masks = cold_slices(test, new_N, items["category"].fill_null("").to_list())
    return {name: int(mask.sum()) for name, mask in masks.items()}, figures_of(rows, masks)


def fitted(items: pl.DataFrame, examples: Examples, seed: int, folder: Path) -> dict[str, GuideScorer]:
    """The joint model with each of MODELS' settings; batches, first weights and all else are the same."""
    catalogue, found = Catalogue.of_table(items), {}
    with ray_session():
        for number, (name, settings) in enumerate(MODELS.items()):
            config, own = of_seed(seed, settings), folder / str(number)
            jobs = [FitJob(name="guide", lambdas=dict(config.train.lambdas), model=config.train.model)]
            publish(fit_guide(examples, catalogue, config, jobs, own / "work"), jobs, examples, catalogue, InterestMedians(), own / "fit")
            items.write_parquet(own / "fit" / ITEMS)
            found[name] = GuideScorer.load(own / "fit")
    return found


def cold_slices(test: Examples, new_N: NDArray[np.bool_], categories: list[str]) -> dict[str, NDArray[np.bool_]]:
    rows_R, relevant_RK = clicked_requests(test)
    clicked = test.take(rows_R)
    of_shopper = slices(clicked)
    of_product = product_slices(clicked, relevant_RK, (~new_N).astype(np.float64), categories)
    return {
        "all requests": np.ones(len(clicked), dtype=np.bool_),
        KNOWN: of_shopper["known shoppers"] & ~of_product["new products"],
        PROFILE_ONLY: of_shopper[PROFILE_ONLY],
        SESSION_ONLY: of_shopper[SESSION_ONLY],
        "new products": of_product["new products"],
    }


def figures_of(rows: Mapping[str, RankingRows], masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    found = {}
    for part, mask in masks.items():
        for name, scores in rows.items():
            found[f"{part} | {name} | NDCG@10"] = float(scores.ndcg[mask].mean())
            found[f"{part} | {name} | HR@10"] = float(scores.hit[mask].mean())
    return found


def summed(seeds: tuple[int, ...], counts: list[dict[str, int]], rows: list[dict[str, float]]) -> ColdStudy:
    return ColdStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.cold_start --seeds {seeds[0]}-{seeds[-1]}",
        seeds=seeds,
        requests={name: tuple(each[name] for each in counts) for name in counts[0]},
        figures={name: figure_of([row[name] for row in rows]) for name in rows[0]},
        gains=gains_of(rows),
    )


def gains_of(rows: list[dict[str, float]]) -> dict[str, Figure]:
    """NDCG@10 of the shipped model less that of each other scorer, slice by slice, seed by seed."""
    others = [key for key in rows[0] if key.endswith("NDCG@10") and f"| {SHIPPED} |" not in key]
    return {key.removesuffix(" | NDCG@10"): figure_of([row[f"{key.split(' | ')[0]} | {SHIPPED} | NDCG@10"] - row[key] for row in rows]) for key in others}


def as_markdown(found: ColdStudy) -> str:
    lines = [
        "# Cold start",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. Seeds: {', '.join(map(str, found.seeds))}. Intervals: 95 %, Student's t over seeds.",
        f"A fifth of the products ({NEW_SHARE:g}) appears after training. Gain: of the model as it ships, paired by seed. Settings of the others: {_settings()}.",
        "A request is in a product's slice where one of its clicked products is; NDCG@10 is of the whole request.",
    ]
    for part, counts in found.requests.items():
        lines += ["", f"## {part[0].upper()}{part[1:]}", "", f"{sum(counts):,} requests: {', '.join(f'{count:,}' for count in counts)} by seed.", ""]
        lines += ["| ranked by | NDCG@10 | HR@10 | gain in NDCG@10 over it |", "|---|---|---|---|"]
        names = [key.split(" | ")[1] for key in found.figures if key.startswith(f"{part} | ") and key.endswith("NDCG@10")]
        for name in names:
            ndcg, hits = (found.figures[f"{part} | {name} | {metric}"] for metric in ("NDCG@10", "HR@10"))
            gain = found.gains.get(f"{part} | {name}")
            lines.append(f"| {name.replace('_', '-')} | {_shown(ndcg)} | {_shown(hits)} | {'' if gain is None else _shown(gain, '+.3f')} |")
    return "\n".join([*lines, ""])


def _settings() -> str:
    return "; ".join(f"{name}: {', '.join(f'`{setting}`' for setting in settings)}" for name, settings in MODELS.items() if settings)


def _shown(figure: Figure, digits: str = ".3f") -> str:
    return f"{figure.mean:{digits}} [{figure.low:{digits}}, {figure.high:{digits}}]"


@click.command()
@click.option("--seeds", default="1000-1004", show_default=True, callback=parse_seeds)
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), default=None, help="Where shops are kept.  [default: nowhere]")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(seeds: tuple[int, ...], work: Path | None, out: Path) -> None:
    """Measure cold start and write benchmarks/results/cold_start.{json,md}."""
    torch.set_num_threads(1)
    counts, rows = [], []
    with work_folder(work) as folder:
        for seed in seeds:
            requests, figures = study(of_seed(seed), folder)
            counts.append(requests)
            rows.append(figures)
            progress(f"seed {seed}: " + "; ".join(f"{name} {value:.3f}" for name, value in figures.items() if name.endswith("NDCG@10")))
    found = summed(seeds, counts, rows)
    keep(found, as_markdown(found), out, "cold_start")


if __name__ == "__main__":
    run_command(command)
