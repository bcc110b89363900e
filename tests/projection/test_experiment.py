"""The experiment: the suite of experiments, its measures, images, radii, checkpoints, processes, bad settings."""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

import argminlayer as al
from argminlayer.testing import ExperimentConformance
from argminlayer_projection import ImageClassification
from argminlayer_projection.classification._images import load
from argminlayer_projection.classification._metrics import average_precision, measure, reliability
from argminlayer_projection.classification._resnet import ResNet18
from argminlayer_projection.classification._study import build, rule

TINY = ImageClassification(data="generated", images=60, models=("none", "l2-ball"), width=1, size=8, epochs=1, batch=24)


class TestImageClassification(ExperimentConformance):
    experiment = TINY


def run(**settings):
    return dataclasses.replace(TINY, **settings).run(al.SilentProgress())


def test_the_table_has_the_form_of_the_papers_and_the_radii_follow_its_rule():
    result = run(models=("none", "l1-sphere", "linf-ball"))
    (table,) = result.tables
    assert table.columns[2:5] == ("top-1 acc. %", "top-5 acc. %", "mAP x100")
    assert [row[0] for row in table.rows] == ["ResNet-18", "ResNet-18-L1 Sphere", "ResNet-18-L∞ Ball"]
    models = result.records["models"]
    assert models["none"]["radius"] is None
    assert models["l1-sphere"]["radius"] == result.records["radii"]["l1"]
    assert models["l1-sphere"]["affected"] == 100.0
    assert models["none"]["parameters"] == models["l1-sphere"]["parameters"]
    assert models["none"]["paper"] == {"top1": 69.80, "top5": 89.26, "mean_average_precision": 58.97}


def test_the_rule_gives_the_papers_radii_on_512_normal_features():
    features = torch.randn(400, 512, generator=torch.Generator().manual_seed(0)) * 3.0 + 1.0
    one, two, infinity = rule(features)
    assert one == pytest.approx(2 / 3 * 512 * math.sqrt(2 / math.pi), rel=0.02)
    assert two == pytest.approx(15.0, rel=0.02)
    assert 1.8 < infinity < 2.6


def test_the_network_is_resnet_18_with_as_many_parameters():
    network = ResNet18(3, 1000, 64, small=False, projection=None)
    assert sum(p.numel() for p in network.parameters()) == 11_689_512
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)


def test_features_are_on_the_sphere_after_the_projection():
    settings = dataclasses.replace(TINY, width=2)
    images = load("generated", 8, 60, 0)
    network = build(settings, images, "l2-sphere", 2.0)
    pixels = torch.stack([images.train[i][0] for i in range(8)])
    projected = network.projection(network.norm(network.features(pixels)))
    torch.testing.assert_close(projected.norm(dim=-1), torch.full((8,), 2.0))


def test_average_precision_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(60, 5, generator=generator), torch.randint(4, (60,), generator=generator)
    found = average_precision(scores.double().softmax(-1), labels)
    probability = scores.double().softmax(-1).numpy()
    expected = [average_precision_score((labels == c).numpy(), probability[:, c]) for c in range(4)]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("spread", [0.0, 1.0, 100.0])
def test_images_of_equal_probability_are_ranked_together_whatever_their_order(spread):
    labels = torch.arange(30) // 10  # sorted by class, as images of a folder are
    probability = (spread * torch.randn(30, 3, generator=torch.Generator().manual_seed(2)).round()).double().softmax(-1)
    expected = [average_precision_score((labels == c).numpy(), probability[:, c].numpy()) for c in range(3)]
    torch.testing.assert_close(average_precision(probability, labels), torch.tensor(expected, dtype=torch.float64))


def test_accuracy_and_calibration_are_what_they_say():
    scores = torch.tensor([[4.0, 0, 0, 0, 0, 0], [4.0, 1, 0, 0, 0, 0], [0, 3, 2, 1, 0.5, 0.2], [0, 1, 2, 3, 4, 5]])
    labels = torch.tensor([0, 1, 2, 0])
    found = measure(scores, labels)
    assert (found.top1, found.top5) == (25.0, 75.0)
    confidence, predicted = scores.double().softmax(-1).max(-1)
    gaps = {}
    for c, right in zip(confidence.tolist(), (predicted == labels).tolist(), strict=True):
        gaps.setdefault(int(c * 15), []).append(c - right)
    expected = 100 * sum(abs(sum(gap)) for gap in gaps.values()) / 4
    assert found.calibration_error == pytest.approx(expected)
    assert sum(reliability(scores, labels).count) == 4
    assert found.log_loss == pytest.approx(float(torch.nn.functional.cross_entropy(scores.double(), labels)))


