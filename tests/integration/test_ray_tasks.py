"""The tasks of an ingest on Ray do what they do in the driver."""

import random
from pathlib import Path

import pytest
from event_logs import SMALL, ingest, troubled, write_log

from guidelens.data.ingest.stages import OnRay, set_up_ray_data
from guidelens.data.lake.lake import Lake
from guidelens.errors import NotFoundError

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_tasks_on_ray_write_the_files_that_the_driver_would(tmp_path: Path) -> None:
    set_up_ray_data()
    paths = [write_log(tmp_path / f"{name}.jsonl", troubled(random.Random(name), 40, 40)) for name in "ab"]
    here, there = Lake(str(tmp_path / "here")), Lake(str(tmp_path / "there"))
    config = SMALL.model_copy(update={"event_chunk_bytes": 4000, "event_file_rows": 40, "event_ids_per_task": 60})
    for lake, run in ((here, None), (there, OnRay(2))):
        done = ingest(lake, paths, config) if run is None else ingest(lake, paths, config, run)
    assert here.manifest().snapshot_sha256 == there.manifest().snapshot_sha256
    assert here.manifest().report == done.manifest.report


def test_an_error_of_ours_in_a_task_reaches_the_driver_as_it_is() -> None:
    def refuse(number: int) -> int:  # inside, so that workers need not import this module
        if number:
            raise NotFoundError(f"{number} is not there")
        return number

    set_up_ray_data()
    with pytest.raises(NotFoundError, match="1 is not there"):
        list(OnRay(1)(refuse, [0, 1]))
