"""The truth behind a simulated shop's files, to be asked by evaluation: values of guide policies, the oracle, the reference,
expected clicks, purchases and interest, propensities. The one door to what no model may see.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from guidelens.errors import ContractError, NotFoundError
from guidelens.schemas.catalog import Product
from guidelens.schemas.ids import sub_seed
from guidelens.world import appeal as model
from guidelens.world.appeal import Contexts, Moments
from guidelens.world.blueprint import Job, RealCatalogue, build
from guidelens.world.fixed_plan import best_fixed_plans
from guidelens.world.generate import WORLD_SCHEMA_VERSION, WorldFile
from guidelens.world.guide_process import NUM_UNIFORMS, HiddenState
from guidelens.world.guide_tables import combo_of
from guidelens.world.latents import DEVICES, GOOD_QUALITY, KINDS, Floats, Ints
from guidelens.world.oracle import oracle_values
from guidelens.world.policy import GuidePolicy, LoggingPolicy, PlanPolicy, script_plans
from guidelens.world.reference import QPolicy, ReferenceFit, Visible
from guidelens.world.rollout import GuideSessions, run, session_draws
from guidelens.world.sessions import Shop, examination, logging_logits


@dataclass(frozen=True)
class ArSessions:
    """AR sessions of the log, in the order asked for; `rows` are their numbers in the world. What a guide may know of them is named, the rest stays in `hidden`."""

    session_ids: tuple[str, ...]
    product_ids: tuple[str, ...]
    devices: tuple[str, ...]
    base: NDArray[np.bool_]
    """(B, NUM_STEPS): the steps that product and device allow."""
    rows: Ints
    hidden: GuideSessions = field(repr=False)

    def __len__(self) -> int:
        return len(self.session_ids)


@dataclass(frozen=True)
class Expectations:
    """True chances and interest for every product, (B, N) float64: a click once examined, a kept purchase outside AR after a click, latent interest."""

    click: Floats
    purchase: Floats
    interest: Floats


class World:
    """A generated world, opened by its folder."""

    def __init__(self, root: Path, file: WorldFile, real: RealCatalogue | None) -> None:
        self.root, self.seed, self.parameters = root, file.seed, file.parameters
        self.size, self.product_ids = file.size, file.product_ids
        self._shop: Shop = build(Job(file.size, file.seed, file.parameters, real, root))[0]
        self._ar = _load(root / "truth" / "ar_sessions")
        self._row_of_ar = {str(name): row for row, name in enumerate(self._ar["session_id"])}
        self._sessions = _load(root / "truth" / "sessions")
        self._row_of_session = {str(name): row for row, name in enumerate(self._sessions["session_id"])}
        self._hidden = self._hidden_sessions()
        self._oracle: dict[tuple[int, bytes], Floats] = {}
        self._reference: Floats | None = None
        self._fixed: Ints | None = None

    @classmethod
    def open(cls, root: Path) -> "World":
        """Raises NotFoundError where `root` holds no world, ContractError where a newer GuideLens wrote it."""
        path = root / "truth" / "world.json"
        if not path.exists():
            raise NotFoundError(f"{root} holds no simulated shop (truth/world.json is missing); generate one first")
        file = WorldFile.model_validate_json(path.read_text())
        if file.schema_version > WORLD_SCHEMA_VERSION:
            raise ContractError(f"world {root} has schema {file.schema_version}; this GuideLens reads up to {WORLD_SCHEMA_VERSION}: upgrade it")
        return cls(root, file, _real(root / "truth", file) if file.real else None)

    @property
    def ar_session_ids(self) -> tuple[str, ...]:
        """All sessions of the log in which the AR guide acted."""
        return tuple(self._row_of_ar)

    def ar_sessions(self, session_ids: Sequence[str] | None = None) -> ArSessions:
        """AR sessions by id (all by default).

        Raises:
            NotFoundError: one of them is no AR session of this world.
        """
        wanted = self.ar_session_ids if session_ids is None else tuple(session_ids)
        strangers = [name for name in wanted if name not in self._row_of_ar]
        if strangers:
            raise NotFoundError(
                f"world {self.root} has no AR session {strangers[0]!r} ({len(strangers)} unknown of {len(wanted)}); ask for ids of ar_session_ids"
            )
        rows = np.array([self._row_of_ar[name] for name in wanted], dtype=np.int64)
        hidden = self._hidden.take(rows)
        products, shoppers = self._ar["product"][rows], self._ar["shopper"][rows]
        return ArSessions(
            wanted,
            tuple(self.product_ids[row] for row in products),
            tuple(DEVICES[row][0] for row in self._shop.shoppers.device[shoppers]),
            hidden.base,
            rows,
            hidden,
        )

    def value(self, policy: GuidePolicy, sessions: ArSessions, seed: int, rollouts: int = 1, closed_loop: bool = True) -> Floats:
        """(B,) value of each session in minor units under `policy`, the mean of `rollouts` simulated runs.

        The same (sessions, seed) means common random numbers: differences of two policies are not blurred by luck they share.
        Open loop hides from the policy how the shopper responds.
        """
        total = np.zeros(len(sessions))
        for rollout in range(rollouts):
            draws = session_draws(sessions.rows, sub_seed(self.seed, f"value/{seed}"), f"rollout/{rollout}", NUM_UNIFORMS)
            total += run(sessions.hidden, policy, draws, self.parameters.guide, closed_loop=closed_loop).value
        return total / rollouts

    def logging_value(self, sessions: ArSessions, seed: int, rollouts: int = 1) -> Floats:
        """(B,) value of the guide that wrote the log, noise included."""
        total = np.zeros(len(sessions))
        for rollout in range(rollouts):
            inner = sub_seed(self.seed, f"value/{seed}")
            draws = session_draws(sessions.rows, inner, f"rollout/{rollout}", NUM_UNIFORMS)
            policy = LoggingPolicy(
                self.script_policy(sessions), self.parameters.guide.script_share, session_draws(sessions.rows, inner, f"logging/{rollout}", 2)
            )
            total += run(sessions.hidden, policy, draws, self.parameters.guide).value
        return total / rollouts

    def logged_value(self, sessions: ArSessions) -> Floats:
        """(B,) what the log's own sessions were worth, coupons, returns and annoyance counted."""
        values: Floats = self._ar["logged_value"][sessions.rows]
        return values

    def script_policy(self, sessions: ArSessions) -> PlanPolicy:
        """The logging guide without its noise."""
        return PlanPolicy(script_plans(KINDS), sessions.hidden.kind)

    def fixed_plan_policy(self, sessions: ArSessions) -> PlanPolicy:
        """The best fixed order of steps for each kind of product, found by search in the simulator."""
        if self._fixed is None:
            self._fixed = best_fixed_plans(self._hidden, self.parameters.guide, sub_seed(self.seed, "fixed plans"))
        return PlanPolicy(self._fixed, sessions.hidden.kind)

    def oracle_value(self, sessions: ArSessions) -> Floats:
        """(B,) expected value, in minor units, of a guide that sees the hidden state: an upper bound for every policy (oracle.py)."""
        hidden, value = sessions.hidden, np.zeros(len(sessions))
        keys = [(int(combo), base.tobytes()) for combo, base in zip(hidden.combo, hidden.base, strict=True)]
        state = HiddenState.from_columns(hidden.start).index
        for key in sorted(set(keys)):
            if key not in self._oracle:
                with threadpool_limits(1):
                    self._oracle[key] = oracle_values(key[0], np.frombuffer(key[1], dtype=np.bool_), self.parameters.guide)
            mine = np.array([one == key for one in keys])
            value[mine] = self._oracle[key][state[mine]]
        return value * hidden.margin

    def reference_policy(self, sessions: ArSessions) -> QPolicy:
        """The best policy found that sees what a real guide sees; fitted once (size.reference_sessions simulated sessions), then kept in truth/."""
        if self._reference is None:
            self._reference = self._fitted_reference()
        return QPolicy(self._visible(sessions.rows), self._reference, 0.0, np.zeros((0, 8, 2)))

    def reference_value(self, sessions: ArSessions, seed: int = 0, rollouts: int = 1) -> Floats:
        """(B,) V_ref: a lower bound on the best policy without sight of the hidden state."""
        return self.value(self.reference_policy(sessions), sessions, seed, rollouts)

    def expectations(self, session_ids: Sequence[str]) -> Expectations:
        """True expectations for every product at the sessions' own moments and contexts, without the noise of the moment."""
        moments, contexts = self._where(session_ids)
        total = model.appeal(self._shop.products, self._shop.shoppers, moments, self.size.num_days, self.parameters)
        total = total + self.parameters.appeal.context * model.relation(self._shop.products, contexts)
        bought = model.cart_chance(total, self.parameters.appeal) * self.parameters.appeal.purchase_given_cart
        return Expectations(model.click_chance(total, self.parameters.appeal), bought, model.interest_of(total))

    def logging_logits(self, session_ids: Sequence[str]) -> Floats:
        """(B, N) logits of the logging ranker: its slate is drawn from their softmax, without replacement."""
        moments, contexts = self._where(session_ids)
        return logging_logits(self._shop.products, moments.day, contexts, self.parameters)

    def popularity(self, session_ids: Sequence[str]) -> Floats:
        """(B, N) the given popularity curves at the sessions' days."""
        return model.popularity(self._shop.products, self._where(session_ids)[0].day, self.parameters.trouble)

    def outfits(self, product_ids: Sequence[str]) -> Floats:
        """(P, P) how well each product (column) truly goes with each (row): above 0 for families that complement each other in a style not opposed."""
        row_of = {product_id: row for row, product_id in enumerate(self.product_ids)}
        rows = np.array([row_of[product_id] for product_id in product_ids], dtype=np.int64)
        fits: Floats = np.maximum(model.outfit(self._shop.products, rows)[:, rows], 0.0)
        return fits

    def examination(self) -> Floats:
        """(K,) chance that a position of the slate is looked at."""
        return examination(self.parameters.slates.slate_size, self.parameters)

    def _where(self, session_ids: Sequence[str]) -> tuple[Moments, Contexts]:
        rows = np.array([self._row_of_session[name] for name in session_ids], dtype=np.int64)
        column = {name: values[rows] for name, values in self._sessions.items()}
        moments = Moments(column["shopper"], column["day"], column["is_second"])
        return moments, Contexts(column["kind"], column["target"], column["with_colour"], column["with_material"])

    def _hidden_sessions(self) -> GuideSessions:
        products, shoppers = self._shop.products, self._shop.shoppers
        focus, shopper = self._ar["product"], self._ar["shopper"]
        kind, device = products.kind[focus], shoppers.device[shopper]
        return GuideSessions(
            row=np.arange(len(focus)),
            kind=kind,
            combo=combo_of(kind, products.quality[focus] > GOOD_QUALITY, shoppers.guide_type[shopper]),
            sees_ar=device < 2,
            start=self._ar["start"].astype(np.int64),
            base=products.masks[device, focus],
            margin=products.margin[focus],
        )

    def _visible(self, rows: Ints) -> Visible:
        """What a guide may know: the profile as the shop has it, the device, and the product's price against its family's."""
        shoppers, products = self._shop.shoppers, self._shop.products
        shopper, focus = self._ar["shopper"][rows], self._ar["product"][rows]
        quarters = np.stack([np.digitize(shoppers.visible[shopper, column], (-0.67, 0.0, 0.67)) for column in range(shoppers.visible.shape[1])], axis=1)
        one_hot = (quarters[:, :, None] == np.arange(1, 4)).reshape(len(rows), -1)
        device = shoppers.device[shopper][:, None] == np.arange(1, 3)
        price = products.price_level[focus][:, None]
        family = products.family[focus][:, None] % 4 == np.arange(1, 4)
        numbers = np.concatenate([np.ones((len(rows), 1)), device, price, one_hot, family], axis=1)
        return Visible(numbers.astype(np.float32), products.kind[focus])

    def _fitted_reference(self) -> Floats:
        path = self.root / "truth" / "reference.npy"
        if path.exists():
            kept: Floats = np.load(path, allow_pickle=False)
            return kept
        everything = np.arange(self._hidden.num)
        fit = ReferenceFit(self._hidden, self._visible(everything), self.parameters.guide, self.seed)
        weights = fit.fit(self.size.reference_sessions)
        np.save(path, weights, allow_pickle=False)
        return weights


def _load(folder: Path) -> dict[str, NDArray[Any]]:
    return {path.stem: np.load(path, allow_pickle=False) for path in sorted(folder.glob("*.npy"))}


def _real(truth: Path, file: WorldFile) -> RealCatalogue:
    products = [Product.model_validate_json(line) for line in (truth / "products.jsonl").read_text().splitlines()]
    frames = [("", file.product_ids[row]) for row in file.frame_products]
    return RealCatalogue(products, np.load(truth / "styles.npy", allow_pickle=False), frames)
