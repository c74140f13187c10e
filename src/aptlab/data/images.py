"""Images with a class: where they come from, and what is done to them for another domain. No torch.

Legend: N images, H W pixels.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aptlab.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Images(ABC):
    """Images of one size, each with a class below `classes`."""

    classes: ClassVar[int]

    @abstractmethod
    def load_images(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 [N, channels, H, W] from 0 to 1, and int64 [N]. Raises ConfigError where a package is missing."""


@dataclass(frozen=True, kw_only=True)
class Digits(Images):
    """1,797 handwritten digits of 8 x 8 pixels (Alpaydin & Kaynak 1998, UCI), which come with scikit-learn."""

    classes: ClassVar[int] = 10

    def load_images(self) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ConfigError(
                "images=Digits: scikit-learn, which brings the digits, is not installed; pip install 'aptlab[images]'"
            ) from error
        found: Any = load_digits()
        pixels = np.asarray(found.images, dtype=np.float32)[:, None] / 16
        return pixels, np.asarray(found.target, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class ImageTransform(ABC):
    """What makes another domain of the same images; `task` counts from 0, and task 0 is the images as they are."""

    @abstractmethod
    def transform_images(self, pixels: np.ndarray, *, task: int) -> np.ndarray:
        """Images of the domain `task`, in the shape and type that came."""


@dataclass(frozen=True, kw_only=True)
class PermutePixels(ImageTransform):
    """Pixels in another order in each task (Goodfellow et al. 2013, arXiv:1312.6211), by seed and task."""

    seed: int = 0

    def transform_images(self, pixels: np.ndarray, *, task: int) -> np.ndarray:
        import numpy as np

        from aptlab.data.rows.order import permute_indices

        if task == 0:
            return pixels
        count = pixels[0].size
        order = permute_indices(np.arange(count), count=count, seed=self.seed, epoch=task)
        return np.ascontiguousarray(pixels.reshape(len(pixels), count)[:, order].reshape(pixels.shape))


@dataclass(frozen=True, kw_only=True)
class RotateImages(ImageTransform):
    """Images turned by `degrees` x task, counter-clockwise, bilinearly (rotated digits, arXiv:1706.08840)."""

    degrees: float = 36.0

    def transform_images(self, pixels: np.ndarray, *, task: int) -> np.ndarray:
        import numpy as np
        from scipy.ndimage import rotate

        if task == 0:
            return pixels
        turned = rotate(pixels, self.degrees * task, axes=(3, 2), reshape=False, order=1)
        return np.clip(turned, 0, 1).astype(np.float32)


def fingerprint_images(pixels: np.ndarray, labels: np.ndarray, words: Sequence[object]) -> str:
    """64 hex digits over images, classes and what else decides the tasks."""
    digest = hashlib.sha256(repr([pixels.shape, *words]).encode())
    digest.update(pixels.tobytes())
    digest.update(labels.tobytes())
    return digest.hexdigest()
