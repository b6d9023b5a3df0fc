"""What the world says of guide policies and of clicks: the process against its own dynamic programme, the order of policies, golden statistics."""

from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from guidelens.config import WorldSize
from guidelens.schemas.steps import NUM_STEPS, STEP_INDEX, UNKNOWN_OUTCOME, allowed_next
from guidelens.world import WORLD_V1, GuidePolicy, Observed, World, generate
from guidelens.world.blueprint import Job, build
from guidelens.world.guide_process import DIMS, NUM_UNIFORMS, HiddenState, advance
from guidelens.world.guide_tables import NUM_COMBOS, NUM_TYPES
from guidelens.world.oracle import oracle_values
from guidelens.world.sessions import session_counts, simulate, slate_propensity

SIZE = WorldSize(num_products=48, num_shoppers=400, num_sessions=8000, num_frames=48, views_per_product=2, num_days=21, reference_sessions=120_000)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    generate(SIZE, 11, root, num_workers=1)
    return World.open(root)


def _interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    middle, spread = float(differences.mean()), 2.6 * float(differences.std()) / np.sqrt(len(differences))
    return middle - spread, middle + spread


def test_the_log_is_a_rollout_of_the_logging_policy(world: World) -> None:
    sessions = world.ar_sessions()
    low, high = _interval(world.logged_value(sessions) - world.logging_value(sessions, seed=1, rollouts=8))
    assert low < 0 < high


def test_oracle_beats_reference_beats_script_beats_logging(world: World) -> None:
    sessions = world.ar_sessions()
    logging = world.logging_value(sessions, 2, rollouts=8)
    script = world.value(world.script_policy(sessions), sessions, 2, rollouts=8)
    fixed = world.value(world.fixed_plan_policy(sessions), sessions, 2, rollouts=8)
    reference = world.reference_value(sessions, 2, rollouts=8)
    oracle = world.oracle_value(sessions)
    assert _interval(script - logging)[0] > 0
    assert _interval(fixed - script)[0] > 0
    assert _interval(reference - fixed)[0] > 0
    assert _interval(oracle - reference)[0] > 0
    closed = (script.mean() - logging.mean()) / (reference.mean() - logging.mean())
    assert 0.1 < closed < 0.6


def test_the_reference_is_fitted_once_and_kept(world: World) -> None:
    sessions = world.ar_sessions()
    again = World.open(world.root)
    assert np.array_equal(again.reference_value(again.ar_sessions(), 5), world.reference_value(sessions, 5))
    assert (world.root / "truth" / "reference.npy").is_file()


def test_values_are_the_same_again_and_in_other_company(world: World) -> None:
    sessions = world.ar_sessions()
    some = world.ar_sessions(sessions.session_ids[100:140])
    everyone = world.value(world.script_policy(sessions), sessions, 3)
    assert np.array_equal(everyone[100:140], world.value(world.script_policy(some), some, 3))
    assert not np.array_equal(everyone, world.value(world.script_policy(sessions), sessions, 4))


@dataclass
class _Watching:
    """Follows another policy and keeps what it was shown."""

    inner: GuidePolicy
    seen: list[Observed] = field(default_factory=list)

    def act(self, observed: Observed) -> NDArray[np.int64]:
        self.seen.append(observed)
        return self.inner.act(observed)


def test_open_loop_hides_how_the_shopper_responds(world: World) -> None:
    sessions = world.ar_sessions(world.ar_session_ids[:200])
    watching = _Watching(world.script_policy(sessions))
    open_loop = world.value(watching, sessions, 0, closed_loop=False)
    assert set(np.unique(watching.seen[1].outcomes)) == {-1, UNKNOWN_OUTCOME}
    assert not any(seen.view_ms.any() or seen.gestures.any() for seen in watching.seen)
    assert np.array_equal(open_loop, world.value(world.script_policy(sessions), sessions, 0)), "a script looks at no response"


def test_a_policy_is_shown_the_grammar_and_the_log_so_far(world: World) -> None:
    sessions = world.ar_sessions(world.ar_session_ids[:200])
    watching = _Watching(world.script_policy(sessions))
    world.value(watching, sessions, 0)
    for seen in watching.seen:
        assert np.array_equal(seen.allowed, allowed_next(sessions.base[seen.session_rows], seen.steps, seen.length))
        assert (seen.steps[:, : seen.length] >= 0).all()
        assert (seen.outcomes[:, seen.length :] == -1).all()


def test_a_forbidden_step_is_refused(world: World) -> None:
    class Stubborn:
        def act(self, observed: Observed) -> NDArray[np.int64]:
            return np.full(len(observed.session_rows), STEP_INDEX["show_info"])

    sessions = world.ar_sessions(world.ar_session_ids[:50])
    with pytest.raises(AssertionError, match="grammar forbids"):
        world.value(Stubborn(), sessions, 0)


