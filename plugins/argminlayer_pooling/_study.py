"""What the experiment ``pooling`` does: train every network, test it with every fraction of outliers."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

import argminlayer as al

from ._classification import PointClouds, processes
from ._clouds import DataSet, built_in, load
from ._training import Epoch, Plan, Score, test, train


@dataclass(frozen=True)
class Outcome:
    """One network: its plan, its epochs, its scores by fraction of outliers in the test set."""

    plan: Plan
    epochs: tuple[Epoch, ...]
    scores: dict[float, Score]


@dataclass(frozen=True)
class Study:
    """All networks, and the data they were trained on."""

    data: DataSet
    outcomes: tuple[Outcome, ...]

    def outcome(self, pool: str, training: float) -> Outcome:
        """Return the network with a pooling, trained with a fraction of outliers."""
        return next(o for o in self.outcomes if (o.plan.pool, o.plan.outliers) == (pool, training))


def study(settings: PointClouds, progress: al.Progress) -> Study:
    """Run everything.

    Raises:
        ExperimentError: the device, the data or a checkpoint cannot be used.
    """
    try:
        torch.empty(1, device=settings.device)
    except (RuntimeError, AssertionError) as error:
        raise al.ExperimentError(f"the device {settings.device!r} cannot be used: {error}") from error
    if settings.data is None:
        data = built_in(settings.train_size, settings.test_size, settings.points, settings.seed)
    else:
        data = load(settings.data, settings.points, settings.seed)
    plans = [_plan(settings, pool, fraction) for fraction in settings.training for pool in settings.pools]
    with _together(settings.device):
        done = (_outcome(settings, plan, data, progress) for plan in progress.track(plans, "networks"))
        return Study(data, tuple(done))


def _plan(settings: PointClouds, pool: str, fraction: float) -> Plan:
    return Plan(
        pool=pool,
        outliers=fraction,
        alpha=settings.alpha,
        widths=settings.widths,
        epochs=settings.epochs,
        batch=settings.batch,
        rate=settings.rate,
        seed=settings.seed,
        device=settings.device,
    )


def _outcome(settings: PointClouds, plan: Plan, data: DataSet, progress: al.Progress) -> Outcome:
    trained = train(plan, data, settings.checkpoints, progress)
    device = torch.device(settings.device)
    # without outliers in training the whole range is tested, with them the same fraction
    fractions = settings.testing if plan.outliers == 0.0 else (plan.outliers,)
    scores = {fraction: test(trained.model, data, fraction, settings.seed, device) for fraction in fractions}
    return Outcome(plan, trained.epochs, scores)


@contextlib.contextmanager
def _together(device: str) -> Iterator[None]:
    """Join the processes that torchrun started, if it did."""
    if processes() == 1:
        yield
        return
    torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
