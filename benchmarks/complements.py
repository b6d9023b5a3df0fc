"""Does what is shown as going together go together? Partners across categories, scored against later shoppers and the true outfits.

    python -m benchmarks.complements [--seeds 1000-1004] [--work DIR] [--out benchmarks/results]

Fitted on the training part of each shop's log, settings chosen on its validation part. Beside it: popular products, and the nearest by
image and text; all rank the products of other categories. A fifth of the products is then taken out of the training pairs, as if they
were new: what finds their partners is content alone, shown with and without it.
"""

from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from benchmarks._shops import Shop, trained_shop, work_folder
from benchmarks.seeds import Figure, figure_of, figure_rows, parse_seeds
from guidelens.evaluation.partners import baselines, held_out_gains, partner_scores, truth_gains
from guidelens.models.complements import ComplementModel, ComplementSettings, content_of, fit_complements
from guidelens.models.engaged_pairs import Pairs, category_numbers, engaged_pairs
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

COLD_SHARE = 0.2


class ComplementStudy(Frozen):
    machine: str
    date: str
    command: str
    seeds: tuple[int, ...]
    settings: tuple[ComplementSettings, ...]
    figures: dict[str, Figure]


class _Data(NamedTuple):
    """train, test: pairs. popularity_N: clicks in training. truth_NN: how well outfits fit; across_NN: of other categories."""

    category_N: NDArray[np.int64]
    train: Pairs
    test: Pairs
    popularity_N: NDArray[np.float64]
    content_NX: NDArray[np.float32]
    truth_NN: NDArray[np.float64]
    across_NN: NDArray[np.bool_]


def study(shop: Shop) -> tuple[ComplementSettings, dict[str, float]]:
    """The settings chosen for a shop and its figures by name."""
    fitted = fit_complements(shop.examples, shop.catalogue, shop.categories, shop.seed)
    assert fitted is not None, "a simulated shop has pairs enough"
    model, header = fitted
    data = _data(shop)
    scores = {
        "what goes with it": partner_scores(model.partners()),
        "what goes with it x popularity": model.log_lift(np.arange(len(shop.catalogue))) + model.log_popularity_N,
    }
    named = {"popular": "popularity", "nearest": "likeness of image and text"}
    scores |= {named[name]: each for name, each in baselines(shop.catalogue, data.popularity_N).items()}
    figures: dict[str, float] = {}
    for name, scores_NN in scores.items():
        truth, precision = truth_gains(scores_NN, data.truth_NN, data.across_NN)
        figures |= {f"NDCG@10 of true outfits, {name}": truth, f"true among the first ten, {name}": precision}
        figures[f"NDCG@10 of held-out engagements, {name}"] = float(held_out_gains(scores_NN, data.test, data.across_NN).mean())
    figures["log-likelihood of held-out engagements beyond popularity, nats"] = float(model.log_likelihoods(data.test).mean()) - _without_lift(data)
    return header.settings, figures | _cold(shop, data, header.settings)


def _data(shop: Shop) -> _Data:
    category_N, train = category_numbers(shop.categories), shop.examples.of("train")
    clicked = train.slate_rows[(train.click > 0) & (train.slate_rows >= 0)]
    return _Data(
        category_N,
        engaged_pairs(train, category_N),
        engaged_pairs(shop.examples.of("test"), category_N, co_engaged=0.0),
        np.bincount(clicked, minlength=len(shop.catalogue)).astype(np.float64),
        content_of(shop.catalogue),
        shop.world.outfits(shop.catalogue.product_ids),
        category_N[:, None] != category_N[None],
    )


def _without_lift(data: _Data) -> float:
    """Mean log chance of a held-out partner by popularity alone among products of other categories."""
    log_share_N = np.log((data.popularity_N + 5.0) / (data.popularity_N + 5.0).sum())
    logits_PN = np.where(data.across_NN[data.test.anchor], log_share_N, -np.inf)
    log_p_P = log_share_N[data.test.partner] - np.log(np.exp(logits_PN).sum(axis=1))
    return float(log_p_P.mean())


def _cold(shop: Shop, data: _Data, settings: ComplementSettings) -> dict[str, float]:
    """True outfits of products that were in no training pair: their own categories' lifts, with and without content."""
    cold_N = np.random.default_rng(shop.seed).random(len(shop.catalogue)) < COLD_SHARE
    kept = ~(cold_N[data.train.anchor] | cold_N[data.train.partner])
    pairs = Pairs(data.train.anchor[kept], data.train.partner[kept], data.train.weight[kept])
    options: dict[str, dict[str, object]] = {
        "categories and likeness": {"content": True, "decay": None},
        "categories, likeness and low-rank maps": {"content": True, "decay": 0.03},
        "categories alone": {"content": False, "decay": None},
    }
    cold, figures = np.flatnonzero(cold_N), {}
    for name, option in options.items():
        model = ComplementModel.fit(pairs, data.category_N, data.popularity_N, data.content_NX, settings.model_copy(update=option), shop.seed)
        figures[f"NDCG@10 of true outfits of products never met, {name}"] = truth_gains(model.log_lift(cold), data.truth_NN[cold], data.across_NN[cold])[0]
    near_NN = baselines(shop.catalogue, data.popularity_N)["nearest"]
    figures["NDCG@10 of true outfits of products never met, likeness of image and text"] = truth_gains(
        near_NN[cold], data.truth_NN[cold], data.across_NN[cold]
    )[0]
    return figures


def as_markdown(found: ComplementStudy) -> str:
    lines = [
        "# What goes with what",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. Seeds: {', '.join(map(str, found.seeds))}. Intervals: 95 %, Student's t over seeds.",
        "All rank the products of other categories than the one in view; what a shop shows of the same category is no complement.",
        "",
    ]
    return "\n".join([*lines, *figure_rows(found.figures, ".3f"), ""])


@click.command()
@click.option("--seeds", default="1000-1004", show_default=True, callback=parse_seeds)
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), default=None, help="Where shops are kept.  [default: nowhere]")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(seeds: tuple[int, ...], work: Path | None, out: Path) -> None:
    """Score what goes with what and write benchmarks/results/complements.{json,md}."""
    settings, rows = [], []
    with work_folder(work) as folder:
        for seed in seeds:
            chosen, figures = study(trained_shop(seed, folder))
            settings.append(chosen)
            rows.append(figures)
            progress(f"seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    listed = f"{seeds[0]}-{seeds[-1]}"
    found = ComplementStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.complements --seeds {listed}",
        seeds=seeds,
        settings=tuple(settings),
        figures={name: figure_of([row[name] for row in rows]) for name in rows[0]},
    )
    keep(found, as_markdown(found), out, "complements")


if __name__ == "__main__":
    run_command(command)
