"""The keys that pseudonyms are made with: list them, make a new one, and carry the lake and the features over to it."""

from typing import TYPE_CHECKING

import click

from guidelens.config import Config, Home
from guidelens.schemas.base import Frozen
from pipelines.entry import config_options, emit, home_option, progress, run_command
from pipelines.fit_parts import EXAMPLES

if TYPE_CHECKING:
    from guidelens.data.pseudonyms import Pseudonymizer


class KeysListed(Frozen):
    """keys: ids, the oldest first; the last one is in use. lake_key: of the one that the lake's rows are under."""

    keys: tuple[str, ...]
    lake: str
    lake_key: str


class KeysApplied(Frozen):
    """carried: rows by table that are under another pseudonym now. examples: files of runs that were deleted. shoppers: whether their
    features were made anew."""

    key: str
    lake: str
    manifest: int
    carried: dict[str, int]
    examples: int
    shoppers: bool


def listed(home: Home, lake: str | None = None) -> KeysListed:
    from guidelens.data.lake.lake import Lake
    from guidelens.data.privacy.rekeying import lake_key_id
    from guidelens.data.pseudonyms import Pseudonymizer

    pseudonyms, opened = Pseudonymizer.open(home.keys), Lake(lake or home.lake_uri, home.s3)
    return KeysListed(keys=pseudonyms.key_ids, lake=opened.uri, lake_key=lake_key_id(opened.manifest(), pseudonyms))


def rotate(home: Home, config: Config, lake: str | None = None) -> KeysApplied:
    """Makes a key and applies it.

    Raises:
        ConfigError: the lake is not under the newest key yet.
        StorageError: another process made a key at the same time.
    """
    from guidelens.data.key_files import add_key
    from guidelens.data.lake.lake import Lake
    from guidelens.data.privacy.rekeying import require_key
    from guidelens.data.pseudonyms import Pseudonymizer

    opened = Lake(lake or home.lake_uri, home.s3)
    require_key(opened, opened.manifest(), Pseudonymizer.open(home.keys))
    progress(f"keys: made key {add_key(home.keys)}; back up {home.keys}")
    return apply(home, config, lake)


def apply(home: Home, config: Config, lake: str | None = None) -> KeysApplied:
    """Carries everything over to the newest key; what a rotation that died did not come to.

    Raises:
        CommitConflictError: other writers of the lake were faster again and again.
        StorageError: a key that the lake is under is missing.
    """
    from guidelens.data.lake.lake import Lake
    from guidelens.data.privacy.rekeying import rekey
    from guidelens.data.pseudonyms import Pseudonymizer

    pseudonyms, opened = Pseudonymizer.open(home.keys), Lake(lake or home.lake_uri, home.s3)
    done = rekey(opened, pseudonyms, lambda files, of: progress(f"keys: {files} of {of} files") if files % 100 == 0 or files == of else None)
    examples = _delete_examples(home)
    renewed = _renew_features(home, config, lake, pseudonyms)
    carried = {str(table): number for table, number in done.rows.items() if number}
    return KeysApplied(key=pseudonyms.key_id, lake=opened.uri, manifest=done.manifest.version, carried=carried, examples=examples, shoppers=renewed)


def _delete_examples(home: Home) -> int:
    """Training examples name shoppers by their old pseudonyms; what needs them makes them again."""
    found = sorted(home.work.glob(f"*/{EXAMPLES}"))
    for path in found:
        path.unlink()
    return len(found)


def _renew_features(home: Home, config: Config, lake: str | None, pseudonyms: "Pseudonymizer") -> bool:
    """Until they are made again, answers do without the shopper's features."""
    if not home.feast.exists():
        return False
    from guidelens.features import Features
    from pipelines import materialize

    mark = home.feast / "shoppers.key_id"
    if mark.exists() and mark.read_text() == pseudonyms.key_id:
        return False
    progress(f"keys: {Features(home, config.features).forget_everybody()} shopper rows removed from the features")
    materialize.run(home, config, lake)
    mark.write_text(pseudonyms.key_id)
    return True


@click.group("keys", help=__doc__)
def command() -> None:
    pass


_lake_option = click.option("--lake", default=None, metavar="URI", help="The home's by default.")


@command.command("list", help="The ids of the keys, and which one the lake is under.")
@_lake_option
@home_option
def list_command(home: Home, lake: str | None) -> None:
    emit(listed(home, lake))


@command.command("rotate", help="Make a new key and carry everything over to it.")
@_lake_option
@config_options
@home_option
def rotate_command(home: Home, config: Config, lake: str | None) -> None:
    emit(rotate(home, config, lake))


@command.command("apply", help="Carry everything over to the newest key: another lake, or what a rotation that died left.")
@_lake_option
@config_options
@home_option
def apply_command(home: Home, config: Config, lake: str | None) -> None:
    emit(apply(home, config, lake))


if __name__ == "__main__":
    run_command(command)
