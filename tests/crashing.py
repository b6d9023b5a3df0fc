"""A process that is killed again and again: it forks a child for each step, so that a kill costs milliseconds, not an interpreter.

    python -m crashing < steps        one JSON object a line: see `Step`; answers with the child's exit code, a line each

Nothing may start a thread before the fork, so the parent imports and does no more.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray.data  # noqa: F401 - so that no child has to
from event_logs import NOW, PSEUDONYMS, constant_texts, ingest

from guidelens import crash_points, presets
from guidelens.config import Home, S3Options
from guidelens.data.ingest import event_intake, event_tasks
from guidelens.data.ingest.intake import drain_inbox
from guidelens.data.lake import event_ids
from guidelens.data.lake.compaction import compact
from guidelens.data.lake.lake import Lake
from guidelens.data.privacy.forgetting import Person, forget_in_lake
from guidelens.data.records.sources import IngestSources
from guidelens.schemas.base import Frozen
from pipelines.ingest import Ingest

CONFIG = presets.load("tiny")
FORGOTTEN = "s-3"


class Step(Frozen):
    """verb: ingest (of `paths`), drain (of the inbox `paths[0]`), kafka (of the URI `paths[0]`, for the home `paths[1]`), compact or forget. crash: point, nth, mark; bug: a name of `plant`."""

    verb: str
    lake: str
    paths: tuple[str, ...] = ()
    s3: dict[str, Any] = {}
    crash: tuple[str, int, str] | None = None
    bug: str | None = None


def take(step: Step) -> None:
    s3 = S3Options(**step.s3)
    lake = Lake(step.lake, s3)
    if step.verb == "ingest":
        ingest(lake, step.paths)
    elif step.verb == "drain":
        drain_inbox(Path(step.paths[0]), lambda sealed: ingest(lake, [str(path) for path in sealed], from_inbox=True) if sealed else None)
    elif step.verb == "kafka":
        sources = IngestSources(events=step.paths[:1])
        Ingest(Home(root=Path(step.paths[1])), CONFIG, step.lake, embed=constant_texts).take(sources)
    elif step.verb == "compact":
        compact(lake, 1000, everything=True)
    else:
        forget_in_lake(lake, Person(FORGOTTEN, frozenset({PSEUDONYMS.key(FORGOTTEN)})), NOW)


def plant(bug: str) -> None:
    """Makes this process wrong in one way, to see that the drill would notice."""
    if bug == "ids are not committed":
        event_ids.write_ids = event_tasks.write_ids = lambda *_: []  # type: ignore[assignment]
        event_intake.live_ids = lambda lake, base, table: list(base.ids_of(table))  # type: ignore[assignment]
    elif bug == "the manifest comes before the data":
        delayed: list[tuple[Any, ...]] = []
        real_write, real_commit = Lake.write_file, Lake.commit

        def later(lake: Lake, *args: Any) -> Any:
            store = lake.store
            put = store.write_bytes
            store.write_bytes = lambda key, data, **_: delayed.append((store, key, data))  # type: ignore[method-assign,assignment,misc]
            file = real_write(lake, *args)
            store.write_bytes = put  # type: ignore[method-assign]
            return file

        def early(lake: Lake, *args: Any, **how: Any) -> Any:
            done = real_commit(lake, *args, **how)
            for store, key, data in delayed:
                store.write_bytes(key, data)
            return done

        Lake.write_file, Lake.commit = later, early  # type: ignore[method-assign]
    elif bug == "segments are removed before the commit":
        from guidelens.data.ingest import intake

        def hasty(folder: Path, work: Any) -> Any:
            with intake.draining(folder) as sealed:
                held = [path.with_suffix(".hidden") for path in sealed]
                for path, copy in zip(sealed, held, strict=True):
                    path.rename(copy)
                crash_points.reach("inbox.sealed")
                for path, copy in zip(sealed, held, strict=True):
                    copy.rename(path)
                return work(sealed)

        globals()["drain_inbox"] = hasty
    else:
        raise ValueError(f"no bug is called {bug}")


def main() -> None:
    for line in sys.stdin:
        step = Step.model_validate_json(line)
        child = os.fork()
        if child == 0:
            _live(step)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _live(step: Step) -> None:
    """The child's whole life; it never returns."""
    code = 1
    try:
        if step.bug is not None:
            plant(step.bug)
        if step.crash is not None:
            point, nth, mark = step.crash
            crash_points.arm(point, nth, Path(mark))
        take(step)
        code = 0
    except Exception as error:  # noqa: BLE001 - whatever it was, the parent learns by the exit code that it failed
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def sent(step: Step) -> str:
    return json.dumps(step.model_dump(mode="json"))


if __name__ == "__main__":
    main()
