"""How the losses of several tasks become one step: by weights that a method keeps, or by combining the tasks' gradients.

Every value handed in is of the whole global batch, so that all workers do the same. A loss of 0 is that of a task of which the batch holds
no label: it says nothing of how well the task does, and moves no weight. Pure torch: knows nothing of tasks' models.
"""

# Letters: T = tasks, P = shared weights, flat.

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guidelens.config import Balancing, BalancingConfig

_TINY = 1e-8


class Balancer(nn.Module):
    """Equal weights: the sum of lambda x L. `own`: what the method itself learns, by Adam at `rate`; gradients are set by `learn`."""

    needs_gradients = False
    looks_again = False

    def __init__(self, config: BalancingConfig, is_regression: Sequence[bool]) -> None:
        super().__init__()
        self.config, self.num_tasks = config, len(is_regression)
        self.is_regression_T = torch.tensor(list(is_regression))

    def weights(self, losses_T: Tensor) -> Tensor:
        """(T,) what each task's loss is multiplied with in this step."""
        return torch.ones_like(losses_T)

    def combine(self, gradients_TP: Tensor, seed: int) -> Tensor:
        """(P,) the step's gradient of the shared weights, from each task's."""
        return gradients_TP.sum(0)

    def learn(self, before_T: Tensor, after_T: Tensor) -> None:
        """Sets gradients of the method's own weights, from the losses before and (where `looks_again`) after the step."""

    def settle(self) -> None:
        """Called after the method's own weights were stepped."""

    def epoch_ended(self, means_T: Tensor) -> None:
        """Told the mean losses of each training epoch."""


class Uncertainty(Balancer):
    """Homoscedastic uncertainty (Kendall et al., CVPR 2018): sum of exp(-s) L + s / 2, with 1/2 before the L of a regression."""

    def __init__(self, config: BalancingConfig, is_regression: Sequence[bool]) -> None:
        super().__init__(config, is_regression)
        self.log_variance_T = nn.Parameter(torch.zeros(self.num_tasks))

    def weights(self, losses_T: Tensor) -> Tensor:
        half_T = torch.where(self.is_regression_T, 0.5, 1.0).to(losses_T.device)
        return half_T * torch.exp(-self.log_variance_T.detach())

    def learn(self, before_T: Tensor, after_T: Tensor) -> None:
        self.log_variance_T.grad = torch.where(before_T > 0, 0.5 - self.weights(before_T) * before_T, 0.0)


class DynamicWeightAverage(Balancer):
    """DWA (Liu, Johns and Davison, CVPR 2019): T softmax(r / temperature), r the last epoch's loss over that of the one before."""

    history_2T: Tensor

    def __init__(self, config: BalancingConfig, is_regression: Sequence[bool]) -> None:
        super().__init__(config, is_regression)
        self.register_buffer("history_2T", torch.full((2, self.num_tasks), torch.nan))

    def weights(self, losses_T: Tensor) -> Tensor:
        if bool(self.history_2T.isnan().any()):
            return torch.ones_like(losses_T)
        ratio_T = self.history_2T[1] / self.history_2T[0].clamp_min(_TINY)
        return self.num_tasks * torch.softmax(ratio_T / self.config.temperature, dim=0)

    def epoch_ended(self, means_T: Tensor) -> None:
        self.history_2T.copy_(torch.stack([self.history_2T[1], means_T.to(self.history_2T)]))


class Famo(Balancer):
    """FAMO (Liu et al., NeurIPS 2023, arXiv:2306.03792): the tasks' log-losses fall alike.

    z = softmax(own); weights c z / L, scaled to sum to the number of tasks there; z moves by how much each log-loss fell in the step, on
    the same batch.
    """

    looks_again = True

    def __init__(self, config: BalancingConfig, is_regression: Sequence[bool]) -> None:
        super().__init__(config, is_regression)
        self.own_T = nn.Parameter(torch.zeros(self.num_tasks))

    def weights(self, losses_T: Tensor) -> Tensor:
        there_T = losses_T > 0
        share_T = torch.where(there_T, torch.softmax(self.own_T.detach(), dim=0) / losses_T.clamp_min(_TINY), 0.0)
        return there_T.sum() * share_T / share_T.sum().clamp_min(_TINY)

    def learn(self, before_T: Tensor, after_T: Tensor) -> None:
        fell_T = before_T.clamp_min(_TINY).log() - after_T.clamp_min(_TINY).log()
        z_T = torch.where(before_T > 0, torch.softmax(self.own_T.detach(), dim=0), 0.0)
        mean = (z_T * fell_T).sum() / z_T.sum().clamp_min(_TINY)
        self.own_T.grad = z_T * (fell_T - mean) + self.config.decay * self.own_T.detach()


