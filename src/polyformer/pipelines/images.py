"""Pictures to what an image encoder takes: small, square, normalised."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SIDE, CROP = 256, 224  # pixels: of the shorter side, and of the square cut out of the middle


def read_image(image: Any, name: str) -> Any:
    """A picture, in RGB and the right way up, as Pillow has it.

    Args:
        image: a picture of Pillow; the path of a file; or an array, (height, width) or (height, width, 3 or 4) uint8.
        name: what messages call it.

    Raises:
        ImportError: Pillow is not installed. TypeError: none of these. ValueError: an array of another shape or type, a
            file that is missing, damaged or no picture.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("pictures need Pillow: install it with `pip install polyformer[image]`.") from error
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        try:
            with Image.open(path) as opened:
                return ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged, or no picture"
            raise ValueError(f"{name}, {path}, cannot be read: {why}.") from None
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
            raise ValueError(
                f"{name} is an array {image.shape} of {image.dtype}: give (height, width) or (height, width, 3 or 4) "
                f"of uint8, 0 to 255."
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"{name} is a {type(image).__name__}: give a picture of Pillow, a path, or an array of uint8.")
    return ImageOps.exif_transpose(image).convert("RGB")


def as_input(picture: Any, mean: list[float], std: list[float]) -> Tensor:
    """An RGB picture of Pillow to (3, 224, 224) float32: resized so that the shorter side has 256 pixels, the middle
    cut out, each colour in [0, 1] less its mean over its deviation (facebookresearch/mmbt)."""
    from PIL import Image

    width, height = picture.size
    short = min(width, height)
    width, height = SIDE * width // short, SIDE * height // short
    left, top = round((width - CROP) / 2), round((height - CROP) / 2)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + CROP, top + CROP))
    pixels = torch.from_numpy(np.asarray(picture, np.float32) / 255)
    # (height, width, 3) -> (3, height, width)
    return ((pixels - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1).contiguous()
