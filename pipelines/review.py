"""`guidelens review`: frames that showed nothing of the catalogue, and what people say they show."""

from pathlib import Path

import click

from guidelens.config import Home
from guidelens.data.review import ReviewEntry, ReviewQueue, check_label
from guidelens.errors import InputError
from guidelens.schemas.tables import Table
from pipelines.entry import emit, home_option, progress, run_command

_lake_option = click.option("--lake", default=None, metavar="URI", help="Lake whose catalogue the product must be in; the home's by default.")


def _queue(home: Home) -> ReviewQueue:
    return ReviewQueue(home.review, home.keys)


def _shown(entry: ReviewEntry) -> dict[str, object]:
    return entry.model_dump(mode="json", exclude={"embedding_base64"})


@click.group("review", help=__doc__)
def command() -> None:
    pass


@command.command("list")
@home_option
def list_command(home: Home) -> None:
    """What waits, oldest first; what has expired is removed."""
    entries = _queue(home).entries()
    for entry in entries:
        guessed = ", ".join(f"{guess.product_id} {guess.confidence:.0%}" for guess in entry.guesses[:2]) or "nothing"
        said = f"labelled {entry.product_id}" if entry.product_id else f"resembles {guessed}"
        progress(f"{entry.entry_id}  {entry.seen_ts:%Y-%m-%d %H:%M}  {'frame' if entry.has_frame else 'no frame'}  {said}")
    emit({"entries": [_shown(entry) for entry in entries]})


@command.command("show")
@click.argument("entry_id", metavar="ID")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write the frame here, where its shopper agreed to its being kept.")
@home_option
def show_command(home: Home, entry_id: str, out: Path | None) -> None:
    """One entry; its frame goes to --out, decrypted."""
    queue = _queue(home)
    entry = queue.entry(entry_id)
    if out is not None:
        if out.exists():
            raise InputError(f"--out must name a new file, got {out}, which exists")
        out.write_bytes(queue.frame(entry_id))
    emit({**_shown(entry), "frame": None if out is None else str(out.absolute())})


@command.command("label")
@click.argument("entry_id", metavar="ID")
@click.argument("product_id", metavar="PRODUCT")
@_lake_option
@home_option
def label_command(home: Home, entry_id: str, product_id: str, lake: str | None) -> None:
    """Say what an entry shows; the next `guidelens ingest` makes it a photo of the product."""
    from guidelens.data.lake.lake import Lake

    check_label(product_id, set(Lake(lake or home.lake_uri, home.s3).read(Table.PRODUCTS, ["product_id"])["product_id"]))
    emit(_shown(_queue(home).label(entry_id, product_id)))


@command.command("drop")
@click.argument("entry_ids", nargs=-1, required=True, metavar="ID...")
@home_option
def drop_command(home: Home, entry_ids: tuple[str, ...]) -> None:
    """Remove entries, and their frames."""
    queue = _queue(home)
    for entry_id in entry_ids:
        queue.drop(entry_id)
    emit({"dropped": list(entry_ids)})


if __name__ == "__main__":
    run_command(command)
