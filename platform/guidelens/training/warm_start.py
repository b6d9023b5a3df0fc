"""Going on from yesterday's model: its weights by name, its product vectors by product id."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guidelens.errors import InputError
from guidelens.models.guide import GuideModel

OF_PRODUCTS = ("tower.ids.weight", "bias")


@dataclass(frozen=True)
class WarmStart:
    """The weights of a fitted guide model, and the products its rows stand for."""

    state: dict[str, Tensor]
    product_ids: tuple[str, ...]

    @classmethod
    def of(cls, model: GuideModel, product_ids: Sequence[str]) -> "WarmStart":
        return cls({name: value.detach().clone() for name, value in model.state_dict().items()}, tuple(product_ids))


def require_shape(state: Mapping[str, Tensor], start: WarmStart) -> None:
    """Raises InputError where a model's weights, those of its products aside, differ in shape from the start's."""
    differ = sorted(
        name
        for name in state.keys() | start.state.keys()
        if name not in OF_PRODUCTS and (name not in start.state or name not in state or state[name].shape != start.state[name].shape)
    )
    if differ:
        raise InputError(
            f"a warm start needs a model of the same shape, got one that differs in {', '.join(differ[:3])}"
            f"{' and more' if len(differ) > 3 else ''}; train anew, or set train.model as the first run had it"
        )


def warm(model: GuideModel, start: WarmStart, product_ids: Sequence[str]) -> GuideModel:
    """`model` with the weights of `start`. A product that is new keeps its seeded vector and gets the mean bias.

    The reducers stay those of the start: the weights behind them were trained on their axes.

    Raises:
        InputError: the two models differ in shape.
    """
    state = model.state_dict()
    require_shape(state, start)
    row_of = {product_id: row for row, product_id in enumerate(start.product_ids)}
    rows_N = torch.from_numpy(np.array([row_of.get(product_id, -1) for product_id in product_ids], dtype=np.int64))
    known_N = rows_N >= 0
    warmed = {name: value for name, value in start.state.items() if name not in OF_PRODUCTS}
    ids_ND, bias_N = state["tower.ids.weight"].clone(), torch.full_like(state["bias"], float(start.state["bias"].mean()))
    ids_ND[known_N] = start.state["tower.ids.weight"][rows_N[known_N]]
    bias_N[known_N] = start.state["bias"][rows_N[known_N]]
    model.load_state_dict({**warmed, "tower.ids.weight": ids_ND, "bias": bias_N})
    return model
