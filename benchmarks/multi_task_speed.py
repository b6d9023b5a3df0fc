"""How many examples does a CPU second train, beside torch-rechub's same architectures?

    python -m benchmarks.multi_task_speed --peers DIR [--rows 131072] [--epochs 4] [--seeds 0,1,2] [--out benchmarks/results]

`--peers` is a folder that holds torch-rechub (`pip install --no-deps --target DIR torch-rechub`). Two binary tasks over categorical columns of a made-up
log that a random teacher labelled (the single task: the first of them); both sides have the same columns, vector sizes, experts, towers, batches,
optimizer (Adam) and rate, and one thread. The peer trains by its own trainer and data loader. Ours are the joint model's experts (models/experts.py)
over one table of vectors, normalized by layer where the peer normalizes by batch. The sides take turns, an epoch each, so that what else the machine
does slows both. Loss reached: mean cross-entropy on rows held back, by the same code for both.
"""

import contextlib
import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as fn

from benchmarks._results import keep, machine, today
from guidelens.config import ModelConfig, Sharing
from guidelens.errors import InputError
from guidelens.evaluation.multitask import SeedInterval, over_seeds
from guidelens.models.experts import Experts
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

TASKS = ("click", "purchase")
NUM_COLUMNS, COLUMN_SIZE, VECTOR, EXPERT, TOWER, NUM_EXPERTS = 16, 1000, 16, 64, 32, 4
BATCH, RATE = 1024, 1e-3
SHARING: tuple[Sharing, ...] = ("single_task", "shared_bottom", "mmoe", "ple")
HELD_BACK = 16_384


class Pointwise(nn.Module):
    """The joint model's experts over categorical columns, and a tower a task."""

    first_F: Tensor

    def __init__(self, sharing: Sharing, tasks: Sequence[str]) -> None:
        super().__init__()
        config = ModelConfig(sharing=sharing, width=EXPERT, num_experts=NUM_EXPERTS, num_task_experts=1, expert_norm=True, dropout=0.0)
        self.table = nn.Embedding(NUM_COLUMNS * COLUMN_SIZE, VECTOR)
        nn.init.normal_(self.table.weight, std=1e-4)  # as the peer starts
        self.register_buffer("first_F", torch.arange(NUM_COLUMNS) * COLUMN_SIZE)
        self.tasks, self.experts = tasks, Experts(config, (NUM_COLUMNS * VECTOR,), tasks)
        self.towers = nn.ModuleList(nn.Sequential(nn.Linear(EXPERT, TOWER), nn.LayerNorm(TOWER), nn.ReLU(), nn.Linear(TOWER, 1)) for _ in tasks)

    def forward(self, x_BF: Tensor) -> Tensor:
        """(B, T) log-odds."""
        vectors_RV = self.table.weight.index_select(0, (x_BF + self.first_F).flatten())  # its gradient is cheaper than nn.Embedding's
        summed = self.experts.part(vectors_RV.view(len(x_BF), -1), 0)
        return torch.cat([tower(vector) for tower, vector in zip(self.towers, self.experts(summed, self.tasks), strict=True)], dim=1)


class Log(Frozen):
    """Columns (R, F) and labels (R, T), by a random teacher: pairs of columns decide, a purchase needs a click."""

    model_config = {**Frozen.model_config, "arbitrary_types_allowed": True}

    x: NDArray[np.int64]
    y: NDArray[np.float32]


def made_up(rows: int, seed: int) -> Log:
    rng = np.random.default_rng(seed)
    x = np.minimum(rng.zipf(1.3, (rows, NUM_COLUMNS)) - 1, COLUMN_SIZE - 1)
    own = rng.normal(0, 0.5, (NUM_COLUMNS, COLUMN_SIZE, 4))
    vectors = own[np.arange(NUM_COLUMNS), x]
    click = (vectors[:, ::2] * vectors[:, 1::2]).sum((1, 2)) + vectors[:, :, 0].sum(1) - 1.0
    buy = (vectors[:, :4] * vectors[:, 4:8]).sum((1, 2)) - 0.5
    clicked = rng.random(rows) < 1 / (1 + np.exp(-click))
    bought = clicked & (rng.random(rows) < 1 / (1 + np.exp(-buy)))
    return Log(x=x.astype(np.int64), y=np.stack([clicked, bought], axis=1).astype(np.float32))


class Learner(NamedTuple):
    """A model in training: `epoch` trains it over the log once, `say` gives probabilities (B, T) of columns (B, F)."""

    epoch: Callable[[], object]
    say: Callable[[Tensor], Tensor]


def ours(log: Log, sharing: Sharing, seed: int) -> Learner:
    torch.manual_seed(seed)
    x, y = torch.from_numpy(log.x), torch.from_numpy(log.y)
    model = Pointwise(sharing, TASKS[: y.shape[1]])
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    generator = torch.Generator().manual_seed(seed)

    def epoch() -> None:
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(fn.binary_cross_entropy_with_logits(model(x.index_select(0, rows)), y.index_select(0, rows)))
            optimizer.step()

    return Learner(epoch, lambda held: torch.sigmoid(model.eval()(held)))


