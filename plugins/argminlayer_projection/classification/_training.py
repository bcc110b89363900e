"""Training with checkpoints, on any device, by one process or several."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import argminlayer as al

from ._experiment import ImageClassification
from ._images import FolderImages, Images
from ._metrics import Metrics, measure
from ._resnet import ResNet18

NOT_FOR_TRAINING = {"models", "checkpoints", "workers", "device"}
"""Settings that may change between a checkpoint and going on from it."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: the mean loss on the training images, and the measures on the validation images."""

    loss: float
    metrics: Metrics


@contextlib.contextmanager
def processes(device: str) -> Iterator[torch.device]:
    """Yield the device of this process, and join the others that ``torchrun`` has started, if any.

    Raises:
        ExperimentError: there is no such device.
    """
    count, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    found = _device(device, local)
    if count == 1 or dist.is_initialized():
        yield found
        return
    dist.init_process_group("nccl" if found.type == "cuda" else "gloo")
    try:
        yield found
    finally:
        dist.destroy_process_group()


def _device(name: str, local: int) -> torch.device:
    if name == "auto":
        return torch.device(f"cuda:{local}" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise al.ExperimentError(f"the device {name!r} cannot be used: {error}; give cpu, or auto") from error
    return device


class Trainer:
    """Trains one model by stochastic gradient descent, and applies it.

    Args:
        settings: of the experiment.
        images: to train on and to validate with.
        device: where to.
        name: of the model, and of its checkpoint.
        progress: is told how far it is.
    """

    def __init__(
        self, settings: ImageClassification, images: Images, device: torch.device, name: str, progress: al.Progress
    ):
        self.settings, self.images, self.device, self.name, self.progress = settings, images, device, name, progress
        joined = dist.is_available() and dist.is_initialized()
        self.rank, self.count = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)

    def train(self, network: ResNet18) -> tuple[ResNet18, tuple[Epoch, ...]]:
        """Return the trained network, and what every epoch came to."""
        s = self.settings
        network = network.to(self.device)
        optimizer = torch.optim.SGD(network.parameters(), s.rate, s.momentum, weight_decay=s.decay)
        epochs = self._restore(network, optimizer)
        model = self._joined(network)
        rest = range(len(epochs), s.epochs)
        for epoch in self.progress.track(rest, f"{self.name}: epochs"):
            for group in optimizer.param_groups:
                group["lr"] = s.rate * 0.1 ** (3 * epoch // s.epochs)
            loss = self._pass(model, optimizer, epoch)
            epochs.append(Epoch(loss, measure(*self.apply(network, network, self.images.validation))))
            self.progress.log(f"{self.name}, epoch {epoch + 1}: loss {loss:.4f}, top-1 {epochs[-1].metrics.top1:.2f} %")
            self._save(network, optimizer, epochs)
        return network, tuple(epochs)

    def apply(
        self, network: ResNet18, function: Callable[[Tensor], Tensor], images: Dataset[Any]
    ) -> tuple[Tensor, Tensor]:
        """Return what a function of the network gives for all images, as when it is not trained, and their classes."""
        outputs, labels = [], []
        network.eval()
        with torch.no_grad():
            for batch, label in self._loader(images, None):
                outputs.append(function(batch.to(self.device)).cpu())
                labels.append(label)
        network.train()
        return torch.cat(outputs), torch.cat(labels)

    def _joined(self, network: ResNet18) -> nn.Module:
        """Return the network as one of several processes trains it."""
        if self.count == 1:
            return network
        if self.device.type == "cuda":
            synchronous = nn.SyncBatchNorm.convert_sync_batchnorm(network)
            return nn.parallel.DistributedDataParallel(synchronous, [self.device])
        return nn.parallel.DistributedDataParallel(network)

    def _pass(self, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> float:
        """Train for one epoch, and return the mean loss."""
        total = torch.zeros((), dtype=torch.float64)
        loader = self._loader(self.images.train, epoch)
        model.train()
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images.to(self.device)), labels.to(self.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach().double().cpu()
        if self.count > 1:
            dist.all_reduce(total)
            for statistic in model.buffers():  # on a processor each batch norm has seen the images of its process only
                dist.broadcast(statistic, 0)
        mean = float(total) / (len(loader) * self.count)
        if mean != mean:
            raise al.ExperimentError(f"the training of {self.name} diverged in epoch {epoch + 1}; lower the rate")
        return mean

    def _loader(self, images: Dataset[Any], epoch: int | None) -> DataLoader[Any]:
        """Return the batches of this process: shuffled and without a last odd one for training, else all in order."""
        s, size = self.settings, len(images)  # type: ignore[arg-type]
        if epoch is None:
            return DataLoader(images, s.batch, num_workers=s.workers, generator=torch.Generator())
        if isinstance(images, FolderImages):
            images.epoch = epoch
        share = max(2, s.batch // self.count)
        order = torch.randperm(size, generator=torch.Generator().manual_seed(1000 * s.seed + epoch))
        order = order[: size // self.count * self.count][self.rank :: self.count]
        if len(order) > share:
            order = order[: len(order) // share * share]
        # with a generator of its own it leaves torch's random numbers alone
        return DataLoader(images, share, sampler=order.tolist(), num_workers=s.workers, generator=torch.Generator())

    # Checkpoints.

    def _path(self) -> Path | None:
        folder = self.settings.checkpoints
        return None if folder is None else folder / f"{self.name}.pt"

    def _identity(self) -> dict[str, Any]:
        """Return what a checkpoint must agree with."""
        fields = {f.name: getattr(self.settings, f.name) for f in dataclasses.fields(self.settings)}
        return {key: value for key, value in fields.items() if key not in NOT_FOR_TRAINING}

    def _save(self, network: ResNet18, optimizer: torch.optim.Optimizer, epochs: list[Epoch]) -> None:
        path = self._path()
        if path is None or self.rank:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "settings": self._identity(),
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epochs": [dataclasses.asdict(epoch) for epoch in epochs],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def _restore(self, network: ResNet18, optimizer: torch.optim.Optimizer) -> list[Epoch]:
        """Load the checkpoint, if there is one, and return the epochs that are done.

        Raises:
            ExperimentError: the checkpoint belongs to other settings.
        """
        path = self._path()
        if path is None or not path.exists():
            return []
        state = torch.load(path, map_location=self.device, weights_only=True)
        differing = [key for key, value in self._identity().items() if state["settings"].get(key) != value]
        if differing:
            raise al.ExperimentError(
                f"the checkpoint {path} was made with another {', '.join(differing)}; remove it, or give another folder"
            )
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        return [Epoch(epoch["loss"], Metrics(**epoch["metrics"])) for epoch in state["epochs"]]
