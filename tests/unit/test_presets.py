"""Presets and settings: each mistake is named with its remedy."""

import pytest

from guidelens import presets
from guidelens.errors import ConfigError


def test_a_setting_changes_one_value_and_nothing_else() -> None:
    changed = presets.load("laptop", ["train.model.fusion=concat", "train.lambdas.plan=0"])
    assert changed.train.model.fusion == "concat"
    assert changed.train.lambdas == {"recommendation": 1.0, "interest": 1.0, "plan": 0.0}
    assert changed.ingest == presets.laptop().ingest


@pytest.mark.parametrize(
    ("preset", "setting", "said"),
    [
        ("nowhere", "train.epochs=1", "must be one of"),
        ("laptop", "train.epochs", "must look like"),
        ("laptop", "train.epoch=1", "no such setting"),
        ("laptop", "train.epochs=none", "train.epochs"),
        ("laptop", "train.global_batch_size=3", "train"),
        ("laptop", 'train.lambdas={"recommendation": 0, "interest": 0, "plan": 0}', "at least one task"),
    ],
)
def test_a_wrong_setting_is_named(preset: str, setting: str, said: str) -> None:
    changes = [setting, "train.num_workers=2"] if "batch" in setting else [setting]
    with pytest.raises(ConfigError, match=said):
        presets.load(preset, changes)


@pytest.mark.parametrize("name", list(presets.PRESETS))
def test_every_preset_survives_its_own_json(name: str) -> None:
    config = presets.PRESETS[name]()
    assert type(config).model_validate_json(config.model_dump_json()) == config
