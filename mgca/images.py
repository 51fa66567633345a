"""Photographs in, whatever their format; normalised tensors out."""

import io
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

ImageSource = str | os.PathLike | bytes | Image.Image | np.ndarray | Tensor


class ImageError(ValueError):
    """A picture that cannot be read; the message says which and why."""


def open_image(source: ImageSource) -> Image.Image:
    """Any picture as upright 8-bit RGB.

    Args:
        source: A path, the bytes of a file, a PIL image, an (H, W), (H, W, 3) or (H, W, 4) array
            of uint8, or a (3, H, W) tensor, uint8 or in [0, 1].

    EXIF rotation is applied, transparency is laid on white, 16-bit greys are scaled to 8 bits.

    Raises:
        FileNotFoundError: If a path does not exist.
        ImageError: If it is not a picture, is truncated, or is larger than Pillow's safe limit.
    """
    if isinstance(source, Image.Image):
        return _as_rgb(source, "the image")
    if isinstance(source, Tensor):
        return Image.fromarray(_array_of_tensor(source))
    if isinstance(source, np.ndarray):
        return _image_of_array(source)
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the image's bytes", len(source))
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no image {path}")
    if not path.is_file():
        raise ImageError(f"{path} is not a file")
    return _decode(path, str(path), path.stat().st_size)


def _decode(file, name: str, size: int) -> Image.Image:
    if size == 0:
        raise ImageError(f"{name}: the file is empty (0 bytes)")
    try:
        with Image.open(file) as image:
            image.load()
            return _as_rgb(image, name)
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture in a format that Pillow reads") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: refused, {error}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}: damaged or truncated ({error})") from error


def _as_rgb(image: Image.Image, name: str) -> Image.Image:
    if min(image.size) < 1:
        raise ImageError(f"{name}: has no pixels, its size is {image.size}")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """16- and 32-bit greys to 8 bits: by the range of their type, as Pillow itself clips them."""
    top = 65535.0 if grey.max(initial=0) > 255 else 255.0
    return np.clip(grey.astype(np.float64) * (255.0 / top), 0, 255).round().astype(np.uint8)


def _image_of_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise ImageError(
            f"expected a uint8 array (H, W), (H, W, 3) or (H, W, 4), got {array.dtype} {array.shape}"
        )
    if array.ndim == 3 and array.shape[2] not in (3, 4):
        raise ImageError(f"expected 3 or 4 channels last, got an array of shape {array.shape}")
    return _as_rgb(Image.fromarray(np.ascontiguousarray(array)), "the array")


def _array_of_tensor(tensor: Tensor) -> np.ndarray:
    if tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
        raise ImageError(f"expected a (3, H, W) tensor, got {tuple(tensor.shape)}")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        if not (tensor.min() >= 0 and tensor.max() <= 1):
            raise ImageError("expected a tensor of values in [0, 1], or uint8")
        tensor = (tensor * 255).round().to(torch.uint8)
    elif tensor.dtype != torch.uint8:
        raise ImageError(f"expected a uint8 or floating tensor, got {tensor.dtype}")
    return tensor.permute(1, 2, 0).contiguous().numpy()


def to_tensor(image: Image.Image, mean: tuple, std: tuple) -> Tensor:
    """An RGB image as a normalised (3, H, W) float32 tensor."""
    array = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).float() / 255
    return (array - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
