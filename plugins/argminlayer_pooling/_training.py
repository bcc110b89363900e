"""Training and testing of one network: on any device, in one or several processes, from where it stopped."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import argminlayer as al

from ._clouds import DataSet
from ._pointnet import PointNet, with_outliers


@dataclass(frozen=True)
class Plan:
    """How a network is trained.

    Attributes:
        pool: ``"max"`` or a penalty.
        outliers: fraction of outliers in training.
        alpha: of the penalty.
        widths: of the network.
        epochs: passes over the training set.
        batch: clouds in a step, of all processes together.
        rate: learning rate, which falls to zero along a cosine.
        seed: of weights, order and outliers.
        device: as torch names it.
    """

    pool: str
    outliers: float
    alpha: float
    widths: tuple[int, ...]
    epochs: int
    batch: int
    rate: float
    seed: int
    device: str


@dataclass(frozen=True)
class Score:
    """What a network does on the test set: class probabilities (clouds, classes) and labels, as NumPy arrays."""

    probabilities: Any
    labels: Any

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy."""
        return float((self.probabilities.argmax(1) == self.labels).mean())

    @property
    def average_precision(self) -> float:
        """Mean over the classes of the average precision, one class against the others."""
        from sklearn.metrics import average_precision_score
        from sklearn.preprocessing import label_binarize

        classes = range(self.probabilities.shape[1])
        return float(average_precision_score(label_binarize(self.labels, classes=classes), self.probabilities))


@dataclass(frozen=True)
class Epoch:
    """What one epoch did: mean training loss, and how the network does on the test set with the same outliers."""

    loss: float
    accuracy: float
    average_precision: float


@dataclass(frozen=True)
class Trained:
    """A trained network with the plan it followed and its epochs."""

    plan: Plan
    model: nn.Module
    epochs: tuple[Epoch, ...]


def train(plan: Plan, data: DataSet, checkpoints: Path | None, progress: al.Progress) -> Trained:
    """Train a network; go on from its checkpoint, if there is one.

    Args:
        plan: how.
        data: training and test set.
        checkpoints: folder of checkpoints, None for none.
        progress: shows the epochs.

    Raises:
        ExperimentError: a checkpoint cannot be read, or was made with other settings.
    """
    device = torch.device(plan.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(plan.seed)
        model = PointNet(len(data.classes), plan.pool, plan.alpha, plan.widths).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=plan.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.epochs)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    path = None if checkpoints is None else checkpoints / f"{plan.pool}-{100 * plan.outliers:g}.pt"
    done = _resume(path, plan, data, parts)
    network: nn.Module = model
    if _world() > 1:
        network = nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    todo = range(len(done), plan.epochs)
    for epoch in progress.track(todo, f"{plan.pool}, {100 * plan.outliers:g} % outliers: epochs"):
        loss = _epoch(network, optimizer, plan, data, epoch)
        schedule.step()
        score = test(model, data, plan.outliers, plan.seed, device)
        done.append(Epoch(loss, score.accuracy, score.average_precision))
        if path is not None and _rank() == 0:
            _save(path, plan, data, parts, done)
    return Trained(plan, model, tuple(done))


def _epoch(network: nn.Module, optimizer: torch.optim.Optimizer, plan: Plan, data: DataSet, epoch: int) -> float:
    """Make one pass over the training set and return the mean loss."""
    network.train()
    generator = torch.Generator().manual_seed(hash((plan.seed, epoch)) % 2**31)
    order = torch.randperm(len(data.train.labels), generator=generator)
    total, count = 0.0, 0
    # batch normalisation cannot take a batch of one
    for batch in (part for part in order.split(plan.batch) if len(part) >= 2 * _world()):
        clouds = with_outliers(torch.from_numpy(data.train.points)[batch], plan.outliers, generator)
        own = slice(_rank(), None, _world())
        labels = torch.from_numpy(data.train.labels)[batch][own].to(plan.device)
        loss = nn.functional.cross_entropy(network(clouds[own].to(plan.device)), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total, count = total + loss.item() * len(labels), count + len(labels)
    return total / max(count, 1)


@torch.no_grad()
def test(model: nn.Module, data: DataSet, fraction: float, seed: int, device: torch.device) -> Score:
    """Return the score on the test set with a fraction of outliers, the same ones for every network."""
    model.eval()
    generator = torch.Generator().manual_seed(seed + 1_000_003)
    parts: list[Tensor] = []
    for clouds in _batches(torch.from_numpy(data.test.points)):
        logits = model(with_outliers(clouds, fraction, generator).to(device))
        parts.append(logits.softmax(-1).cpu())
    return Score(torch.cat(parts).double().numpy(), data.test.labels)


def _batches(points: Tensor, size: int = 64) -> Iterator[Tensor]:
    yield from points.split(size)


def _resume(path: Path | None, plan: Plan, data: DataSet, parts: dict[str, Any]) -> list[Epoch]:
    """Load a checkpoint into the parts and return its epochs; none without a checkpoint."""
    if path is None or not path.exists():
        return []
    try:
        saved = torch.load(path, map_location=plan.device, weights_only=True)
        made = saved["plan"]
        epochs = [Epoch(*epoch) for epoch in saved["epochs"]]
    except Exception as error:  # a damaged pickle may break torch anywhere
        raise al.ExperimentError(
            f"the checkpoint {path} cannot be read: {error}; remove it to train this network again"
        ) from error
    if made != _described(plan, data):
        raise al.ExperimentError(
            f"the checkpoint {path} was made with other settings or data; choose another folder of checkpoints, or "
            "remove it"
        )
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return epochs


def _save(path: Path, plan: Plan, data: DataSet, parts: dict[str, Any], epochs: list[Epoch]) -> None:
    """Write a checkpoint, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state = {name: part.state_dict() for name, part in parts.items()}
    records = [(e.loss, e.accuracy, e.average_precision) for e in epochs]
    torch.save({"plan": _described(plan, data), "epochs": records, **state}, partial)
    os.replace(partial, path)


def _described(plan: Plan, data: DataSet) -> str:
    return f"{plan} on {data.name}, {data.train.points.shape} and {data.test.points.shape}"


def _rank() -> int:
    return torch.distributed.get_rank() if _distributed() else 0


def _world() -> int:
    return torch.distributed.get_world_size() if _distributed() else 1


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
