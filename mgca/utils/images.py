"""Photographs in, whatever their format; normalised tensors out."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

ImageSource = str | os.PathLike[str] | bytes | io.IOBase | Image.Image | np.ndarray | Tensor

HEIC = frozenset({".heic", ".heif", ".hif"})
# Formats that Pillow knows and cannot decode by itself, or that are programs.
_NO_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
_ORIENTATION = 0x0112  # tag of EXIF
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """A picture that cannot be read; the message says which and why."""


def open_image(source: ImageSource) -> Image.Image:
    """Any picture as upright 8-bit RGB.

    Args:
        source: The picture: a path, an open file or its bytes, a PIL image, an (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4) array, or a (3, H, W) tensor, either of uint8 or of floats in
            [0, 1].

    EXIF rotation is applied, transparency is laid on white, 16-bit greys are scaled to 8 bits, and
    of an animation the first frame is taken. Nothing else of the metadata is read or kept, so that
    a picture whose pixels are fine opens whatever its metadata says. HEIC photographs are read
    where pillow-heif is installed.

    Raises:
        FileNotFoundError: If a path does not exist.
        TypeError: If it is none of these, such as a list of paths.
        ImageError: If it is not a picture, is damaged, has more pixels than Pillow opens (179
            million), has 32-bit pixels, of which nobody says how much is white, or is PostScript.
    """
    if isinstance(source, Image.Image):
        with _naming("the image"):
            return _as_rgb(source, "the image")
    if isinstance(source, Tensor):
        return Image.fromarray(_array_of_tensor(source))
    if isinstance(source, np.ndarray):
        return _image_of_array(source)
    if isinstance(source, list | tuple):
        raise TypeError(
            "expected one image, not several: mgca.inference.batches.segment_all takes many"
        )
    if isinstance(source, io.IOBase):
        source = _content(source)
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the image's bytes", len(source))
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "expected a path, a file, bytes, a PIL image, an array or a tensor, not "
            f"{type(source).__name__}"
        )
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no image {path}")
    if not path.is_file():
        raise ImageError(f"{path} is not a file")
    return _decode(path, str(path), path.stat().st_size)


def _content(file: io.IOBase) -> bytes:
    """All bytes of an open file, from its start wherever it was read to, as Pillow takes them."""
    if file.seekable():
        file.seek(0)
    content = file.read()
    if not isinstance(content, bytes):
        raise ImageError("the file is open for text: open it with mode 'rb'")
    return content


@cache
def reads_heic() -> bool:
    """Whether HEIC photographs can be read: where pillow-heif is installed, Pillow is told."""
    try:
        from pillow_heif import register_heif_opener  # type: ignore[import-not-found]
    except ImportError:
        return False
    register_heif_opener()
    return True


def picture_suffixes() -> set[str]:
    """The suffixes, in small letters, of the formats of photographs that can be read here."""
    reads_heic()
    registered = Image.registered_extensions().items()
    return {
        suffix for suffix, kind in registered if kind in Image.OPEN and kind not in _NO_PICTURES
    }


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """A context whose errors become an :class:`ImageError` that names the picture."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        if Path(name).suffix.lower() in HEIC and not reads_heic():
            raise ImageError(f"{name}: HEIC is read by pillow-heif: pip install it") from None
        raise ImageError(f"{name}: not a picture in a format that Pillow reads") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: refused, {error}") from None
    except Exception as error:  # as for mgca.utils.files.damaged
        reason = f"{type(error).__name__}: {error}"
        raise ImageError(f"{name}: damaged or not readable ({reason})") from error


def _decode(file: Path | io.BytesIO, name: str, size: int) -> Image.Image:
    if size == 0:
        raise ImageError(f"{name}: empty (0 bytes)")
    reads_heic()
    with _naming(name), Image.open(file) as image:
        return _as_rgb(image, name)


def refuse_programs(image: Image.Image, name: str) -> None:
    """Refuse PostScript, before its pixels are asked for.

    Raises:
        ImageError: If it is that.
    """
    if image.format == "EPS":
        # Pillow would start Ghostscript, where there is one, which executes what the file says.
        raise ImageError(f"{name}: PostScript is a program, and not executed: convert it to PNG")


def _as_rgb(image: Image.Image, name: str) -> Image.Image:
    refuse_programs(image, name)
    image.load()
    if min(image.size) < 1:
        raise ImageError(f"{name}: has no pixels, its size is {image.size}")
    # Pillow keeps 16-bit greys of PGM files as 32-bit integers, scaled so that white is 65535.
    # Asked before the image is turned, which forgets the file's format.
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    if image.mode in ("I", "F") and not sixteen_bits:
        raise ImageError(
            f"{name}: has 32-bit pixels (mode {image.mode}), and no value that says what is white: "
            "scale it to 8 bits first"
        )
    turn = _TURNED.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if sixteen_bits:
        grey = _eight_bits(np.asarray(image), image.info.get("transparency"))
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    image.info = {}  # else who opens the result would turn it again
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # of metadata that is damaged: the pixels are not
        return 1


def _eight_bits(grey: np.ndarray, transparent: int | None) -> np.ndarray:
    """Greys in which 65535 is white to 8 bits; the one that is transparent is laid on white."""
    if transparent is not None:
        grey = np.where(grey == transparent, 65535, grey)
    return (grey / np.float32(257)).round().astype(np.uint8)


def _image_of_array(array: np.ndarray) -> Image.Image:
    supported = array.dtype == np.uint8 or np.issubdtype(array.dtype, np.floating)
    if not supported or array.ndim not in (2, 3) or 0 in array.shape:
        raise ImageError(
            "expected an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, or of floats in "
            f"[0, 1], got {array.dtype} {array.shape}"
        )
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4):
        raise ImageError(f"expected 1, 3 or 4 channels last, got an array of shape {array.shape}")
    if array.dtype != np.uint8:
        if not (array.min() >= 0 and array.max() <= 1):
            raise ImageError(
                "expected an array of floats in [0, 1], or of uint8, got values from "
                f"{array.min():g} to {array.max():g}"
            )
        array = (array * 255).round().astype(np.uint8)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
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


def to_tensor(image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """An RGB image as a normalised (3, H, W) float32 tensor."""
    array = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).float() / 255
    return (array - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def training_image(image: ImageSource, size: int) -> Image.Image:
    """A training image: its shorter side resized to ``size``, then the centre cropped."""
    image = open_image(image)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
