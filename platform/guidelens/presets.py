"""Named configurations, and the one way to change them: `--set a.b=v`."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from guidelens.config import Config, DemoConfig, EvaluateConfig, ModelConfig, RecognizerConfig, TrainConfig, WorldSize
from guidelens.errors import ConfigError


def tiny() -> Config:
    """Seconds: for tests that run the whole loop."""
    return Config(
        preset="tiny",
        train=TrainConfig(
            epochs=2,
            global_batch_size=64,
            model=ModelConfig(width=16, num_experts=2, num_attention_heads=2),
            recognizer=RecognizerConfig(tuning=None),
        ),
        evaluate=EvaluateConfig(num_bootstrap=20, plan_rollouts=1),
        demo=DemoConfig(
            world=WorldSize(num_products=24, num_shoppers=60, num_sessions=600, num_frames=48, views_per_product=3, num_days=14, reference_sessions=20_000),
            num_requests=20,
        ),
    )


def smoke() -> Config:
    """A minute: shows that a shop's own data goes through."""
    return Config(preset="smoke", train=TrainConfig(epochs=3, recognizer=RecognizerConfig(tuning=None)))


def laptop() -> Config:
    """The default: minutes on two cores."""
    return Config(preset="laptop")


def production() -> Config:
    """A cluster with GPUs: the same code, other values."""
    return Config(
        preset="production", train=TrainConfig(epochs=20, global_batch_size=4096, num_workers=4, use_gpu=True, model=ModelConfig(width=128, num_experts=8))
    )


PRESETS: dict[str, Callable[[], Config]] = {"tiny": tiny, "smoke": smoke, "laptop": laptop, "production": production}


def load(preset: str, settings: Sequence[str] = (), **top_level: Any) -> Config:
    """A preset with `a.b=v` settings applied; values are read as JSON where they parse, else as text.

    Raises:
        ConfigError: no such preset, no such setting, or a value the setting does not take.
    """
    if preset not in PRESETS:
        raise ConfigError(f"--preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    tree: dict[str, Any] = PRESETS[preset]().model_dump(mode="json")
    tree.update(top_level)
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set must look like a.b=value, got {setting!r}")
        if name == "preset":
            raise ConfigError(f"--set cannot change which preset this is; use --preset {text}")
        *parents, leaf = name.split(".")
        node: Any = tree
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict) or leaf not in node:
            raise ConfigError(f"--set {name}: no such setting; `guidelens config show --full --preset {preset}` lists them")
        node[leaf] = _value(text)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # one of config.py's own, which says what it got
            raise ConfigError(str(first["ctx"]["error"])) from error
        raise ConfigError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}, got {first['input']!r}") from error


def _value(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_not_finite, parse_float=_finite)
    except json.JSONDecodeError:
        return text


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _not_finite(text)


def _not_finite(text: str) -> float:
    raise ConfigError(f"--set takes finite numbers, got {text}")
