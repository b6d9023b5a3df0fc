"""T3: the decoder over guide steps. Autoregressive, conditioned on the fused context and on what AR showed so far.

Constrained, not filtered: a step that the grammar does not allow has probability 0. Knows nothing of how its target weights
were made (models/outcomes.py).
"""

# Letters: B = rows, S = MAX_STEPS, A = NUM_STEPS, O = outcome codes, D = width, F = state features.

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import ModelConfig
from guidelens.models.inputs import PlanInputs
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, UNKNOWN_OUTCOME, allowed_next

START_STEP = NUM_STEPS
NUM_OUTCOME_CODES = UNKNOWN_OUTCOME + 1
NUM_STATE = MAX_STEPS + 2 * (NUM_STEPS + 1) + 2 * NUM_OUTCOME_CODES + 5
_NEVER = -1e9


def plan_state(plan: PlanInputs) -> Tensor:
    """(B, S, NUM_STATE) float32: what is known before each step, as plain numbers.

    Step index, last step, last outcome, counts of steps and outcomes so far, AR view time and gestures (last, summed), and
    whether the last outcome is known. Nothing of step k or later enters the state of step k.
    """
    batch = len(plan.steps_RS)
    steps_BS = torch.where(plan.steps_RS < 0, START_STEP, plan.steps_RS)
    outcomes_BS = torch.where(plan.outcomes_RS < 0, UNKNOWN_OUTCOME, plan.outcomes_RS)
    known_BS = (outcomes_BS != UNKNOWN_OUTCOME).float()
    told = [plan.view_RS * known_BS, plan.gestures_RS * known_BS]
    step_BSA = fn.one_hot(steps_BS, NUM_STEPS + 1).float()
    outcome_BSO = fn.one_hot(outcomes_BS, NUM_OUTCOME_CODES).float()
    index_BSS = torch.eye(MAX_STEPS, device=steps_BS.device).expand(batch, -1, -1)
    last = [_shifted(x) for x in (step_BSA, outcome_BSO, *(x[:, :, None] for x in told), known_BS[:, :, None])]
    sums = [_shifted(x.cumsum(1)) for x in (step_BSA, outcome_BSO, *(x[:, :, None] for x in told))]
    return torch.cat([index_BSS, *last, *sums], dim=2)


def _shifted(x_BSX: Tensor) -> Tensor:
    """Moved by one step: position k holds what was at k - 1, position 0 zeros."""
    return torch.cat([torch.zeros_like(x_BSX[:, :1]), x_BSX[:, :-1]], dim=1)


def hide_outcomes(plan: PlanInputs, from_step_B: Tensor) -> PlanInputs:
    """The plan as it looks when nothing is known of what followed step `from_step` and later ones (open loop)."""
    hidden = torch.arange(MAX_STEPS, device=from_step_B.device) >= from_step_B[:, None]
    return dataclasses.replace(
        plan,
        outcomes_RS=torch.where(hidden, UNKNOWN_OUTCOME, plan.outcomes_RS),
        view_RS=plan.view_RS.masked_fill(hidden, 0),
        gestures_RS=plan.gestures_RS.masked_fill(hidden, 0),
    )


class PlanDecoder(nn.Module):
    """Log-probabilities of the next step at each place of a plan."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.reads_ar = "x3" not in config.without
        self.start = nn.Linear(width, width)
        self.gru = nn.GRU(NUM_STATE, width, batch_first=True)
        self.wide = nn.Linear(2 * width + NUM_STATE, 2 * width)
        self.out = nn.Linear(2 * width, NUM_STEPS)

    def forward(self, context_BD: Tensor, plan: PlanInputs, allowed_BSA: Tensor) -> Tensor:
        """(B, S, A) log-probabilities, about -1e9 where not allowed.

        Args:
            context_BD: what the experts made of shopper and product in view.
            plan: steps and outcomes so far; places past its end say what would come next there.
            allowed_BSA: the grammar's mask of each place.
        """
        if not self.reads_ar:
            plan = hide_outcomes(plan, torch.zeros(len(plan.steps_RS), dtype=torch.int64, device=plan.steps_RS.device))
        state_BSF = plan_state(plan)
        hidden_BSD, _ = self.gru(state_BSF, torch.tanh(self.start(context_BD))[None])
        every_BSD = context_BD[:, None].expand_as(hidden_BSD)
        logits_BSA = self.out(fn.gelu(self.wide(torch.cat([hidden_BSD, every_BSD, state_BSF], dim=2))))
        return torch.log_softmax(torch.where(allowed_BSA, logits_BSA, _NEVER), dim=2)


def allowed_at_each(plan: PlanInputs) -> Tensor:
    """(B, S, A) bool: the grammar's mask before each step of the plans (schemas/steps.py); all False past an ended plan."""
    base, steps = plan.base_RA.numpy(), plan.steps_RS.numpy()
    return torch.stack([torch.from_numpy(allowed_next(base, steps, k)) for k in range(MAX_STEPS)], dim=1)
