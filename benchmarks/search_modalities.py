"""What is a photo, the crowd or the shopper worth to search beside words alone, and which fusion weighs them best?

    python -m benchmarks.search_modalities [--seeds 1001,1002,1003] [--preset laptop] [--set a.b=v ...] [--part dev|test] [--work DIR] [--out benchmarks/results]

Simulated shops, taken in and trained. Each training learns plain weights, gates and a network, lets held-back queries choose, and learns the choice
again without each modality: mean reciprocal rank of what was clicked on slates of the log's test part, and of what was meant by a product's
picture with another colour in words, each half of the mean. Natural queries (benchmarks/data/search_queries.csv) are asked with the prior and
with the learned weights beside that: what clicks teach must not unlearn words.
"""

import json
import shutil
from pathlib import Path

import click
import numpy as np
import polars as pl

from benchmarks._results import keep, machine, today
from benchmarks._shops import taken_in, work_folder
from benchmarks.search_quality import Part, measured, queries, wanted_rows
from guidelens.config import Home
from guidelens.encoders.text import load_text_encoder
from guidelens.inference.content import Content
from guidelens.inference.guide_files import ITEMS, load_items
from guidelens.inference.search.engine import SearchEngine
from guidelens.inference.search.files import FOLDER
from guidelens.inference.search.shop import engine_of
from guidelens.inference.search.weighing import Weighing
from guidelens.presets import load
from guidelens.schemas.base import Frozen
from guidelens.schemas.catalog import Product
from pipelines.entry import progress, run_command


class Shop(Frozen):
    """validation: by fusion, of the queries that chose. gains: by modalities, of queries that neither learned nor chose. natural: R@5 of
    natural queries with the prior and with the learned weights."""

    seed: int
    products: int
    queries: int
    chosen: str
    validation: dict[str, float]
    gains: dict[str, float]
    natural: dict[str, float]
    natural_queries: int


class Measured(Frozen):
    machine: str
    date: str
    command: str
    shops: tuple[Shop, ...]


def trained(seed: int, preset: str, settings: tuple[str, ...], work: Path) -> Path:
    """The fit of a shop drawn from a seed."""
    from pipelines import train
    from pipelines.cluster import ray_session

    folder = work / f"{preset}-{seed}"
    if not (folder / "fit").exists():
        shutil.rmtree(folder, ignore_errors=True)
        config = load(preset, ["train.single_task_controls=false", *settings], seed=seed)
        home = Home(root=folder / "home")
        with ray_session():
            done = train.run(home, config, manifest=taken_in(home, config, folder))
        shutil.copytree(done.fit, folder / "fit")
    return folder / "fit"


def of_fit(fit: Path, seed: int, part: Part) -> Shop:
    header = Weighing.load(fit / FOLDER).header
    items, catalogue = load_items(fit)
    products = [_product(row) for row in pl.read_parquet(fit / ITEMS).iter_rows(named=True)]
    asked = [(query, wanted) for query in queries(part) if query.shop == "world" and query.wanted and (wanted := wanted_rows(query, products))]
    engine = engine_of(fit, Content.load(fit, catalogue), load_text_encoder(), None)
    prior = SearchEngine(engine.texts, engine.spelling, engine.filters, Weighing(), engine.content, engine.embed)
    natural = {name: measured(each, asked)[0] for name, each in (("prior", prior), ("learned", engine))}
    return Shop(
        seed=seed, products=len(items), queries=header.queries, chosen=header.kind, validation=header.validation, gains=header.gains, natural=natural,
        natural_queries=len(asked),
    )  # fmt: skip


def _product(row: dict[str, object]) -> Product:
    attributes = json.loads(str(row.get("attributes_json") or "{}"))
    return Product(product_id=str(row["product_id"]), title=str(row["title"]), category=str(row["category"]), attributes=attributes)


def as_markdown(found: Measured) -> str:
    lines = ["# What search is weighed by", "", f"`{found.command}`, {found.machine}, {found.date}. Mean reciprocal ranks.", ""]
    for title, of in (
        ("Fusions, on queries that chose", "validation"),
        ("Learned with, on queries that neither learned nor chose", "gains"),
        ("R@5 of natural queries", "natural"),
    ):
        names = list(getattr(found.shops[0], of))
        lines += [f"## {title}", "", f"| seed | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
        rows = [[getattr(shop, of)[name] for name in names] for shop in found.shops]
        lines += [f"| {shop.seed} | {' | '.join(f'{value:.3f}' for value in row)} |" for shop, row in zip(found.shops, rows, strict=True)]
        if len(rows) > 1:
            means, deviations = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
            lines.append(f"| mean | {' | '.join(f'{mean:.3f} ± {deviation:.3f}' for mean, deviation in zip(means, deviations, strict=True))} |")
        lines.append("")
    said = "; ".join(
        f"seed {shop.seed}: {shop.products} products, {shop.queries} queries, {shop.chosen} chosen, {shop.natural_queries} natural" for shop in found.shops
    )
    return "\n".join([*lines, f"{said}.", ""])


@click.command()
@click.option("--seeds", default="1001,1002,1003", show_default=True)
@click.option("--preset", default="laptop", show_default=True)
@click.option("--set", "settings", multiple=True, metavar="a.b=v")
@click.option("--part", default="test", show_default=True, type=click.Choice(["dev", "test"]), help="Of the natural queries.")
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), help="Keeps the shops.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(seeds: str, preset: str, settings: tuple[str, ...], part: Part, work: Path | None, out: Path) -> None:
    """Train shops and write benchmarks/results/search_modalities.{json,md}."""
    with work_folder(work) as folder:
        shops = []
        for seed in seeds.split(","):
            shops.append(of_fit(trained(int(seed), preset, settings, folder), int(seed), part))
            progress(f"seed {seed}: {shops[-1].gains}")
    shown = " ".join(["python -m benchmarks.search_modalities", f"--seeds {seeds} --preset {preset} --part {part}", *(f"--set {each}" for each in settings)])
    kept = Measured(machine=machine(), date=today(), command=shown, shops=tuple(shops))
    keep(kept, as_markdown(kept), out, "search_modalities")


if __name__ == "__main__":
    run_command(command)
