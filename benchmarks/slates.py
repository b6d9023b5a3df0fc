"""What a slate is made of beside its scores: are the reasons true, are the chances, and what does diversity cost?

    python -m benchmarks.slates [--seeds 1000-1004] [--work DIR] [--out benchmarks/results]

The deletion test of explanations, with attention beside it; calibration errors before and after the map that validation chose; slates of
ten with each diversity at several strengths: NDCG@10 of what was clicked, how unlike the products are by image and text (which is not what
diversity compares), and how many categories a slate shows. Milliseconds are of CPU, one request at a time on one thread.
"""

import time
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from benchmarks._shops import Shop, trained_shop, work_folder
from benchmarks.seeds import Figure, figure_of, figure_rows, parse_seeds
from guidelens.data.examples import Examples
from guidelens.evaluation.explanations import measure_explanations
from guidelens.evaluation.guide import Draws
from guidelens.evaluation.ranking import clicked_requests
from guidelens.inference.explain import Explainer
from guidelens.inference.reranking import Constraints, diversity, draw_order
from guidelens.inference.reranking.diversity import Method
from guidelens.inference.scorer import GuideScorer
from guidelens.models.complements import content_of
from guidelens.schemas.base import Frozen
from guidelens.training.publish import choose_probabilities
from pipelines.entry import progress, run_command
from pipelines.measure_why import measure_probabilities

NUM_REQUESTS = 400
NUM_CANDIDATES = 100
SLATE = 10
OPTIONS: tuple[tuple[Method, float], ...] = (("none", 0.0), ("mmr", 0.5), ("mmr", 1.0), ("mmr", 2.0), ("dpp", 0.1), ("dpp", 0.25), ("dpp", 0.5), ("dpp", 1.0))


class SlateStudy(Frozen):
    machine: str
    date: str
    command: str
    seeds: tuple[int, ...]
    click_maps: tuple[str, ...]
    figures: dict[str, Figure]


def study(shop: Shop) -> tuple[str, dict[str, float]]:
    """The map that validation chose for clicks, and a shop's figures by name."""
    scorer, test = GuideScorer.load(shop.fit), shop.examples.of("test")
    scorer.header = scorer.header.model_copy(update={"probabilities": choose_probabilities(scorer, shop.examples.of("val"))})
    chances = measure_probabilities(scorer, test)
    figures = {f"calibration error of {name}, {when}": getattr(chances, f"{name}_ece_{when}") for name in ("click", "purchase") for when in ("before", "after")}
    return chances.click_method, _reasons(scorer, test, shop) | figures | _diversity(scorer, test, shop)


def _reasons(scorer: GuideScorer, test: Examples, shop: Shop) -> dict[str, float]:
    why = measure_explanations(scorer, test, shop.items["title"].to_list(), Draws(0, shop.seed))
    assert why is not None and why.true_reasons is not None, "a simulated shop has requests to explain"
    found = {f"fall after the first input, {order}": fall.value for order, fall in why.first.items()}
    found |= {f"mean fall, {order}": area.value for order, area in why.area.items()}
    found |= {f"mean fall beyond {order}": gain.value for order, gain in why.gain_over.items()}
    spent = _explain_ms(Explainer(scorer), test)
    return found | {"reasons that are true": why.true_reasons.value, "products with a reason": why.covered, "CPU ms to explain a slate of ten": spent}


def _explain_ms(explainer: Explainer, test: Examples) -> float:
    """Median over requests."""
    spent, slate = [], np.arange(SLATE)
    for row in range(min(100, len(test))):
        request = test.take(np.array([row]))
        start = time.thread_time()
        explainer.explain(request, slate)
        spent.append(1000 * (time.thread_time() - start))
    return float(np.median(spent))


