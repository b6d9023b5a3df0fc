"""Write a simulated shop's files, of any size, with the truth behind them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from pydantic import ValidationError

from guidelens.config import WorldSize
from guidelens.errors import ConfigError
from guidelens.schemas.base import Frozen
from pipelines.entry import emit, progress, run_command

if TYPE_CHECKING:
    from guidelens.world import Trouble, WorldPaths

_DEFAULT = WorldSize()


class WorldResult(Frozen):
    """Where the files are (null for what was not asked for), how many records they hold, and how often each fault occurs in the events."""

    catalogue: str | None
    photos: str | None
    shoppers: str
    withdrawals: str | None
    reviews: str | None
    events: str
    truth: str
    num_products: int
    num_shoppers: int
    num_sessions: int
    num_events: int
    faults: dict[str, int]


@click.group("world", help=__doc__)
def command() -> None:
    pass


@command.command("generate", help="Draw a shop. The same seed gives the same bytes with any number of workers; memory does not grow with the events.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to; its events and truth are replaced.")
@click.option("--shoppers", type=click.IntRange(min=20), default=_DEFAULT.num_shoppers, show_default=True)
@click.option("--sessions", type=click.IntRange(min=100), default=_DEFAULT.num_sessions, show_default=True, help="A session is about 17 events.")
@click.option("--products", type=click.IntRange(min=12), default=_DEFAULT.num_products, show_default=True)
@click.option("--days", type=click.IntRange(min=7), default=_DEFAULT.num_days, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--world", type=click.Choice(["world_v1", "world_v2"]), default="world_v1", show_default=True, help="Frozen parameters; docs/world.md.")
@click.option("--trouble", multiple=True, metavar="NAME=VALUE", help="A fault of the log, with its truth; repeatable. docs/world.md lists them.")
@click.option("--format", "events_format", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("--photos/--no-photos", "with_photos", default=True, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
def generate_command(
    out: Path,
    shoppers: int,
    sessions: int,
    products: int,
    days: int,
    seed: int,
    world: str,
    trouble: tuple[str, ...],
    events_format: Literal["jsonl", "parquet"],
    with_photos: bool,
    workers: int,
) -> None:
    from guidelens.world import generate
    from guidelens.world.parameters import WORLDS

    size = WorldSize(num_products=products, num_shoppers=shoppers, num_sessions=sessions, num_days=days)
    parameters = WORLDS[world].model_copy(update={"trouble": read_trouble(trouble)})
    paths = generate(
        size, seed, out.absolute(), parameters=parameters, num_workers=workers, events_format=events_format, with_photos=with_photos, tell=progress
    )
    emit(_result(paths, size))


def read_trouble(settings: Sequence[str]) -> "Trouble":
    """The switches that `NAME=VALUE` settings turn.

    Raises:
        ConfigError: a setting names no switch, or its value does not fit it.
    """
    from guidelens.world import Trouble

    pairs = [setting.partition("=") for setting in settings]
    try:
        return Trouble.model_validate({name: value for name, _, value in pairs})
    except ValidationError as error:
        first = error.errors()[0]
        switches = ", ".join(Trouble.model_fields)
        raise ConfigError(f"--trouble must be NAME=VALUE of {switches}, got {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _result(paths: "WorldPaths", size: WorldSize) -> WorldResult:
    from guidelens.world.trouble import TroubleTruth

    def text(path: Path | None) -> str | None:
        return None if path is None else str(path)

    return WorldResult(
        catalogue=text(paths.catalogue),
        photos=text(paths.photos),
        shoppers=str(paths.shoppers),
        withdrawals=text(paths.withdrawals),
        reviews=text(paths.reviews),
        events=str(paths.events),
        truth=str(paths.truth),
        num_products=size.num_products,
        num_shoppers=size.num_shoppers,
        num_sessions=size.num_sessions,
        num_events=paths.num_events,
        faults=TroubleTruth.model_validate_json((paths.truth / "trouble.json").read_text()).counts,
    )


if __name__ == "__main__":
    run_command(command)