@pytest.mark.parametrize("step", ["show_reviews", "offer_coupon", "stay_quiet", "compare_similar", "hand_to_human"])
@pytest.mark.parametrize("combo", [5, 27, 79])
def test_dynamic_programming_agrees_with_the_simulator(step: str, combo: int) -> None:
    """With one step to choose from, the programme's value must be the mean of simulated sessions that repeat it."""
    num, rng = 40_000, np.random.default_rng(combo)
    start = np.tile(np.array([3, 3, 1, 0, 2, 1, 0, 0, 0]), (num, 1))
    state, live, earned = HiddenState.from_columns(start), np.arange(num), np.zeros(num)
    for _ in range(8):
        combos = np.full(len(live), combo)
        result = advance(
            combos,
            combos // (2 * NUM_TYPES),
            np.ones(len(live), bool),
            state,
            np.full(len(live), STEP_INDEX[step]),
            rng.random((len(live), NUM_UNIFORMS)),
            WORLD_V1.guide,
        )
        earned[live] += result.value
        live, state = live[~result.ended], result.state.take(np.flatnonzero(~result.ended))
    base = np.arange(NUM_STEPS) == STEP_INDEX[step]
    told = oracle_values(combo, base, WORLD_V1.guide)[HiddenState.from_columns(start[:1]).index[0]]
    assert abs(told - earned.mean()) < 3.5 * earned.std() / np.sqrt(num)


def test_more_steps_to_choose_from_never_lower_the_oracle() -> None:
    few, all_steps = np.zeros(NUM_STEPS, bool), np.ones(NUM_STEPS, bool)
    few[[STEP_INDEX["stay_quiet"], STEP_INDEX["show_info"]]] = True
    for combo in (0, NUM_COMBOS - 1):
        assert (oracle_values(combo, all_steps, WORLD_V1.guide) >= oracle_values(combo, few, WORLD_V1.guide) - 1e-12).all()


def test_slate_propensities_are_those_of_drawing_without_replacement() -> None:
    logits = np.array([[0.3, -1.0, 2.0, 0.7]])
    weights = np.exp(logits[0])
    total = 0.0
    for order in permutations(range(4)):
        propensity = slate_propensity(logits, np.array([order]))[0]
        by_hand = [weights[order[k]] / weights[list(order[k:])].sum() for k in range(4)]
        assert np.allclose(propensity, by_hand)
        total += float(propensity.prod())
    assert np.isclose(total, 1.0)


def test_states_have_their_own_numbers() -> None:
    columns = np.stack(np.unravel_index(np.arange(int(np.prod(DIMS))), DIMS), axis=1)
    assert np.array_equal(HiddenState.from_columns(columns).index, np.arange(len(columns)))


@pytest.mark.parametrize("seed", [1, 2, 7])
def test_golden_statistics_of_world_v1(seed: int) -> None:
    size = WorldSize(num_shoppers=400, num_sessions=8000)
    shop, _ = build(Job(size, seed, WORLD_V1, None, Path()))
    chunk = simulate(shop, range(size.num_shoppers), session_counts(shop.shoppers, size.num_sessions, seed))
    slates, guide = chunk.slates, chunk.ar.log
    bought = slates.bought.sum() + (guide.outcomes == 3).any(axis=1).sum()
    steps = (guide.steps >= 0).sum(axis=1)
    assert 0.02 < slates.clicked.mean() < 0.06
    assert 0.01 < bought / size.num_sessions < 0.03
    assert 0.35 < len(steps) / size.num_sessions < 0.5
    assert 3.0 < steps.mean() < 4.5
    assert 600 < np.median(slates.browse_ms[slates.examined]) < 1000
    assert 12_000 < np.median(slates.stay_ms[slates.clicked]) < 26_000


def test_clicks_are_hard_to_foresee_and_popularity_is_not_enough(world: World) -> None:
    sessions, names = world._sessions, [str(name) for name in world._sessions["session_id"]]
    click, popularity = world.expectations(names).click, world.popularity(names)
    scanned = np.flatnonzero(sessions["kind"] == 1)
    click[scanned, sessions["target"][scanned]] = 0.0
    examined = world.examination()
    best, popular = (-np.sort(-click, axis=1)[:, :10], np.take_along_axis(click, np.argsort(-popularity, axis=1)[:, :10], axis=1))
    chance = click.mean() * examined.sum()
    share = ((popular @ examined).mean() - chance) / ((best @ examined).mean() - chance)
    assert 0.05 < share <= 0.6


def test_the_best_guess_of_a_click_is_as_good_as_the_page_says() -> None:
    shop, _ = build(Job(WorldSize(num_shoppers=400, num_sessions=8000), 1, WORLD_V1, None, Path()))
    chunk = simulate(shop, range(400), session_counts(shop.shoppers, 8000, 1))
    # What is left of the appeal without the noise of the moment is more than any model can see.
    from guidelens.world import appeal as model
    from guidelens.world.sessions import examination

    total = model.appeal(shop.products, shop.shoppers, chunk.moments, 28, WORLD_V1) + WORLD_V1.appeal.context * model.relation(shop.products, chunk.contexts)
    chance = model.click_chance(np.take_along_axis(total, chunk.slates.product, axis=1), WORLD_V1.appeal) * examination(10, WORLD_V1)
    assert 0.72 < roc_auc_score(chunk.slates.clicked.ravel(), chance.ravel()) < 0.84
