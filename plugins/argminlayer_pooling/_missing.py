"""Which extra installs a package that an experiment needs."""

import contextlib
from collections.abc import Iterator

import argminlayer as al

_PACKAGES = {"matplotlib": "matplotlib", "h5py": "h5py", "trimesh": "trimesh", "sklearn": "scikit-learn"}


@contextlib.contextmanager
def explained_imports(purpose: str) -> Iterator[None]:
    """Explain what to install when an import inside the block finds no package.

    Args:
        purpose: what the package is for, the subject of the message.

    Raises:
        ExperimentError: a package of the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = _PACKAGES.get((error.name or "").partition(".")[0])
        if package is None:
            raise
        raise al.ExperimentError(
            f"{purpose} needs {package}, which is not installed: pip install 'argminlayer[pooling]'"
        ) from error
