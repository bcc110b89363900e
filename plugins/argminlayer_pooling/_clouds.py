"""Data sets of labelled point clouds: built in, or ModelNet40 (HDF5 files or OFF meshes, in a folder or a ZIP)."""

import functools
import io
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

import argminlayer as al

from ._missing import explained_imports
from ._shapes import CLASSES, Clouds, generate, normalised

Files = dict[str, Callable[[], bytes]]
"""Paths below the root of a folder or an archive, and how to read the file."""


@dataclass(frozen=True)
class DataSet:
    """Point clouds for training and for testing, and the names of their classes."""

    name: str
    train: Clouds
    test: Clouds
    classes: tuple[str, ...]


def built_in(train: int, test: int, points: int, seed: int) -> DataSet:
    """Return generated shapes."""
    return DataSet("shapes", generate(train, points, 2 * seed), generate(test, points, 2 * seed + 1), CLASSES)


def load(path: Path, points: int, seed: int) -> DataSet:
    """Return ModelNet40, or any data set of its form.

    Args:
        path: a folder or a ZIP archive. Either HDF5 files ``...train*.h5`` and ``...test*.h5`` with ``data`` (clouds,
            points, 3) and ``label``, and the names of the classes in ``shape_names.txt``; or OFF meshes in
            ``CLASS/train/`` and ``CLASS/test/``, from whose surfaces points are sampled.
        points: points of a cloud.
        seed: of the sampling.

    Raises:
        ExperimentError: there is no such path, nothing in it, or a file that cannot be read; the message names it.
    """
    files = _listed(path)
    tables = sorted(name for name in files if name.endswith((".h5", ".hdf5")))
    meshes = sorted(name for name in files if name.lower().endswith(".off"))
    if tables:
        return _from_tables(path, files, tables, points)
    if meshes:
        return _from_meshes(path, files, meshes, points, seed)
    raise al.ExperimentError(
        f"{path} holds neither HDF5 files (.h5) nor OFF meshes (.off); give the folder or the ZIP archive of "
        "ModelNet40, modelnet40_ply_hdf5_2048 or ModelNet40 itself"
    )


def _listed(path: Path) -> Files:
    if path.is_dir():
        return {str(p.relative_to(path).as_posix()): p.read_bytes for p in path.rglob("*") if p.is_file()}
    if not path.exists():
        raise al.ExperimentError(f"there is no data at {path}; leave --data out to use the built-in shapes")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise al.ExperimentError(f"{path} is neither a folder nor a ZIP archive: {error}") from error
    names = (name for name in archive.namelist() if not name.endswith("/"))
    return {name: functools.partial(archive.read, name) for name in names}


def _read(path: Path, files: Files, name: str) -> bytes:
    try:
        return files[name]()
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        raise al.ExperimentError(f"{name} in {path} cannot be read: {error}") from error


def _from_tables(path: Path, files: Files, tables: list[str], points: int) -> DataSet:
    parts = {
        part: [_table(path, files, name, points) for name in tables if part in PurePosixPath(name).name]
        for part in ("train", "test")
    }
    for part, found in parts.items():
        if not found:
            raise al.ExperimentError(f"{path} has no HDF5 file with {part!r} in its name; it has {', '.join(tables)}")
    train, test = (_joined(found) for found in parts.values())
    count = int(max(train.labels.max(), test.labels.max())) + 1
    listing = next((name for name in files if PurePosixPath(name).name == "shape_names.txt"), None)
    names = _read(path, files, listing).decode().split() if listing else [str(k) for k in range(count)]
    if len(names) < count:
        raise al.ExperimentError(f"{listing} in {path} names {len(names)} classes, but there are labels up to {count}")
    return DataSet(path.stem, train, test, tuple(names))


def _table(path: Path, files: Files, name: str, points: int) -> Clouds:
    with explained_imports("reading HDF5 files"):
        import h5py
    content = _read(path, files, name)
    try:
        with h5py.File(io.BytesIO(content), "r") as table:
            data, labels = np.asarray(table["data"], dtype=np.float64), np.asarray(table["label"]).reshape(-1)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise al.ExperimentError(f"{name} in {path} is corrupt, or no HDF5 file of point clouds: {error}") from error
    if data.ndim != 3 or data.shape[2] != 3 or len(data) != len(labels) or not np.isfinite(data).all():
        raise al.ExperimentError(
            f"{name} in {path} holds data of shape {data.shape} and {len(labels)} labels; finite clouds of shape "
            "(clouds, points, 3) with one label each are needed"
        )
    if data.shape[1] < points:
        raise al.ExperimentError(f"the clouds in {name} have {data.shape[1]} points, fewer than points = {points}")
    return Clouds(np.stack([normalised(cloud[:points]) for cloud in data]), labels.astype(np.int64))


def _from_meshes(path: Path, files: Files, meshes: list[str], points: int, seed: int) -> DataSet:
    pattern = re.compile(r"([^/]+)/(train|test)/[^/]+$")
    found = [(name, match[1], match[2]) for name in meshes if (match := pattern.search(name))]
    if not found:
        raise al.ExperimentError(f"the OFF meshes in {path} are not in folders CLASS/train and CLASS/test")
    classes = tuple(sorted({label for _, label, _ in found}))
    parts = []
    for part in ("train", "test"):
        some = [(name, classes.index(label)) for name, label, where in found if where == part]
        if not some:
            raise al.ExperimentError(f"{path} has no OFF mesh in a folder {part!r}")
        clouds = [_sampled(path, files, name, points, (seed, index)) for index, (name, _) in enumerate(some)]
        parts.append(Clouds(np.stack(clouds), np.array([label for _, label in some], dtype=np.int64)))
    return DataSet(path.stem, parts[0], parts[1], classes)


def _sampled(path: Path, files: Files, name: str, points: int, seed: tuple[int, int]) -> np.ndarray:
    with explained_imports("reading OFF meshes"):
        import trimesh
    content = _read(path, files, name)
    # some files of ModelNet40 have the counts on the line of the keyword
    content = re.sub(rb"\AOFF(?=[0-9])", b"OFF\n", content)
    try:
        mesh = trimesh.load_mesh(io.BytesIO(content), file_type="off", process=False)
        area = mesh.area_faces
        rng = np.random.default_rng(seed)
        face = rng.choice(len(area), size=points, p=area / area.sum())
        weights = rng.dirichlet((1.0, 1.0, 1.0), size=points)
        sample = (mesh.triangles[face] * weights[:, :, None]).sum(axis=1)
    except Exception as error:  # a damaged mesh may break trimesh anywhere
        raise al.ExperimentError(f"{name} in {path} is corrupt, or no OFF mesh with a surface: {error}") from error
    return normalised(sample)


def _joined(clouds: Iterable[Clouds]) -> Clouds:
    parts = list(clouds)
    if len({part.points.shape[1] for part in parts}) > 1:
        raise al.ExperimentError("the HDF5 files have clouds of different sizes")
    return Clouds(np.concatenate([p.points for p in parts]), np.concatenate([p.labels for p in parts]))
