"""The whole loop on one machine: source -> ingest -> features -> training -> evaluation -> release -> serving -> feedback.

Every stage is the verb a shop would call, with the same code; only where the data comes from differs (demo_sources.py).
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from guidelens.config import Config, Home
from guidelens.data.lake.lake import Lake
from guidelens.data.records.sources import IngestSources, Kind
from guidelens.errors import CallerError, ConfigError, GuideLensError
from guidelens.evaluation.report import ReleaseReport, Report, StageTime, read_report, write_report
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import Table
from pipelines.cluster import ray_session
from pipelines.entry import config_options, emit, home_option, progress, run_command
from pipelines.ports import free_port

if TYPE_CHECKING:
    from pipelines.demo_sources import DemoShop

SourceName = Literal["world", "grocery-store"]
SHOPPERS = ("s-000007", "s-000019", "s-000042")
"""Who asks: shoppers of the simulated log."""
_MARK = "demo.json"


class DemoResult(Frozen):
    """`report`: path of report.json. `url`: where the page is, with --keep-serving."""

    report: str
    home: str
    url: str | None = None


class DemoMark(Frozen):
    """What a home's demo was made of, kept in demo.json. `manifest`: the lake version it trained on, so that a repeat trains on
    the same rows, whatever feedback came in since."""

    source: SourceName
    seed: int
    preset: str
    manifest: int | None = None


class Stages:
    """Runs stages, prints a line for each, and remembers how long they took."""

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        progress(f"[{len(self.seconds) + 1:2d}] {name} ...")
        start = time.perf_counter()
        yield
        took = time.perf_counter() - start
        self.seconds.append((name, round(took, 2)))
        progress(f"     {name}: {took:.1f} s")


def _claim(home: Home, wanted: DemoMark) -> DemoMark:
    """The home's mark, written on first use; a home that holds other data is refused rather than mixed or wiped.

    Raises:
        CallerError: the home is in use for something else.
    """
    path = home.root / _MARK
    if path.exists():
        mark = DemoMark.model_validate_json(path.read_bytes())
        if mark.model_copy(update={"manifest": None}) == wanted:
            return mark
        raise CallerError(f"home {home.root} holds the demo of {mark.source}, seed {mark.seed}, preset {mark.preset}; use another --home, or delete it")
    if (home.root / "lake").exists():
        raise CallerError(f"home {home.root} holds a lake that is not the demo's; use another --home")
    home.root.mkdir(parents=True, exist_ok=True)
    path.write_text(wanted.model_dump_json())
    return wanted


def run(home: Home, config: Config, source: SourceName, path: Path | None, out: Path, port: int, keep_serving: bool) -> DemoResult:
    """Runs the loop and leaves report.json, report.html and predictions.csv in `out`.

    Raises:
        CallerError: the source's path is missing or wrong, or the home is in use for something else.
    """
    if (source == "grocery-store") != (path is not None):
        raise ConfigError(f"--path must name the GroceryStoreDataset folder for --data grocery-store, and only there; got --data {source} --path {path}")
    mark = _claim(home, DemoMark(source=source, seed=config.seed, preset=config.preset))
    with ray_session():
        return _loop(home, config, mark, path, out, port, keep_serving)


def _loop(home: Home, config: Config, mark: DemoMark, path: Path | None, out: Path, port: int, keep_serving: bool) -> DemoResult:
    """All stages; inside a Ray session."""
    from pipelines import demo_sources, evaluate, evaluate_recognizer, ingest, materialize, promote, release, train

    stages = Stages()
    with stages.stage("prepare the source"):
        shop = demo_sources.prepare(home, config, mark.source, path)
    with stages.stage("ingest catalogue and photos"):
        ingest.run(home, config, shop.catalogue_sources)
    with stages.stage("simulate shoppers"):
        world = demo_sources.shoppers(home, config, shop)
    with stages.stage("ingest shoppers and events"):
        taken = ingest.run(home, config, IngestSources(shoppers=str(world.shoppers), events=(str(world.events),)))
    mark = _with_manifest(home, mark, taken.manifest)
    with stages.stage("materialize features"):
        materialize.run(home, config, manifest=mark.manifest)
    with stages.stage("train"):
        fitted = train.run(home, _in_minutes(config), manifest=mark.manifest)
    with stages.stage("evaluate"):
        report = read_report(Path(evaluate.run(home, fitted.run, world.root).report))
    with stages.stage("release and promote"):
        released = release.run(home, fitted.run)
        if released.alias is None:
            failed = "; ".join(f"{check.name}: {check.why}" for check in released.gate if check.passed is False)
            raise GuideLensError(f"version {released.version} did not pass the gate: {failed}")
        promote.run(home, released.version)
    with stages.stage("recognize unseen photos"):
        seen = evaluate_recognizer.run(home, "champion", shop.holdout_folder, shop.holdout_labels, out / "recognition.json")
    sections = {
        "source": mark.source,
        "seed": config.seed,
        "recognition": seen.report,
        "release": ReleaseReport(version=released.version, alias="champion", gate=released.gate),
    }
    return _serve_and_report(home, config, stages, shop, report.with_sections(**sections), out, port, keep_serving)


def _in_minutes(config: Config) -> Config:
    recognizer = config.train.recognizer.model_copy(update={"tuning": config.demo.tuning})
    return config.model_copy(update={"train": config.train.model_copy(update={"recognizer": recognizer})})


def _with_manifest(home: Home, mark: DemoMark, manifest: int) -> DemoMark:
    if mark.manifest is not None:
        return mark
    mark = mark.model_copy(update={"manifest": manifest})
    (home.root / _MARK).write_text(mark.model_dump_json())
    return mark


def _serve_and_report(home: Home, config: Config, stages: Stages, shop: "DemoShop", report: Report, out: Path, port: int, keep_serving: bool) -> DemoResult:
    """Serves the champion, asks it about unseen frames, sends feedback back into the lake, and writes the report."""
    from pipelines import ingest, serve_graph
    from pipelines.demo_answers import NUM_PRINTED, as_text, ask, figures, send_feedback, spread

    with ExitStack() as stack:
        with stages.stage("start serving"):
            url = stack.enter_context(serve_graph.start(home, "champion", "127.0.0.1", port or free_port(), config))
        with stages.stage("ask about unseen frames"):
            asked = ask(url, spread(shop.holdout(), config.demo.num_requests), SHOPPERS)
        for one in asked[:NUM_PRINTED]:
            progress(as_text(one, titles(home)))
        with stages.stage("feedback into the lake"):
            sent = send_feedback(url, asked, SHOPPERS)
            taken = ingest.run(home, config, IngestSources())
            progress(f"     {sent} events sent, {taken.accepted[Kind.EVENTS]} rows taken in with the exposures of the replies")
        times = tuple(StageTime(name=name, seconds=seconds) for name, seconds in stages.seconds)
        path = write_report(report.with_sections(serving=figures(asked), stages=times), out)
        progress(f"report: {path.with_suffix('.html')}")
        if keep_serving:
            progress(f"the page is at {url}; Ctrl-C stops it")
            _until_interrupted()
    return DemoResult(report=str(path), home=str(home.root), url=url if keep_serving else None)


def titles(home: Home) -> dict[str, str]:
    """Product titles by id, for printing."""
    rows = Lake(home.lake_uri, home.s3).read(Table.PRODUCTS, ["product_id", "title"])
    return dict(rows.iter_rows())


def _until_interrupted() -> None:
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(1.0)


@click.command("demo")
@click.option("--data", "source", type=click.Choice(["world", "grocery-store"]), default="world", show_default=True, help="The simulated shop, or real photos.")
@click.option("--path", type=click.Path(exists=True, file_okay=False, path_type=Path), default=None, help="Folder of the real data set.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("out/demo"), show_default=True, help="Where the report goes.")
@click.option("--keep-serving", is_flag=True, help="Leave the page up until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the served graph.  [default: a free one]")
@home_option
@config_options
def command(home: Home, config: Config, source: SourceName, path: Path | None, out: Path, keep_serving: bool, port: int) -> None:
    """Run the whole loop, from raw files to served answers, and leave a report."""
    emit(run(home, config, source, path, out.absolute(), port, keep_serving))


if __name__ == "__main__":
    run_command(command)