@pytest.fixture
def folder(tmp_path):
    """Return a folder of images laid out like ImageNet, of any size and mode."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 3)):
        for name, level in (("cat", 60), ("dog", 190)):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                shape = (20 + i, 33) if i % 2 else (18, 25, 3)
                pixels = np.clip(generator.normal(level, 30, shape), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def test_folders_are_read_by_pillow(folder):
    images = load(str(folder), 16, 0, 0)
    assert (images.classes, images.channels, len(images.train), len(images.validation)) == (2, 3, 16, 6)
    pixels, label = images.train[0]
    assert pixels.shape == (3, 16, 16)
    assert label == 0
    assert torch.equal(images.validation[0][0], images.validation[0][0])
    assert not torch.equal(_epoch(images.train, 0), _epoch(images.train, 1))
    split = load(str(folder / "train"), 16, 0, 0)
    assert (len(split.train), len(split.validation)) == (12, 4)
    result = run(data=str(folder), size=16, models=("none",), batch=8)
    assert result.records["images"] == {"train": 16, "validation": 6}


def _epoch(images, epoch):
    images.epoch = epoch
    return images[0][0]


def test_training_goes_on_from_a_checkpoint(tmp_path):
    settings = {"checkpoints": tmp_path, "models": ("none",), "epochs": 3}
    whole = run(**settings, seed=5).records["models"]["none"]
    state = torch.load(tmp_path / "none.pt", weights_only=True)
    assert len(state["epochs"]) == 3
    again = run(**settings, seed=5).records["models"]["none"]
    assert again == whole
    with pytest.raises(al.ExperimentError, match=r"none\.pt was made with another seed; remove it"):
        run(**settings, seed=6)


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path):
    settings = {"models": ("none",), "epochs": 3}
    whole = run(**settings).records["models"]["none"]

    class Interrupted(al.SilentProgress):
        def log(self, message):
            if "epoch 2" in message:
                raise KeyboardInterrupt

    stopped = dataclasses.replace(TINY, **settings, checkpoints=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stopped.run(Interrupted())
    resumed = stopped.run(al.SilentProgress()).records["models"]["none"]
    assert resumed["epochs"] == whole["epochs"]


def test_two_processes_train_one_model_on_half_of_the_images_each(tmp_path):
    settings = dataclasses.replace(TINY, models=("none", "l2-ball"), images=60, batch=48)
    script = tmp_path / "run.py"
    script.write_text(
        "import dataclasses, json, os, pathlib, torch, argminlayer as al\n"
        "from argminlayer_projection import ImageClassification\n"
        f"records = {settings!r}.run(al.SilentProgress()).records\n"
        f"pathlib.Path({str(tmp_path)!r}, 'rank' + os.environ['RANK']).write_text(json.dumps(records))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}").read_text()) for rank in range(2))
    assert first == second
    images = load("generated", 8, 60, 0)
    network, order = (
        build(settings, images, "none", None),
        torch.randperm(48, generator=torch.Generator().manual_seed(0)),
    )
    halves = [
        tuple(torch.stack(t) for t in zip(*(images.train[i] for i in half), strict=True))
        for half in (order[::2], order[1::2])
    ]
    losses = [torch.nn.functional.cross_entropy(network(pixels), labels).item() for pixels, labels in halves]
    assert first["models"]["none"]["epochs"][0]["loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ()}, "no model is named; give some of none, l1-sphere"),
        ({"models": ("l2-ball",)}, "without the model none there is nothing to measure radii on"),
        ({"models": ("l2-ball", "none")}, "the model none must come first"),
        ({"models": ("none", "none")}, "a model is named twice: none, none"),
        ({"radii": (1.0, 0.0, 1.0)}, r"the radii are \(1.0, 0.0, 1.0\); they must be positive"),
        ({"epochs": 0}, "epochs is 0; give at least one"),
        ({"size": 4}, "size is 4; the network needs at least 8 pixels"),
        ({"data": "no/such/folder"}, "there is no folder 'no/such/folder'; give digits, generated"),
        ({"device": "toaster"}, "the device 'toaster' cannot be used"),
        ({"rate": 1e30, "epochs": 2}, "the training of none diverged in epoch .; lower the rate"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings, message):
    with pytest.raises(al.ExperimentError, match=message):
        run(**settings)


def test_a_folder_without_classes_and_an_unreadable_image_are_named(folder):
    with pytest.raises(al.ExperimentError, match="holds 0 folders of classes; classification needs at least two"):
        load(str(folder / "train" / "cat"), 16, 0, 0)
    broken = folder / "train" / "cat" / "broken.jpg"
    broken.write_bytes(b"no image")
    images = load(str(folder), 16, 0, 0)
    with pytest.raises(al.ExperimentError, match=r"the image .*broken\.jpg cannot be read"):
        [images.train[i] for i in range(len(images.train))]


def test_given_radii_need_no_plain_network():
    result = run(models=("linf-sphere",), radii=(250.0, 15.0, 3.0))
    assert result.records["models"]["linf-sphere"]["radius"] == 3.0


def test_digits_are_split_evenly_over_the_classes():
    images = load("digits", None, 0, 0)
    assert (images.classes, images.channels, images.size) == (10, 1, 8)
    assert (len(images.train), len(images.validation)) == (1437, 360)
    counts = torch.bincount(torch.stack([images.validation[i][1] for i in range(360)]))
    assert counts.max() - counts.min() <= 2
