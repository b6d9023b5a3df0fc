"""A learner as safetensors files that any number of workers goes on from: tables that are shared out are written whole and cut when read.

Every function is called by all workers alike; the first of them writes.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guidelens.training.learner import Learner
from guidelens.training.sharding import own_rows, whole_table
from guidelens.training.warm_start import OF_PRODUCTS


def save_weights(learner: Learner, path: Path) -> None:
    """The whole model's weights, named as in `GuideModel`."""
    state = {name: _whole(value, learner, is_cut=name in OF_PRODUCTS) for name, value in learner.model.state_dict().items()}
    if learner.place.rank == 0:
        save_file(state, path)


def save_learner(learner: Learner, folder: Path) -> None:
    """Weights and the optimizers' states, so that going on takes the very steps that not stopping would have taken."""
    save_weights(learner, folder / "current.safetensors")
    moments = [_moments(optimizer, learner) for optimizer in learner.optimizers]
    if learner.place.rank != 0:
        return
    for number, found in enumerate(moments):
        save_file(found, folder / f"optimizer_{number}.safetensors")
    save_file({**learner.balancer.state_dict(), "none": torch.zeros(1)}, folder / "balancer.safetensors")
    if learner.balancer_optimizer is not None:
        save_file(_moments(learner.balancer_optimizer, learner), folder / "balancer_optimizer.safetensors")


def load_learner(learner: Learner, folder: Path) -> None:
    """Puts back what `save_learner` wrote, with as many workers or with others."""
    state = load_file(folder / "current.safetensors")
    learner.model.load_state_dict({name: _cut(value, learner, is_cut=name in OF_PRODUCTS) for name, value in state.items()})
    for number, optimizer in enumerate(learner.optimizers):
        _restore_moments(optimizer, folder / f"optimizer_{number}.safetensors", learner)
    balancer = load_file(folder / "balancer.safetensors")
    learner.balancer.load_state_dict({name: value for name, value in balancer.items() if name != "none"})
    if learner.balancer_optimizer is not None:
        _restore_moments(learner.balancer_optimizer, folder / "balancer_optimizer.safetensors", learner)


def _whole(value: Tensor, learner: Learner, *, is_cut: bool) -> Tensor:
    if not (learner.owns_rows and is_cut):
        return value
    return whole_table(value, len(learner.data.catalogue), learner.place, learner.reduce)


def _cut(value: Tensor, learner: Learner, *, is_cut: bool) -> Tensor:
    return own_rows(value, learner.place) if learner.owns_rows and is_cut else value


def _weights(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _is_of_products(learner: Learner) -> Callable[[nn.Parameter, Tensor], bool]:
    """Whether a value that an optimizer keeps for a parameter has a row a product."""
    tables = {id(learner.model.get_parameter(name)) for name in OF_PRODUCTS}
    return lambda parameter, value: id(parameter) in tables and value.dim() > 0


def _moments(optimizer: torch.optim.Optimizer, learner: Learner) -> dict[str, Tensor]:
    found, of_products = {}, _is_of_products(learner)
    for index, parameter in enumerate(_weights(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            tensor = torch.as_tensor(value).contiguous()
            found[f"{index}.{name}"] = _whole(tensor, learner, is_cut=of_products(parameter, tensor))
    return found


def _restore_moments(optimizer: torch.optim.Optimizer, path: Path, learner: Learner) -> None:
    weights, of_products = _weights(optimizer), _is_of_products(learner)
    for key, value in load_file(path).items():
        index, name = key.split(".")
        parameter = weights[int(index)]
        is_count = name == "step" and isinstance(optimizer, torch.optim.SparseAdam)
        mine = _cut(value, learner, is_cut=of_products(parameter, value))
        optimizer.state[parameter][name] = int(mine) if is_count else mine.to(parameter.device)
