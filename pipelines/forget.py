"""Remove a shopper everywhere: from the lake and its older versions, the event inbox, the online features and the runs' examples."""

from datetime import UTC, datetime

import click
import numpy as np

from guidelens.config import Config, Home
from guidelens.schemas.base import Frozen
from pipelines.entry import config_options, emit, home_option, run_command
from pipelines.fit_parts import EXAMPLES


class ForgetResult(Frozen):
    """removed: rows by place, now. devices: anonymous ids forgotten along, as the shopper's logins told. pending: what drops the shopper
    later, by place."""

    removed: dict[str, int]
    devices: int
    pending: dict[str, str]


def run(home: Home, config: Config, shopper: str, lake: str | None = None) -> ForgetResult:
    """Forgets the person behind `shopper`, a shopper_id or an anonymous_id. A tombstone keeps late events out.

    Anonymous ids that only this shopper logged in with go along; on a shared device, the sessions that were theirs.

    Raises:
        CommitConflictError: other writers of the lake were faster again and again.
        ConfigError: the lake is not under the home's newest key.
    """
    from guidelens.data import inbox
    from guidelens.data.lake.lake import Lake
    from guidelens.data.privacy.forgetting import Person, forget_in_lake, with_devices
    from guidelens.data.privacy.rekeying import require_key
    from guidelens.data.pseudonyms import Pseudonymizer

    pseudonyms = Pseudonymizer.open(home.keys)
    names = [pseudonyms.every_key(shopper, anonymous=anonymous) for anonymous in (False, True)]
    opened = Lake(lake or home.lake_uri, home.s3)
    require_key(opened, opened.manifest(), pseudonyms)
    person = with_devices(opened, Person(shopper, frozenset(found[-1] for found in names), frozenset(key for found in names for key in found[:-1])))
    # The lake comes last: it alone knows the shopper's devices, and a run that dies before is simply run again.
    waiting = inbox.forget(home.inbox, person.every_key, pseudonyms)
    removed = {"features": _forget_features(home, config, person.every_key), "examples": forget_examples(home, person.every_key)}
    in_lake = {str(table): number for table, number in forget_in_lake(opened, person, datetime.now(UTC)).items()}
    waiting += inbox.forget(home.inbox, person.every_key, pseudonyms)
    return ForgetResult(removed={**in_lake, "inbox": waiting, **removed}, devices=len(person.keys) - 2, pending=_pending(home))


def _forget_features(home: Home, config: Config, keys: frozenset[str]) -> int:
    if not home.feast.exists():
        return 0
    from guidelens.features import Features

    features = Features(home, config.features)
    return features.forget(*sorted(keys))


def forget_examples(home: Home, keys: frozenset[str]) -> int:
    """Rows of the shopper in the examples of all runs. A file that holds one is deleted whole: what needs it makes it again."""
    from guidelens.data.examples import Examples

    removed = 0
    for path in sorted(home.work.glob(f"*/{EXAMPLES}")):
        found = int(np.isin(Examples.load(path).shopper_key.astype(str), sorted(keys)).sum())
        if found:
            path.unlink()
            removed += found
    return removed


def _pending(home: Home) -> dict[str, str]:
    pending = {"events still to come": "every ingest drops them"}
    if home.mlflow_artifacts.exists() or home.releases.exists():
        pending["models"] = "fitted before on the shopper's pseudonymous rows among others; the next training does not see them"
    return pending


@click.command("forget", help=__doc__)
@click.argument("shopper")
@click.option("--lake", default=None, metavar="URI", help="Lake to remove the shopper from; the home's by default.")
@config_options
@home_option
def command(home: Home, config: Config, shopper: str, lake: str | None) -> None:
    emit(run(home, config, shopper, lake))


if __name__ == "__main__":
    run_command(command)
