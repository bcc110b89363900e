"""The experiment: image classification with a projection of the features before the last layer."""

from ._experiment import ImageClassification as ImageClassification

__all__ = ["ImageClassification"]
