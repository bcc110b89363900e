"""The experiments of pooling: point clouds, their data, checkpoints, and what pooling consumes."""

import io
import subprocess
import sys
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
import trimesh

import argminlayer as al
from argminlayer.testing import ExperimentConformance
from argminlayer_pooling import Consumption, PointClouds
from argminlayer_pooling._clouds import load
from argminlayer_pooling._pointnet import with_outliers
from argminlayer_pooling._shapes import CLASSES, generate

TINY = PointClouds(
    pools=("max", "huber", "truncated-quadratic"),
    training=(0.0, 0.5),
    testing=(0.0, 0.3),
    train_size=24,
    test_size=12,
    points=16,
    widths=(8, 8),
    epochs=1,
    batch=8,
)


class TestPointClouds(ExperimentConformance):
    experiment = TINY


class TestConsumption(ExperimentConformance):
    experiment = Consumption(sizes=(3, 5), channels=4, repeats=1)
    times = frozenset({"seconds", "memory"})


class TestConsumptionOfVectors(ExperimentConformance):
    experiment = Consumption(kind="vectors", sizes=(3,), channels=4, repeats=1)
    times = frozenset({"seconds", "memory"})


def test_robust_pooling_is_far_above_max_pooling_where_outliers_come_as_a_surprise():
    settings = replace(
        TINY,
        pools=("max", "huber"),
        training=(0.0,),
        train_size=240,
        test_size=96,
        points=64,
        widths=(32, 64),
        epochs=4,
    )
    networks = settings.run(al.SilentProgress()).records["networks"]
    surprised = {network["pool"]: network["tests"][1]["accuracy"] for network in networks}
    assert surprised["huber"] > surprised["max"] + 0.2


def test_tables_have_the_form_of_the_paper_s():
    result = TINY.run(al.SilentProgress())
    clean, same = result.tables
    assert clean.columns == ("outliers %", *(f"{p} acc %" for p in ("max", "H", "TQ")), "max mAP", "H mAP", "TQ mAP")
    assert [row[0] for row in clean.rows] == ["0", "30"]
    assert [row[0] for row in same.rows] == ["0", "50"]
    assert set(result.figures) == {"training", "outliers", "confusion"}


def test_a_run_goes_on_from_its_checkpoints(tmp_path, monkeypatch):
    settings = replace(TINY, pools=("huber",), training=(0.0,), epochs=2)
    whole = settings.run(al.SilentProgress()).records
    stopped = replace(settings, checkpoints=tmp_path)

    class Stop(Exception):
        pass

    class StopsAfterOneEpoch(al.SilentProgress):
        def track(self, iterable, description, total=None):
            for count, item in enumerate(iterable):
                if "epochs" in description and count == 1:
                    raise Stop
                yield item

    with pytest.raises(Stop):
        stopped.run(StopsAfterOneEpoch())
    assert [path.name for path in tmp_path.iterdir()] == ["huber-0.pt"]
    assert stopped.run(al.SilentProgress()).records == whole
    with pytest.raises(al.ExperimentError, match=r"huber-0\.pt was made with other settings or data"):
        replace(stopped, rate=1e-4).run(al.SilentProgress())
    (tmp_path / "huber-0.pt").write_bytes(b"broken")
    with pytest.raises(al.ExperimentError, match=r"checkpoint .*huber-0\.pt cannot be read.*remove it"):
        stopped.run(al.SilentProgress())