def _diversity(scorer: GuideScorer, test: Examples, shop: Shop) -> dict[str, float]:
    rows, relevant_RK = clicked_requests(test)
    asked, relevant_RK = test.take(rows[:NUM_REQUESTS]), relevant_RK[:NUM_REQUESTS]
    scores_RN = scorer.product_scores(asked).astype(np.float64)
    vectors, content, categories = scorer.items_ND.numpy(), content_of(shop.catalogue), np.array(shop.categories)
    figures = {}
    for method, strength in OPTIONS:
        slates, spent = _slates(scores_RN, vectors, method, strength)
        named = "no diversity" if method == "none" else f"{method} {strength:g}"
        clicked = [set(each[hit].tolist()) for each, hit in zip(asked.slate_rows, relevant_RK, strict=True)]
        figures[f"NDCG@10, {named}"] = float(np.mean([_ndcg(slate, wanted) for slate, wanted in zip(slates, clicked, strict=True)]))
        figures[f"unlikeness, {named}"] = float(np.mean([_unlike(content[slate]) for slate in slates]))
        figures[f"categories a slate, {named}"] = float(np.mean([len(set(categories[slate])) for slate in slates]))
        figures[f"CPU ms a slate, {named}"] = spent
    return figures


def _slates(scores_RN: NDArray[np.float64], vectors: NDArray[np.float32], method: Method, strength: float) -> tuple[list[NDArray[np.int64]], float]:
    """Greedy slates of the best candidates, and the median milliseconds of one."""
    slates, spent, rng = [], [], np.random.default_rng(0)
    for scores_N in scores_RN:
        best = np.argsort(-scores_N, kind="stable")[:NUM_CANDIDATES]
        start = time.thread_time()
        order = draw_order(scores_N[best], Constraints(np.ones(len(best), dtype=np.bool_)), diversity(method, strength, vectors[best]), 0.0, SLATE, rng)
        spent.append(1000 * (time.thread_time() - start))
        slates.append(best[order.chosen])
    return slates, float(np.median(spent))


def _ndcg(slate: NDArray[np.int64], wanted: set[int]) -> float:
    discount = 1 / np.log2(np.arange(SLATE) + 2.0)
    return float(discount[[row in wanted for row in slate.tolist()]].sum() / discount[: min(len(wanted), SLATE)].sum())


def _unlike(content: NDArray[np.float32]) -> float:
    """1 less the mean cosine of the slate's pairs, images and texts side by side."""
    unit = content / np.linalg.norm(content, axis=1, keepdims=True)
    return float(1 - (unit @ unit.T)[np.triu_indices(len(unit), 1)].mean())


def as_markdown(found: SlateStudy) -> str:
    lines = [
        "# Slates: reasons, chances, diversity",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. Seeds: {', '.join(map(str, found.seeds))}. Intervals: 95 %, Student's t over seeds.",
        f"Falls are of the first product's log chance among the whole catalogue, nats. Maps that validation chose for clicks: {', '.join(found.click_maps)}.",
        "",
    ]
    return "\n".join([*lines, *figure_rows(found.figures), ""])


@click.command()
@click.option("--seeds", default="1000-1004", show_default=True, callback=parse_seeds)
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), default=None, help="Where shops are kept.  [default: nowhere]")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(seeds: tuple[int, ...], work: Path | None, out: Path) -> None:
    """Measure what slates are made of and write benchmarks/results/slates.{json,md}."""
    torch.set_num_threads(1)
    maps, rows = [], []
    with work_folder(work) as folder:
        for seed in seeds:
            click_map, figures = study(trained_shop(seed, folder))
            maps.append(click_map)
            rows.append(figures)
            progress(f"seed {seed}: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))
    found = SlateStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.slates --seeds {seeds[0]}-{seeds[-1]}",
        seeds=seeds,
        click_maps=tuple(maps),
        figures={name: figure_of([row[name] for row in rows]) for name in rows[0]},
    )
    keep(found, as_markdown(found), out, "slates")


if __name__ == "__main__":
    run_command(command)