def peer(log: Log, sharing: Sharing, seed: int) -> Learner:
    """torch-rechub's model by its own trainer, without the evaluation that its `fit` does after each epoch. A single task: its shared bottom with one tower."""
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.models.multi_task import MMOE, PLE, SharedBottom
    from torch_rechub.trainers import MTLTrainer
    from torch_rechub.utils.data import DataGenerator

    torch.manual_seed(seed)
    names = [f"c{number}" for number in range(NUM_COLUMNS)]
    features = [SparseFeature(name, vocab_size=COLUMN_SIZE, embed_dim=VECTOR) for name in names]
    num_tasks = log.y.shape[1]
    kinds, expert, towers = ["classification"] * num_tasks, {"dims": [EXPERT]}, [{"dims": [TOWER]}] * num_tasks
    model: Any = {
        "single_task": lambda: SharedBottom(features, kinds, expert, towers),
        "shared_bottom": lambda: SharedBottom(features, kinds, expert, towers),
        "mmoe": lambda: MMOE(features, kinds, NUM_EXPERTS, expert, towers),
        "ple": lambda: PLE(features, kinds, 1, 1, NUM_EXPERTS, expert, towers),
    }[sharing]()
    columns = {name: log.x[:, number] for number, name in enumerate(names)}
    loader, *_ = DataGenerator(columns, log.y).generate_dataloader(x_val=columns, y_val=log.y, x_test=columns, y_test=log.y, batch_size=BATCH)
    trainer = MTLTrainer(model, kinds, optimizer_params={"lr": RATE}, n_epoch=1)

    def epoch() -> None:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            trainer.train_one_epoch(loader)

    return Learner(epoch, lambda held: model.eval()({name: held[:, number] for number, name in enumerate(names)}))


@torch.no_grad()
def loss_of(learner: Learner, held: Log) -> float:
    p = learner.say(torch.from_numpy(held.x)).clamp(1e-6, 1 - 1e-6)
    return float(fn.binary_cross_entropy(p, torch.from_numpy(held.y)))


class Row(Frozen):
    """One architecture: examples a CPU second and loss of each side by seed, and the ratio of their speeds."""

    ours: SeedInterval
    peer: SeedInterval
    ratio: SeedInterval
    our_loss: SeedInterval
    peer_loss: SeedInterval


class Measured(Frozen):
    machine: str
    date: str
    command: str
    rows: dict[str, Row]


def compare(sharing: Sharing, rows: int, epochs: int, seeds: Sequence[int]) -> Row:
    speeds: dict[str, list[float]] = {"ours": [], "peer": []}
    losses: dict[str, list[float]] = {"ours": [], "peer": []}
    for seed in seeds:
        log, num_tasks = made_up(rows + HELD_BACK, seed), 1 if sharing == "single_task" else len(TASKS)
        train, test = (Log(x=log.x[part], y=log.y[part, :num_tasks]) for part in (slice(rows), slice(rows, None)))
        sides = {"ours": ours(train, sharing, seed), "peer": peer(train, sharing, seed)}
        seconds = dict.fromkeys(sides, 0.0)
        for _ in range(epochs):
            for name, learner in sides.items():
                start = time.process_time()
                learner.epoch()
                seconds[name] += time.process_time() - start
        for name, learner in sides.items():
            speeds[name].append(rows * epochs / seconds[name])
            losses[name].append(loss_of(learner, test))
            progress(f"{sharing}, seed {seed}, {name}: {speeds[name][-1]:,.0f} examples a CPU second, loss {losses[name][-1]:.4f}")
    ratio = over_seeds([mine / other for mine, other in zip(speeds["ours"], speeds["peer"], strict=True)])
    return Row(
        ours=over_seeds(speeds["ours"]), peer=over_seeds(speeds["peer"]), ratio=ratio, our_loss=over_seeds(losses["ours"]), peer_loss=over_seeds(losses["peer"])
    )


def as_markdown(found: Measured) -> str:
    def shown(one: SeedInterval, digits: int) -> str:
        bounds = "" if one.low is None or one.high is None else f" ({one.low:,.{digits}f} to {one.high:,.{digits}f})"
        return f"{one.value:,.{digits}f}{bounds}"

    lines = [
        "# Examples trained a CPU second",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. One thread, batches of {BATCH:,}, {NUM_COLUMNS} columns of {COLUMN_SIZE:,} values, vectors of {VECTOR},",
        f"experts of {EXPERT}, towers of {TOWER}, Adam. Means over seeds with 95 % intervals.",
        "",
        "| architecture | GuideLens | torch-rechub | times as fast | loss on held-back rows, GuideLens | torch-rechub |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found.rows.items():
        lines.append(f"| {name} | {shown(row.ours, 0)} | {shown(row.peer, 0)} | {shown(row.ratio, 2)} | {shown(row.our_loss, 4)} | {shown(row.peer_loss, 4)} |")
    return "\n".join([*lines, ""])


@click.command()
@click.option("--peers", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder that holds torch_rechub.")
@click.option("--rows", default=131_072, show_default=True, type=click.IntRange(min=BATCH))
@click.option("--epochs", default=4, show_default=True, type=click.IntRange(min=1))
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(peers: Path, rows: int, epochs: int, seeds: str, out: Path) -> None:
    """Train both sides and write benchmarks/results/multi_task_speed.{json,md}."""
    if not (peers / "torch_rechub").is_dir():
        raise InputError(f"--peers must hold torch_rechub, got {peers}; pip install --no-deps --target {peers} torch-rechub")
    sys.path.append(str(peers))
    torch.set_num_threads(1)
    drawn = [int(seed) for seed in seeds.split(",")]
    found = {sharing: compare(sharing, rows, epochs, drawn) for sharing in SHARING}
    shown = f"python -m benchmarks.multi_task_speed --peers DIR --rows {rows} --epochs {epochs} --seeds {seeds}"
    measured = Measured(machine=machine(), date=today(), command=shown, rows={str(name): row for name, row in found.items()})
    keep(measured, as_markdown(measured), out, "multi_task_speed")


if __name__ == "__main__":
    run_command(command)
