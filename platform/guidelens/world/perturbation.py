"""Other shoppers than world_v1's: the guide's constants moved at random, to ask whether what was learned rests on their very values."""

from typing import Final

import numpy as np

from guidelens.schemas.ids import sub_seed
from guidelens.world.parameters import GuideParameters, WorldParameters

SHIFTS: Final = {"buy_bias": 0.4, "cart_bias": 0.4}
"""Standard deviations of what is added to a logit."""
FACTORS: Final = {
    "buy_readiness": 0.1,
    "buy_cart": 0.3,
    "buy_checkout": 0.3,
    "buy_quiet_expert": 0.5,
    "cart_readiness": 0.2,
    "leave": 0.3,
    "annoyance": 0.5,
    "coupon_cost": 0.3,
    "human_cost": 0.4,
    "return_cost": 0.4,
}
"""Standard deviations of the logarithm of what a number, or each of its numbers, is multiplied by."""
SCRIPT_SHARES: Final = (0.45, 0.75)


def perturbed(parameters: WorldParameters, seed: int) -> WorldParameters:
    """`parameters` with another guide process: every seed another one, the same for the same seed. Its version names both.

    Chances stay below .9, and the logging guide takes its script in 45-75 % of the steps.
    """
    rng = np.random.Generator(np.random.Philox(key=sub_seed(seed, "perturbation")))
    guide = parameters.guide.model_dump()
    for name, spread in SHIFTS.items():
        guide[name] += spread * rng.standard_normal()
    for name, spread in FACTORS.items():
        factor = float(np.exp(spread * rng.standard_normal()))
        old = guide[name]
        guide[name] = tuple(min(0.9, value * factor) for value in old) if isinstance(old, tuple) else old * factor
    guide["script_share"] = rng.uniform(*SCRIPT_SHARES)
    return parameters.model_copy(update={"version": f"{parameters.version}/perturbed-{seed}", "guide": GuideParameters.model_validate(guide)})
