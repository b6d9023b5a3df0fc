"""A fitted guide model on disk: weights (guide.safetensors), what they need to be read (guide.json), the item table."""

import json
from pathlib import Path

import polars as pl
import torch
from safetensors.torch import load_file, save_file

from guidelens.config import EncoderConfig, ModelConfig, TaskName
from guidelens.data.visits import InterestMedians
from guidelens.errors import BundleError, ConfigError, NotFoundError
from guidelens.inference.probabilities import Probabilities
from guidelens.models.guide import GuideModel, GuideSpec
from guidelens.models.items import Catalogue
from guidelens.schemas.base import Frozen

GUIDE_SCHEMA_VERSION = 2
HEADER, ITEMS, FIT = "guide.json", "items.parquet", "fit.json"


class Blend(Frozen):
    """How the ranking score is made: retrieval log-probability + click x log p(click) + purchase x log p(purchase).

    `position`: the mean place effect of the slates trained on, added where no place is known yet.
    """

    click: float = 0.0
    purchase: float = 0.0
    position: float = 0.0


class GuideHeader(Frozen):
    """guide.json. `medians` made the interest labels; `lambdas` are the task weights the weights were trained with, 0 for a task
    that was left out: by the config, or because the training rows held no label of it. `probabilities`: what turns the heads' chances
    of a click and a purchase into ones to count on."""

    schema_version: int = GUIDE_SCHEMA_VERSION
    model: ModelConfig
    spec: GuideSpec
    medians: InterestMedians
    lambdas: dict[str, float]
    blend: Blend = Blend()
    probabilities: Probabilities = Probabilities()

    def learned(self, task: TaskName) -> bool:
        """False where the task's head still has its first random weights, whose answers mean nothing."""
        return self.lambdas.get(task, 0.0) > 0


def encoders_of(folder: Path) -> EncoderConfig:
    """The encoders that a fit or a bundle was trained with; those of before there was a choice are the default ones.

    Raises:
        BundleError: fit.json is missing or damaged.
    """
    try:
        return EncoderConfig.model_validate(json.loads((folder / FIT).read_text())["config"]["ingest"].get("encoders", {}))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BundleError(f"{folder / FIT}: cannot be read: {error!r}; train again") from error


def require_encoder(items: pl.DataFrame, kind: str, encoder_id: str) -> None:
    """The items' embeddings must be of the encoder that requests are embedded with; items that do not say whose they are pass.

    Raises:
        ConfigError: they are of another one, or of several.
    """
    column = f"{kind}_encoder"
    found = set(items[column].drop_nulls().to_list()) - {""} if column in items.columns else set()
    if found - {encoder_id}:
        raise ConfigError(
            f"the items' {kind} embeddings must be of {encoder_id}, got {' and '.join(sorted(found))}; "
            f"ingest everything again into a new lake, or train with --set ingest.encoders.{kind} as they were made"
        )


def save_guide(model: GuideModel, header: GuideHeader, folder: Path, name: str = "guide") -> None:
    """Writes NAME.safetensors and NAME.json to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(header.model_dump_json(indent=1))


def load_guide(folder: Path, name: str = "guide") -> tuple[GuideModel, GuideHeader]:
    """The model, ready to answer.

    Raises:
        NotFoundError: this fit has no such model; fit.json says why.
    """
    header = guide_header(folder, name)
    model = GuideModel(header.model, header.spec)
    model.load_state_dict(load_file(folder / f"{name}.safetensors"))
    model.eval()
    model.requires_grad_(False)
    return model, header


def guide_header(folder: Path, name: str = "guide") -> GuideHeader:
    """What is needed to read a model's weights, without them.

    Raises:
        NotFoundError: this fit has no such model; fit.json says why.
        BundleError: it is of an earlier GuideLens, whose weights had other shapes.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        raise NotFoundError(f"{folder} holds no {name} model; fit.json there says why it is absent")
    text = path.read_text()
    version = json.loads(text).get("schema_version")
    if version != GUIDE_SCHEMA_VERSION:
        raise BundleError(
            f"{path}: is of a guide model of schema {version}, whose weights have other shapes; this GuideLens reads {GUIDE_SCHEMA_VERSION}: train again"
        )
    return GuideHeader.model_validate_json(text)


def load_items(folder: Path) -> tuple[pl.DataFrame, Catalogue]:
    """The fit's item table, row order = product row, as a frame and as arrays."""
    items = pl.read_parquet(folder / ITEMS)
    return items, Catalogue.of_table(items)


def has_guide(folder: Path) -> bool:
    return (folder / HEADER).exists()


def one_thread() -> None:
    """Inference runs one thread a replica (torch's default is one a core)."""
    torch.set_num_threads(1)
