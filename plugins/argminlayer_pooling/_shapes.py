"""Labelled point clouds without a download: surfaces of twelve kinds of solids, of random proportions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Sampler = Callable[[np.random.Generator, int], Array]


@dataclass(frozen=True)
class Clouds:
    """Labelled point clouds, each inside the unit ball and centred on its mean.

    Attributes:
        points: (clouds, points, 3), float32.
        labels: (clouds,), int64.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int64]


def generate(count: int, size: int, seed: int) -> Clouds:
    """Return ``count`` clouds of ``size`` points, the kinds in turn.

    Args:
        count: number of clouds.
        size: number of points of each.
        seed: of the random numbers; cloud i depends on it and on i alone.
    """
    clouds = []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        points = _KINDS[index % len(_KINDS)][1](rng, size)
        angle = rng.uniform(0.0, 2.0 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]])
        clouds.append(normalised(points @ turn.T + 0.01 * rng.normal(size=points.shape)))
    return Clouds(np.stack(clouds), np.arange(count, dtype=np.int64) % len(_KINDS))


def normalised(points: Array) -> NDArray[np.float32]:
    """Return a cloud (n, 3) centred on its mean and scaled into the unit ball."""
    centred = points - points.mean(axis=0)
    radius = np.sqrt((centred**2).sum(axis=1)).max()
    scaled: NDArray[np.float32] = (centred / max(radius, 1e-12)).astype(np.float32)
    return scaled


def _sphere(rng: np.random.Generator, n: int) -> Array:
    direction = rng.normal(size=(n, 3))
    unit: Array = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    return unit


def _ellipsoid(rng: np.random.Generator, n: int) -> Array:
    radii = np.array([1.0, rng.uniform(0.3, 0.5), rng.uniform(0.3, 0.5)])
    scaled: Array = _sphere(rng, n) * radii
    return scaled


def _box_of(rng: np.random.Generator, n: int, size: Array, centre: Array) -> Array:
    """Sample the surface of a box; each pair of faces in proportion to its area."""
    areas = np.array([size[1] * size[2], size[0] * size[2], size[0] * size[1]])
    axis = rng.choice(3, size=n, p=areas / areas.sum())
    unit = rng.uniform(-0.5, 0.5, size=(n, 3))
    unit[np.arange(n), axis] = rng.choice([-0.5, 0.5], size=n)
    return unit * size + centre


def _box(rng: np.random.Generator, n: int) -> Array:
    return _box_of(rng, n, rng.uniform(0.6, 1.0, size=3), np.zeros(3))


def _round_of(rng: np.random.Generator, n: int, bottom: float, top: float, height: float, base: float) -> Array:
    """Sample the side and both ends of a cone that is cut off: a cylinder if its radii agree."""
    side = np.pi * (bottom + top) * np.hypot(height, bottom - top)
    ends = np.pi * np.array([bottom**2, top**2])
    part = rng.choice(3, size=n, p=np.array([side, *ends]) / (side + ends.sum()))
    level = np.where(part == 0, rng.uniform(size=n), np.where(part == 1, 0.0, 1.0))
    radius = bottom + (top - bottom) * level
    radius = np.where(part == 0, radius, radius * np.sqrt(rng.uniform(size=n)))
    angle = rng.uniform(0.0, 2.0 * np.pi, size=n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), base + height * level], axis=1)


def _cylinder(rng: np.random.Generator, n: int) -> Array:
    radius = rng.uniform(0.3, 0.6)
    return _round_of(rng, n, radius, radius, rng.uniform(1.2, 2.0), 0.0)


def _cone(rng: np.random.Generator, n: int) -> Array:
    return _round_of(rng, n, rng.uniform(0.5, 0.9), 0.0, rng.uniform(1.0, 2.0), 0.0)


def _torus(rng: np.random.Generator, n: int) -> Array:
    tube = rng.uniform(0.15, 0.35)
    around, across = rng.uniform(0.0, 2.0 * np.pi, size=(2, n))
    reach = 1.0 + tube * np.cos(across)
    return np.stack([reach * np.cos(around), reach * np.sin(around), tube * np.sin(across)], axis=1)


