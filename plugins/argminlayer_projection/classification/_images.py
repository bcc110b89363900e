"""The images: digits that ship with scikit-learn, generated gratings, and folders read by Pillow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

import argminlayer as al

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
HELD_OUT = 5
"""One image of this many is held out where there is no validation set."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours of ImageNet."""


@dataclass(frozen=True)
class Images:
    """Images to train on and to validate with: data sets of pairs of an image (channels, size, size) and its class."""

    train: Dataset[Any]
    validation: Dataset[Any]
    classes: int
    channels: int
    size: int


def load(data: str, size: int | None, count: int, seed: int) -> Images:
    """Return the images that ``data`` names.

    Raises:
        ExperimentError: no such folder, no images in it, or a package is missing.
    """
    if data == "digits":
        return _split(*_digits(size or 8), seed)
    if data == "generated":
        return _split(*_gratings(size or 16, count, seed), seed)
    folder = Path(data)
    if not folder.is_dir():
        raise al.ExperimentError(f"there is no folder {data!r}; give digits, generated, or the folder of the images")
    return _folder(folder, size or 224, seed)


def _split(images: Tensor, labels: Tensor, seed: int) -> Images:
    """Hold out the same share of every class."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]
    held = torch.arange(len(labels)) % HELD_OUT == 0
    train, validation = order[~held], order[held]
    mean, deviation = images[train].mean(), images[train].std()
    images = (images - mean) / deviation
    return Images(
        train=TensorDataset(images[train], labels[train]),
        validation=TensorDataset(images[validation], labels[validation]),
        classes=int(labels.max()) + 1,
        channels=images.shape[1],
        size=images.shape[-1],
    )


def _digits(size: int) -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise _missing("the digits", "scikit-learn") from error
    images, labels = load_digits(return_X_y=True)
    pixels = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16.0
    if size != 8:
        pixels = torch.nn.functional.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
    return pixels, torch.as_tensor(labels, dtype=torch.int64)


def _gratings(size: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return noisy gratings in colour of 20 classes, five directions and four widths, of any phase."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 20
    angle = (labels % 5) * (torch.pi / 5) + 0.15 * torch.randn(count, generator=generator)
    period = 3.0 * 1.5 ** (labels // 5) * (1.0 + 0.1 * torch.randn(count, generator=generator))
    phase = 2.0 * torch.pi * torch.rand(count, generator=generator)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    along = row * angle.cos()[:, None, None] + column * angle.sin()[:, None, None]
    grating = torch.sin(2.0 * torch.pi * along / period[:, None, None] + phase[:, None, None])
    colour = torch.randn(count, 3, 1, 1, generator=generator)
    noise = torch.randn(count, 3, size, size, generator=generator)
    return colour * grating[:, None] + 0.7 * noise, labels


def _folder(folder: Path, size: int, seed: int) -> Images:
    names = [name for name in ("val", "validation", "test") if (folder / name).is_dir()]
    if (folder / "train").is_dir() and names:
        classes = _class_folders(folder / "train")
        train = _files(folder / "train", classes)
        validation = _files(folder / names[0], classes)
    else:
        classes = _class_folders(folder)
        files = _files(folder, classes)
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
        shuffled = sorted((files[i] for i in order), key=lambda file: file[1])
        train = [file for i, file in enumerate(shuffled) if i % HELD_OUT]
        validation = shuffled[::HELD_OUT]
    for what, files in (("to train on", train), ("to validate with", validation)):
        if not files:
            raise al.ExperimentError(f"the folder {folder} holds no images {what}; they belong in a folder per class")
    return Images(FolderImages(train, size, seed), FolderImages(validation, size, None), len(classes), 3, size)


def _class_folders(folder: Path) -> list[str]:
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if len(classes) < 2:
        raise al.ExperimentError(
            f"the folder {folder} holds {len(classes)} folders of classes; classification needs at least two"
        )
    return classes


def _files(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    return [
        (path, index)
        for index, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]


class FolderImages(Dataset[Any]):
    """Images of files, cut to squares: at random and mirrored for training, from the centre otherwise.

    Args:
        files: paths and classes.
        size: side of the squares.
        seed: of the random cuts, which also depend on image and epoch; None for the centre.
    """

    def __init__(self, files: Sequence[tuple[Path, int]], size: int, seed: int | None):
        self.files, self.size, self.seed, self.epoch = list(files), size, seed, 0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image (3, size, size) and its class.

        Raises:
            ExperimentError: the file cannot be read, or Pillow is missing.
        """
        path, label = self.files[index]
        try:
            from PIL import Image, UnidentifiedImageError
        except ModuleNotFoundError as error:
            raise _missing("reading images", "pillow") from error
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise al.ExperimentError(f"the image {path} cannot be read: {error}") from error
        if self.seed is None:
            return _tensor(_centre(image, self.size)), label
        generator = np.random.default_rng((self.seed, self.epoch, index))
        return _tensor(_random_cut(image, self.size, generator.uniform)), label


def _centre(image: "Image", size: int) -> "Image":
    """Return the square in the middle after the shorter side is scaled to 8/7 of the size, 256 for 224."""
    scale = size * 8 / 7 / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height)).crop((left, top, left + size, top + size))


def _random_cut(image: "Image", size: int, uniform: Callable[..., float]) -> "Image":
    """Return a part of 8 to 100 percent of the area, of a ratio of sides from 3/4 to 4/3, perhaps mirrored."""
    from PIL import Image

    area, ratio = image.width * image.height * uniform(0.08, 1.0), np.exp(uniform(np.log(0.75), np.log(4 / 3)))
    width = min(image.width, max(1, round(float(np.sqrt(area * ratio)))))
    height = min(image.height, max(1, round(float(np.sqrt(area / ratio)))))
    left, top = round(uniform(0, image.width - width)), round(uniform(0, image.height - height))
    part = image.resize((size, size), box=(left, top, left + width, top + height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if uniform() < 0.5 else part


def _tensor(image: "Image") -> Tensor:
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0)
    return ((pixels - torch.tensor(MEAN)) / torch.tensor(DEVIATION)).permute(2, 0, 1).contiguous()


def _missing(purpose: str, package: str) -> al.ExperimentError:
    return al.ExperimentError(
        f"{purpose} needs {package}, which is not installed: pip install 'argminlayer[projection]'"
    )