class GradNorm(Balancer):
    """GradNorm (Chen et al., ICML 2018): weights move until the tasks' gradient norms are alike, larger for those that train slower.

    The norm is over all shared weights, where the paper takes the last shared layer to save time.
    """

    needs_gradients = True
    first_T: Tensor

    def __init__(self, config: BalancingConfig, is_regression: Sequence[bool]) -> None:
        super().__init__(config, is_regression)
        self.own_T = nn.Parameter(torch.ones(self.num_tasks))
        self.register_buffer("first_T", torch.full((self.num_tasks,), torch.nan))
        self._norms_T = torch.zeros(self.num_tasks)

    def weights(self, losses_T: Tensor) -> Tensor:
        return self.own_T.detach()

    def combine(self, gradients_TP: Tensor, seed: int) -> Tensor:
        self._norms_T = gradients_TP.norm(dim=1)
        return self.own_T.detach() @ gradients_TP

    def learn(self, before_T: Tensor, after_T: Tensor) -> None:
        there_T = before_T > 0
        self.first_T.copy_(torch.where(self.first_T.isnan() & there_T, before_T, self.first_T))
        grad_T = torch.zeros_like(self.own_T)
        rate_T, norms_T = (before_T / self.first_T)[there_T], self._norms_T[there_T]
        weighted_T = self.own_T.detach()[there_T] * norms_T
        target_T = weighted_T.mean() * (rate_T / rate_T.mean()) ** self.config.alpha
        grad_T[there_T] = torch.sign(weighted_T - target_T) * norms_T / norms_T.mean().clamp_min(_TINY)
        self.own_T.grad = grad_T

    @torch.no_grad()
    def settle(self) -> None:
        self.own_T.clamp_(min=1e-3)
        self.own_T.mul_(self.num_tasks / self.own_T.sum())


class PcGrad(Balancer):
    """PCGrad (Yu et al., NeurIPS 2020): each task's gradient loses its part against every other's that it conflicts with, in random order."""

    needs_gradients = True

    def combine(self, gradients_TP: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        total_P = torch.zeros_like(gradients_TP[0])
        for task in range(len(gradients_TP)):
            mine_P = gradients_TP[task].clone()
            for other in torch.randperm(len(gradients_TP), generator=generator).tolist():
                along = torch.dot(mine_P, gradients_TP[other])
                if other != task and float(along) < 0:
                    mine_P -= along / gradients_TP[other].square().sum().clamp_min(_TINY) * gradients_TP[other]
            total_P += mine_P
        return total_P


class CaGrad(Balancer):
    """CAGrad (Liu et al., NeurIPS 2021, arXiv:2110.14048): within `radius` of the mean gradient, the one that helps the worst-off task most.

    Scaled by the number of tasks / (1 + radius^2), so that radius 0 is the plain sum. A task without a gradient is no worst-off one.
    """

    needs_gradients = True

    def combine(self, gradients_TP: Tensor, seed: int) -> Tensor:
        radius, gradients_TP = self.config.radius, gradients_TP[gradients_TP.any(dim=1)]
        if radius == 0 or len(gradients_TP) <= 1:
            return gradients_TP.sum(0)
        mean_P = gradients_TP.mean(0)
        products_TT = (gradients_TP @ gradients_TP.T).double().cpu().numpy()
        share_T = torch.from_numpy(_worst_mix(products_TT, radius)).to(gradients_TP)
        mixed_P = share_T @ gradients_TP
        pull = radius * mean_P.norm() / mixed_P.norm().clamp_min(_TINY)
        found_P: Tensor = (mean_P + pull * mixed_P) * (len(gradients_TP) / (1 + radius**2))
        return found_P


def _worst_mix(products_TT: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """(T,) the simplex point w of least g_w g_0 + radius |g_0| |g_w|: CAGrad's dual problem, from the gradients' inner products."""
    from scipy.optimize import minimize

    num = len(products_TT)
    scale = max(float(np.trace(products_TT)) / num, _TINY)
    inner = products_TT / scale
    bound = radius * np.sqrt(max(float(inner.mean()), 0.0))

    def objective(w_T: NDArray[np.float64]) -> float:
        return float(w_T @ inner.mean(1) + bound * np.sqrt(max(float(w_T @ inner @ w_T), 0.0) + _TINY))

    simplex = {"type": "eq", "fun": lambda w_T: w_T.sum() - 1.0}
    found = minimize(objective, np.full(num, 1 / num), method="SLSQP", bounds=[(0.0, 1.0)] * num, constraints=[simplex])
    return np.asarray(found.x, dtype=np.float64)


BALANCERS: dict[Balancing, type[Balancer]] = {
    "fixed": Balancer,
    "uncertainty": Uncertainty,
    "dwa": DynamicWeightAverage,
    "famo": Famo,
    "gradnorm": GradNorm,
    "pcgrad": PcGrad,
    "cagrad": CaGrad,
}


def build_balancer(config: BalancingConfig, is_regression: Sequence[bool]) -> Balancer:
    """The balancer of `config` over tasks of which some are regressions."""
    return BALANCERS[config.method](config, is_regression)