def _pyramid(rng: np.random.Generator, n: int) -> Array:
    height, level = rng.uniform(1.0, 1.8), 1.0 - np.sqrt(rng.uniform(size=n))
    square = _box_of(rng, n, np.array([1.0, 1.0, 1e-6]), np.zeros(3))
    edge = rng.choice(2, size=n)
    square[np.arange(n), edge] = rng.choice([-0.5, 0.5], size=n)
    base = rng.uniform(size=n) < 0.25
    inside = rng.uniform(-0.5, 0.5, size=(n, 2))
    flat = np.where(base[:, None], inside, square[:, :2] * (1.0 - level)[:, None])
    return np.column_stack([flat, np.where(base, 0.0, height * level)])


def _helix(rng: np.random.Generator, n: int) -> Array:
    turns, along = rng.uniform(2.0, 4.0), rng.uniform(size=n)
    angle = 2.0 * np.pi * turns * along
    path = np.stack([0.6 * np.cos(angle), 0.6 * np.sin(angle), 2.0 * along - 1.0], axis=1)
    return path + 0.08 * _sphere(rng, n)


def _saddle(rng: np.random.Generator, n: int) -> Array:
    flat = rng.uniform(-1.0, 1.0, size=(n, 2))
    return np.column_stack([flat, rng.uniform(0.4, 0.8) * (flat[:, 0] ** 2 - flat[:, 1] ** 2)])


def _parts(rng: np.random.Generator, n: int, samplers: list[tuple[float, Callable[[int], Array]]]) -> Array:
    """Sample parts with the shares given."""
    shares = np.array([share for share, _ in samplers])
    counts = rng.multinomial(n, shares / shares.sum())
    return np.concatenate([sample(count) for count, (_, sample) in zip(counts, samplers, strict=True)])


def _table(rng: np.random.Generator, n: int) -> Array:
    height, leg = rng.uniform(0.7, 1.1), np.array([0.1, 0.1, 1.0])
    corners = [np.array([x, y, -0.5 * height]) for x in (-0.6, 0.6) for y in (-0.4, 0.4)]
    legs = [(0.12, lambda k, c=corner: _box_of(rng, k, leg * np.array([1.0, 1.0, height]), c)) for corner in corners]
    top = (0.5, lambda k: _box_of(rng, k, np.array([1.4, 1.0, 0.08]), np.zeros(3)))
    return _parts(rng, n, [top, *legs])


def _chair(rng: np.random.Generator, n: int) -> Array:
    tall = rng.uniform(0.6, 1.0)
    back = (0.35, lambda k: _box_of(rng, k, np.array([0.08, 0.8, tall]), np.array([-0.4, 0.0, 0.5 * tall])))
    seat = (0.35, lambda k: _box_of(rng, k, np.array([0.8, 0.8, 0.08]), np.zeros(3)))
    stem = (0.3, lambda k: _round_of(rng, k, 0.08, 0.08, 0.7, -0.7))
    return _parts(rng, n, [back, seat, stem])


def _lamp(rng: np.random.Generator, n: int) -> Array:
    shade = (0.5, lambda k: _round_of(rng, k, rng.uniform(0.5, 0.7), 0.25, 0.6, 0.8))
    stem = (0.25, lambda k: _round_of(rng, k, 0.05, 0.05, 0.8, 0.0))
    foot = (0.25, lambda k: _round_of(rng, k, 0.4, 0.4, 0.06, 0.0))
    return _parts(rng, n, [shade, stem, foot])


def _dumbbell(rng: np.random.Generator, n: int) -> Array:
    half = rng.uniform(0.7, 1.0)
    balls = [(0.4, lambda k, c=side * half: 0.4 * _sphere(rng, k) + np.array([0.0, 0.0, c])) for side in (-1.0, 1.0)]
    return _parts(rng, n, [*balls, (0.2, lambda k: _round_of(rng, k, 0.1, 0.1, 2.0 * half, -half))])


_KINDS: tuple[tuple[str, Sampler], ...] = (
    ("ellipsoid", _ellipsoid),
    ("box", _box),
    ("cylinder", _cylinder),
    ("cone", _cone),
    ("torus", _torus),
    ("pyramid", _pyramid),
    ("helix", _helix),
    ("saddle", _saddle),
    ("table", _table),
    ("chair", _chair),
    ("lamp", _lamp),
    ("dumbbell", _dumbbell),
)
CLASSES = tuple(name for name, _ in _KINDS)
