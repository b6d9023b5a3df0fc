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
        ("laptop", "train.lambdas.plan=-1", "train.lambdas.plan"),
        ("laptop", "train.lambdas.plan=Infinity", "finite numbers, got Infinity"),
        ("laptop", "train.learning_rate=1e999", "finite numbers, got 1e999"),
        ("laptop", "train.interest_weights=[-1,1,1,1]", "train.interest_weights.0"),
        ("laptop", "preset=production", "use --preset production"),
    ],
)
def test_a_wrong_setting_is_named(preset: str, setting: str, said: str) -> None:
    changes = [setting, "train.num_workers=2"] if "batch" in setting else [setting]
    with pytest.raises(ConfigError, match=said):
        presets.load(preset, changes)


def test_a_rule_across_settings_is_said_without_the_whole_configuration() -> None:
    with pytest.raises(ConfigError, match=r"^train\.model\.width must be a multiple of num_attention_heads \(4\), got 65; use 64 or 68$"):
        presets.load("laptop", ["train.model.width=65"])
    with pytest.raises(ConfigError, match=r"^train\.global_batch_size must be a multiple of num_workers \(4\), got 3; use 4$"):
        presets.load("laptop", ["train.global_batch_size=3", "train.num_workers=4"])


def test_a_task_without_a_weight_is_left_out() -> None:
    assert presets.load("laptop", ['train.lambdas={"plan": 1}']).train.lambdas == {"recommendation": 0.0, "interest": 0.0, "plan": 1.0}


@pytest.mark.parametrize("name", list(presets.PRESETS))
def test_every_preset_survives_its_own_json(name: str) -> None:
    config = presets.PRESETS[name]()
    assert type(config).model_validate_json(config.model_dump_json()) == config
