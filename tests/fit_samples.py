"""A fit's folder made without Ray: a guide model trained for one epoch on made-up rows, and all that serving reads beside it."""

import json
from pathlib import Path

from model_samples import NUM_PRODUCTS, sample_catalogue, sample_config, sample_examples, sample_items

from guidelens.config import TASKS
from guidelens.data.visits import InterestMedians
from guidelens.inference.guide_files import Blend, GuideHeader, save_guide
from guidelens.inference.search_texts import build_text_index
from guidelens.training.data import FitData, FitJob, Place
from guidelens.training.learner import Learner


def write_fit(folder: Path, *, with_guide: bool = True) -> Path:
    """`folder` as a fit; without a guide model it is that of a shop without events."""
    config, items = sample_config(), sample_items()
    folder.mkdir(parents=True, exist_ok=True)
    items.write_parquet(folder / "items.parquet")
    build_text_index(items).save(folder / "text_index")
    popularity = [float(i % 4) if with_guide else 0.0 for i in range(NUM_PRODUCTS)]
    (folder / "popularity.json").write_text(json.dumps({"popularity": popularity}))
    (folder / "fit.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    if with_guide:
        data = FitData.of(sample_examples(160), sample_catalogue(), config.train.model.num_profile_buckets)
        job = FitJob(name="guide", lambdas=dict.fromkeys(TASKS, 1.0), model=config.train.model)
        learner = Learner(job, data, config.train, 0, Place(), lambda _tensor: None)
        learner.epoch(0)
        blend = Blend(click=0.5, purchase=0.1, position=-0.2)
        save_guide(
            learner.model, GuideHeader(model=job.model, spec=learner.model.spec, medians=InterestMedians(), lambdas={**job.lambdas}, blend=blend), folder
        )
    return folder
