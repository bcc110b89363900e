"""What is measured of a classifier: accuracy, average precision, and whether its confidence is deserved."""

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15
"""Bins of confidence of the calibration error."""


@dataclass(frozen=True)
class Metrics:
    """Measures on the validation images, in percent but the last.

    Attributes:
        top1: images whose class has the highest score.
        top5: images whose class is among the five highest.
        mean_average_precision: mean over the classes of the area under precision against recall, images ranked by the
            probability of the class.
        calibration_error: mean distance of confidence and accuracy over bins of confidence, weighted by images.
        log_loss: mean of minus the logarithm of the probability of the true class.
    """

    top1: float
    top5: float
    mean_average_precision: float
    calibration_error: float
    log_loss: float


@dataclass(frozen=True)
class Reliability:
    """Bins of confidence: how many images, how confident and how accurate on average."""

    count: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]


def measure(scores: Tensor, labels: Tensor) -> Metrics:
    """Return the measures of scores (images, classes) for labels (images,)."""
    log_probability = scores.double().log_softmax(-1)
    probability = log_probability.exp()
    ranked = scores.topk(min(5, scores.shape[1]), dim=-1).indices == labels[:, None]
    bins = reliability(scores, labels)
    gaps = (abs(c - a) * n for n, c, a in zip(bins.count, bins.confidence, bins.accuracy, strict=True))
    return Metrics(
        top1=100.0 * float(ranked[:, 0].double().mean()),
        top5=100.0 * float(ranked.any(-1).double().mean()),
        mean_average_precision=100.0 * float(average_precision(probability, labels).mean()),
        calibration_error=100.0 * sum(gaps) / len(labels),
        log_loss=-float(log_probability.gather(-1, labels[:, None]).mean()),
    )


def average_precision(probability: Tensor, labels: Tensor) -> Tensor:
    """Return the average precision of each class that occurs, from probabilities (images, classes).

    Images of equal probability are retrieved together, so that their order says nothing.
    """
    ranked, order = probability.sort(dim=0, descending=True)
    relevant = (labels[order] == torch.arange(probability.shape[1], device=labels.device)).double()
    ranks = torch.arange(len(labels), device=labels.device)[:, None].expand_as(order)
    tied = torch.nn.functional.pad(ranked[1:] == ranked[:-1], (0, 0, 0, 1))
    last = ranks.masked_fill(tied, len(labels)).flip(0).cummin(0).values.flip(0)
    precision = relevant.cumsum(0).gather(0, last) / (last + 1)
    count = relevant.sum(0)
    return (precision * relevant).sum(0)[count > 0] / count[count > 0]


def reliability(scores: Tensor, labels: Tensor) -> Reliability:
    """Return confidence and accuracy of images in bins of equal width of the confidence (Guo et al. 2017)."""
    confidence, predicted = scores.double().softmax(-1).max(-1)
    index = (confidence * BINS).long().clamp_max(BINS - 1)
    count = torch.bincount(index, minlength=BINS)
    present = count.clamp_min(1)
    right = torch.bincount(index, (predicted == labels).double(), minlength=BINS) / present
    mean = torch.bincount(index, confidence, minlength=BINS) / present
    return Reliability(tuple(count.tolist()), tuple(mean.tolist()), tuple(right.tolist()))
