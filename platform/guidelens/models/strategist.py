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
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, OUTCOME_INDEX, STEP_INDEX, UNKNOWN_OUTCOME, allowed_next

START_STEP = NUM_STEPS
NUM_OUTCOME_CODES = UNKNOWN_OUTCOME + 1
NUM_ANSWERS = 6
"""A question is answered by taps: none to five of them, as counted in the step's gestures."""
NUM_STATE = MAX_STEPS + 2 * (NUM_STEPS + 1) + 2 * NUM_OUTCOME_CODES + 5 + 5 * NUM_STEPS + MAX_STEPS + NUM_ANSWERS
_NEVER = -1e9


def plan_state(plan: PlanInputs) -> Tensor:
    """(B, S, NUM_STATE) float32: what is known before each step, as plain numbers.

    What product and device allow at all, step index, last step, last outcome, counts of steps and outcomes so far, AR view time and gestures (last, summed), and
    whether the last outcome is known; which steps were met with nothing and which with engagement, these and the place again while the product is
    in the cart, and what the last question was answered. Nothing of step k or later enters the state of step k.
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
    base_BSA = plan.base_RA.float()[:, None].expand(-1, MAX_STEPS, -1)
    return torch.cat([base_BSA, index_BSS, *last, *sums, *_met(steps_BS, outcomes_BS, index_BSS), _answer(plan, steps_BS)], dim=2)


def _met(steps_BS: Tensor, outcomes_BS: Tensor, index_BSS: Tensor) -> list[Tensor]:
    """(B, S, 2 A) which steps met which response so far, and (B, S, 2 A + S) that and the place, while the product is in the cart."""
    carted_BS, step_BSA = outcomes_BS == OUTCOME_INDEX["cart"], fn.one_hot(steps_BS, NUM_STEPS + 1).float()[:, :, :NUM_STEPS]
    liked_BS = carted_BS | (outcomes_BS == OUTCOME_INDEX["engaged"])
    cold_BS = outcomes_BS == OUTCOME_INDEX["none"]
    met_BSX = torch.cat([step_BSA * cold_BS[:, :, None], step_BSA * liked_BS[:, :, None]], dim=2)
    met_BSX = _shifted(met_BSX.cumsum(1).clamp_max(1))
    in_cart_BS1 = _shifted(carted_BS.float().cumsum(1).clamp_max(1)[:, :, None])
    return [met_BSX, in_cart_BS1 * met_BSX, in_cart_BS1 * index_BSS]


def _answer(plan: PlanInputs, steps_BS: Tensor) -> Tensor:
    """(B, S, NUM_ANSWERS) how often each answer was given to a question so far."""
    taps_BS = torch.expm1(plan.gestures_RS).round().long().clamp(0, NUM_ANSWERS - 1)
    asked_BS = (steps_BS == STEP_INDEX["ask_preference"]) & (plan.outcomes_RS != UNKNOWN_OUTCOME)
    return _shifted((fn.one_hot(taps_BS, NUM_ANSWERS).float() * asked_BS[:, :, None]).cumsum(1))


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
        self.direct = nn.Linear(NUM_STATE, NUM_STEPS, bias=False)
        nn.init.zeros_(self.direct.weight)

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
        logits_BSA = self.out(fn.gelu(self.wide(torch.cat([hidden_BSD, every_BSD, state_BSF], dim=2)))) + self.direct(state_BSF)
        return torch.log_softmax(torch.where(allowed_BSA, logits_BSA, _NEVER), dim=2)


def allowed_at_each(plan: PlanInputs) -> Tensor:
    """(B, S, A) bool: the grammar's mask before each step of the plans (schemas/steps.py); all False past an ended plan."""
    base, steps = plan.base_RA.numpy(), plan.steps_RS.numpy()
    return torch.stack([torch.from_numpy(allowed_next(base, steps, k)) for k in range(MAX_STEPS)], dim=1)