def test_two_processes_train_the_same_network(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import os, pathlib, argminlayer as al\nfrom argminlayer_pooling import PointClouds\n"
        "r = PointClouds(pools=('huber',), training=(0.0,), testing=(0.0,), train_size=24, test_size=12, points=8,\n"
        "    widths=(8,), epochs=1, batch=8).run(al.SilentProgress())\n"
        "accuracy = r.records['networks'][0]['tests'][0]['accuracy']\n"
        f"pathlib.Path({str(tmp_path)!r}, 'rank' + os.environ['RANK']).write_text(str(accuracy))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"rank{rank}").read_text() for rank in range(2))
    assert first == second


def test_shapes_are_labelled_seeded_and_inside_the_unit_ball():
    clouds = generate(3 * len(CLASSES), 50, seed=1)
    assert clouds.points.shape == (3 * len(CLASSES), 50, 3)
    assert len(CLASSES) >= 10
    assert np.linalg.norm(clouds.points, axis=2).max() <= 1.0 + 1e-6
    assert np.array_equal(clouds.points, generate(len(clouds.labels), 50, seed=1).points)
    assert not np.array_equal(clouds.points, generate(len(clouds.labels), 50, seed=2).points)


def test_outliers_replace_points_and_fill_the_ball():
    clouds = torch.zeros(5, 200, 3)
    found = with_outliers(clouds, 0.25, torch.Generator().manual_seed(0))
    distance = found.norm(dim=-1)
    assert ((distance > 0).sum(1) == 50).all()
    assert distance.max() <= 1.0
    assert 0.4 < (distance[distance > 0] < 0.5 ** (1 / 3)).double().mean() < 0.6


def table(clouds=6, points=20, labels=None):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["data"] = np.random.default_rng(0).normal(size=(clouds, points, 3))
        file["label"] = np.arange(clouds)[:, None] % 3 if labels is None else labels
    return content.getvalue()


def mesh():
    return trimesh.creation.box().export(file_type="off").encode()


def archive(path, files):
    with zipfile.ZipFile(path, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


def test_modelnet_is_read_from_hdf5_and_from_off(tmp_path):
    names = b"airplane\nbathtub\nbed\n"
    tables = {"m/ply_data_train0.h5": table(), "m/ply_data_test0.h5": table(3), "m/shape_names.txt": names}
    data = load(archive(tmp_path / "tables.zip", tables), points=10, seed=0)
    assert data.classes == ("airplane", "bathtub", "bed")
    assert data.train.points.shape == (6, 10, 3)
    assert data.test.labels.tolist() == [0, 1, 2]
    glued = mesh().replace(b"OFF\n", b"OFF", 1)
    for name in ("chair", "desk"):
        for part, content in (("train", mesh()), ("test", glued)):
            folder = tmp_path / "meshes" / name / part
            folder.mkdir(parents=True)
            (folder / "a.off").write_bytes(content)
    data = load(tmp_path / "meshes", points=30, seed=0)
    assert data.classes == ("chair", "desk")
    assert data.test.points.shape == (2, 30, 3)
    # the surface of a cube, scaled so that no corner is further out than one
    assert 0.5 < np.abs(data.test.points).max(axis=2).mean() <= 1.0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": b""}, "holds neither HDF5 files"),
        ({"train.h5": b"no", "test.h5": table()}, r"train\.h5 in .* is corrupt, or no HDF5 file"),
        ({"train.h5": table()}, "no HDF5 file with 'test' in its name"),
        (
            {"train.h5": table(points=3), "test.h5": table()},
            r"clouds in train\.h5 have 3 points, fewer than points = 5",
        ),
        ({"train.h5": table(labels=np.zeros(2)), "test.h5": table()}, r"train\.h5 in .* and 2 labels"),
        ({"bed/train/a.off": b"OFF\n1 1", "bed/test/a.off": mesh()}, r"bed/train/a\.off in .* is corrupt"),
        ({"a.off": mesh()}, "not in folders CLASS/train and CLASS/test"),
        ({"bed/train/a.off": mesh()}, "no OFF mesh in a folder 'test'"),
    ],
)
def test_data_that_cannot_be_used_is_named(tmp_path, files, message):
    with pytest.raises(al.ExperimentError, match=message):
        load(archive(tmp_path / "data.zip", files), points=5, seed=0)


def test_paths_that_are_no_data_are_named(tmp_path):
    with pytest.raises(al.ExperimentError, match=r"there is no data at .*leave --data out"):
        load(tmp_path / "absent", 5, 0)
    (tmp_path / "file.zip").write_bytes(b"no archive")
    with pytest.raises(al.ExperimentError, match=r"file\.zip is neither a folder nor a ZIP archive"):
        load(tmp_path / "file.zip", 5, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pools": ()}, "no pooling is named"),
        ({"pools": ("hubr",)}, "unknown penalty 'hubr'"),
        ({"testing": (1.0,)}, "fractions of outliers are at least 0 and below 1"),
        ({"alpha": 0.0}, "alpha is 0; it must be positive"),
        ({"test_size": 3}, "at least 12 clouds are needed"),
        ({"points": 1}, "points is 1"),
        ({"widths": ()}, r"widths is \(\)"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch": 1}, "batch normalisation needs at least 2"),
        ({"rate": 0.0}, "a learning rate must be positive"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, message):
    with pytest.raises((al.ExperimentError, al.ProblemError), match=message):
        replace(TINY, **settings).run(al.SilentProgress())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalties": ()}, "no penalty is named"),
        ({"penalties": ("max",)}, "unknown penalty 'max'"),
        ({"sizes": (0,)}, r"sizes is \(0,\)"),
        ({"channels": 0}, "channels is 0"),
        ({"alpha": -1.0}, "alpha is -1"),
        ({"repeats": 0}, "repeats is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
    ],
)
def test_consumption_refuses_settings_that_cannot_be_used(settings, message):
    with pytest.raises((al.ExperimentError, al.ProblemError), match=message):
        replace(TestConsumption.experiment, **settings).run(al.SilentProgress())
