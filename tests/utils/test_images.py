"""Every kind of picture gives upright 8-bit RGB, or an error that says what is wrong with it."""

import io
import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from mgca.config import SegmentConfig
from mgca.inference.windows import cut_windows, resize, resized_size, window_boxes
from mgca.utils.images import ImageError, open_image, picture_suffixes, reads_heic, to_tensor

RED, GREEN, BLUE, YELLOW = (230, 20, 20), (20, 180, 40), (30, 40, 220), (240, 220, 30)
WHITE = (255, 255, 255)


def encode(image: Image.Image, fmt: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def photo(height: int = 24, width: int = 32) -> Image.Image:
    """Noise, so that each byte of the compressed file matters."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


# Files that are not what they should be


def test_missing_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no-such.jpg"):
        open_image(tmp_path / "no-such.jpg")


def test_folder(tmp_path):
    with pytest.raises(ImageError, match=f"{tmp_path} is not a file"):
        open_image(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"This is a letter, not a picture.\n", "not a picture"),
        (bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)), "not a picture"),
        (encode(photo(), "JPEG")[:-200], "truncated"),
        (encode(photo(), "PNG")[:-200], "truncated"),
        (encode(photo(), "PNG")[:40], "damaged|not a picture"),
    ],
    ids=["empty", "text", "random", "half JPEG", "half PNG", "PNG header"],
)
def test_unreadable_files_and_bytes(tmp_path, content, reason):
    file = tmp_path / "picture.jpg"
    file.write_bytes(content)
    with pytest.raises(ImageError, match=rf"picture\.jpg: .*({reason})"):
        open_image(file)
    with pytest.raises(ImageError, match=f"the image's bytes: .*({reason})"):
        open_image(content)


def test_truncated_pil_image_is_the_same_error():
    # Pillow reads the header on opening and the pixels only when they are asked for.
    image = Image.open(io.BytesIO(encode(photo(), "JPEG")[:-200]))
    with pytest.raises(ImageError, match="truncated"):
        open_image(image)


def test_whatever_a_decoder_raises_is_an_image_error(monkeypatch):
    class Fragile(ImageFile.ImageFile):
        format = "FRAGILE"

        def _open(self):
            self._mode, self._size = "RGB", (4, 4)

        def load(self):
            raise KeyError("no such table")

    monkeypatch.setattr(Image, "ID", [*Image.ID, "FRAGILE"])
    monkeypatch.setitem(Image.OPEN, "FRAGILE", (Fragile, lambda prefix: prefix[:7] == b"FRAGILE"))
    with pytest.raises(ImageError, match="bytes: damaged .*KeyError: 'no such table'"):
        open_image(b"FRAGILE....")


def test_decompression_bomb(monkeypatch):
    content = encode(Image.new("1", (100, 100)), "PNG")
    assert open_image(content).size == (100, 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(ImageError, match="refused.*10000 pixels"):
        open_image(content)


def test_picture_without_pixels():
    with pytest.raises(ImageError, match="no pixels"):
        open_image(Image.new("RGB", (0, 5)))


# A PNG's checksums catch most changes; JPEG and WebP decode many damaged files to something.
FILES = {fmt: encode(photo(), fmt) for fmt in ("JPEG", "PNG", "WEBP", "GIF")}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(FILES)),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
)
def test_damaged_bytes_give_a_picture_or_an_image_error(fmt, kept, changes):
    content = bytearray(FILES[fmt])
    for where, value in changes:
        # Squared: half of the changes fall into the first quarter, where the headers are.
        content[int(where**2 * (len(content) - 1))] = value
    try:
        image = open_image(bytes(content[: int(kept * len(content))]))
    except ImageError as error:
        assert "the image's bytes" in str(error)
    else:
        assert image.mode == "RGB"
        assert np.asarray(image).shape == (image.height, image.width, 3)


# Formats


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "TIFF", "BMP"])
def test_lossless_formats_keep_the_pixels(fmt, tmp_path):
    file = tmp_path / "picture"  # the content counts, not the name
    file.write_bytes(encode(photo(), fmt, **({"lossless": True} if fmt == "WEBP" else {})))
    for source in (file, str(file), file.read_bytes()):
        np.testing.assert_array_equal(pixels(open_image(source)), pixels(photo()))


@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, WHITE, (0, 0, 0)])
def test_cmyk_jpeg(colour):
    content = encode(Image.new("RGB", (16, 16), colour).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(content)).mode == "CMYK"
    assert np.abs(pixels(open_image(content)) - colour).max() <= 6


GREYS = [0, 255, 256, 128 * 257, 32768, 65535]
GREYS_IN_8_BITS = [0, 1, 1, 128, 128, 255]


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("shown", [slice(None), slice(0, 2), slice(5, 6), slice(3, 5)])
def test_16_bit_greys(fmt, shown):
    # Also where all are dark: the scale is the format's, not the picture's own range.
    image = Image.fromarray(np.array([GREYS[shown]], dtype=np.uint16))
    for source in (image, encode(image, fmt)):
        result = pixels(open_image(source))
        for channel in range(3):
            assert result[0, :, channel].tolist() == GREYS_IN_8_BITS[shown]


def test_big_endian_16_bit_tiff():
    image = Image.frombytes("I;16B", (6, 1), np.array(GREYS, dtype=">u2").tobytes())
    content = encode(image, "TIFF")
    assert content[:2] == b"MM"
    assert pixels(open_image(content))[0, :, 0].tolist() == GREYS_IN_8_BITS


def test_pgm_of_10_bits_reaches_white():
    samples = np.array([0, 512, 1023], dtype=">u2").tobytes()
    assert pixels(open_image(b"P5 3 1 1023\n" + samples))[0, :, 1].tolist() == [0, 128, 255]


def test_16_bit_grey_with_a_transparent_value():
    image = Image.fromarray(np.array([[1000, 30000]], dtype=np.uint16))
    content = encode(image, "PNG", transparency=1000)
    assert pixels(open_image(content))[0, :, 2].tolist() == [255, 117]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_have_no_known_white(dtype):
    image = Image.fromarray(np.array([[0, 1, 200]], dtype=dtype))
    for source in (image, encode(image, "TIFF")):
        with pytest.raises(ImageError, match="32-bit pixels.*8 bits first"):
            open_image(source)


def test_1_bit():
    image = Image.fromarray(np.array([[True, False], [False, True]]))
    assert image.mode == "1"
    expected = [[255, 0], [0, 255]]
    assert pixels(open_image(encode(image, "PNG")))[..., 0].tolist() == expected


def palette_image() -> Image.Image:
    image = Image.fromarray(np.array([[0, 1], [2, 3]], dtype=np.uint8)).convert("P")
    image.putpalette([*RED, *GREEN, *BLUE, *YELLOW])
    return image


def test_palette():
    content = encode(palette_image(), "PNG")
    assert Image.open(io.BytesIO(content)).mode == "P"
    assert pixels(open_image(content)).tolist() == [
        [list(RED), list(GREEN)],
        [list(BLUE), list(YELLOW)],
    ]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255, 255])], ids=["index", "table"])
def test_palette_with_transparency_is_laid_on_white(transparency):
    result = pixels(open_image(encode(palette_image(), "PNG", transparency=transparency)))
    assert result.tolist() == [[list(RED), list(WHITE)], [list(BLUE), list(YELLOW)]]


def test_alpha_is_laid_on_white():
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], dtype=np.uint8)
    expected = [[200, 100, 0], [255, 255, 255], [244, 224, 204]]  # a fifth of the colour
    image = Image.fromarray(rgba)
    for source in (image, encode(image, "PNG"), rgba):
        assert pixels(open_image(source))[0].tolist() == expected
    grey_alpha = Image.merge("LA", [image.getchannel("R"), image.getchannel("A")])
    assert pixels(open_image(encode(grey_alpha, "PNG")))[0, :, 0].tolist() == [200, 255, 244]


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 6), colour) for colour in (RED, GREEN, BLUE)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert (pixels(open_image(content)) == RED).all()


# How the pixels of an upright image lie in the file, by the orientation that EXIF states.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),  # shown by a quarter turn clockwise
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
def test_exif_rotation(orientation, fmt):
    upright = np.zeros((32, 48, 3), dtype=np.uint8)
    upright[:16, :24], upright[:16, 24:] = RED, GREEN
    upright[16:, :24], upright[16:, 24:] = BLUE, YELLOW
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(fmt, {})
    result = open_image(encode(stored, fmt, exif=exif, **options))
    assert result.size == (48, 32)
    assert np.abs(pixels(result) - upright).max() <= (4 if fmt == "JPEG" else 0)


# Arrays and tensors


def test_arrays():
    rgb = np.asarray(photo())
    np.testing.assert_array_equal(pixels(open_image(rgb)), rgb)
    np.testing.assert_array_equal(pixels(open_image(rgb[::2, ::-1])), rgb[::2, ::-1])
    grey = rgb[..., 0]
    np.testing.assert_array_equal(pixels(open_image(grey)), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize(
    "array",
    [
        np.full((4, 4, 3), 1.5),
        np.full((4, 4, 3), np.nan),
        np.full((4, 4, 3), -0.1, np.float32),
        np.zeros((4, 4), dtype=np.int64),
        np.zeros((4, 4), dtype=bool),
        np.zeros((4, 4, 3), dtype=np.uint16),
        np.zeros((3, 8, 8), dtype=np.uint8),
        np.zeros((4, 4, 2), dtype=np.uint8),
        np.zeros((1, 4, 4, 3), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
        np.zeros(4, dtype=np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_wrong_arrays_are_described(array):
    with pytest.raises(ImageError, match="expected .* got .*") as caught:
        open_image(array)
    said = str(caught.value)
    assert str(array.shape) in said or "in [0, 1], or of uint8, got values from" in said


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_arrays_of_floats_are_of_zero_to_one(kind):
    rgb = np.asarray(photo())
    for array in (rgb, rgb[..., 0], rgb[..., :1]):
        expected = pixels(open_image(array))
        found = pixels(open_image((array / 255).astype(kind)))
        assert np.abs(found - expected).max() <= (kind is np.float16)
    np.testing.assert_array_equal(pixels(open_image(rgb[..., :1])), pixels(open_image(rgb[..., 0])))


def test_open_files(tmp_path):
    photo().save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    buffer = io.BytesIO(content)
    buffer.seek(0, io.SEEK_END)  # as after writing
    expected = pixels(photo())
    np.testing.assert_array_equal(pixels(open_image(buffer)), expected)
    with open(tmp_path / "x.png", "rb") as file, open(tmp_path / "x.png", "rb", 0) as raw:
        np.testing.assert_array_equal(pixels(open_image(file)), expected)
        np.testing.assert_array_equal(pixels(open_image(raw)), expected)
    with pytest.raises(ImageError, match="mode 'rb'"):
        open_image(io.StringIO("text"))
    with pytest.raises(ImageError, match=r"empty \(0 bytes\)"):
        open_image(io.BytesIO())


def test_what_is_no_image_is_described():
    for several in (["a.jpg", "b.jpg"], ("a.jpg",), []):
        with pytest.raises(TypeError, match="segment_all takes many"):
            open_image(several)
    with pytest.raises(TypeError, match="not NoneType"):
        open_image(None)


# The tag of the orientation, and one that points behind the end; no end of the directory.
DAMAGED_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\x87\x69\0\x04"


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [DAMAGED_EXIF, b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0"]
)
def test_pixels_are_shown_whatever_the_metadata_says(fmt, exif):
    once = open_image(encode(photo(), fmt, exif=exif))
    assert once.size in (photo().size, photo().size[::-1]) and once.info == {}
    np.testing.assert_array_equal(pixels(open_image(once)), pixels(once))


def test_an_opened_picture_is_not_turned_again():
    exif = Image.Exif()
    exif[0x0112] = 6
    once = open_image(encode(photo(), "PNG", exif=exif))
    assert once.size == photo().size[::-1]
    np.testing.assert_array_equal(pixels(open_image(once)), pixels(once))


def test_suffixes_are_those_of_photographs_that_can_be_read():
    suffixes = picture_suffixes()
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp", ".gif", ".avif"} <= suffixes
    assert not {".pdf", ".mpg", ".mpeg", ".eps", ".ps", ".h5", ".wmf", ".txt", ".heic"} & suffixes


def test_heic_is_read_by_pillow_heif(monkeypatch, tmp_path):
    file = tmp_path / "photo.HEIC"
    file.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(ImageError, match=r"photo.HEIC: HEIC is read by pillow-heif: pip install"):
        open_image(file)
    told = []
    fake = types.SimpleNamespace(register_heif_opener=lambda: told.append(1))
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    reads_heic.cache_clear()
    try:
        open_image(photo())
        with pytest.raises(ImageError, match="not a picture in a format"):
            open_image(file)
    finally:
        reads_heic.cache_clear()
    assert told == [1]  # once, before the first file is opened


def test_tensors():
    tensor = torch.from_numpy(np.array(photo())).permute(2, 0, 1)
    expected = pixels(photo())
    for source in (tensor, tensor / 255, (tensor / 255).double().requires_grad_()):
        np.testing.assert_array_equal(pixels(open_image(source)), expected)
    half = (tensor / 255).to(torch.bfloat16)
    assert np.abs(pixels(open_image(half)) - expected).max() <= 1


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.full((3, 4, 4), 1.5), r"\[0, 1\]"),
        (torch.full((3, 4, 4), -0.1), r"\[0, 1\]"),
        (torch.full((3, 4, 4), torch.nan), r"\[0, 1\]"),
        (torch.zeros(3, 4, 4).index_fill(2, torch.tensor([1]), torch.nan), r"\[0, 1\]"),
        (torch.full((3, 4, 4), torch.inf), r"\[0, 1\]"),
        (torch.zeros(4, 4, 3), r"\(3, H, W\) tensor, got \(4, 4, 3\)"),
        (torch.zeros(1, 3, 4, 4), r"got \(1, 3, 4, 4\)"),
        (torch.zeros(3, 0, 4), r"got \(3, 0, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "int64"),
        (torch.zeros(3, 4, 4, dtype=torch.bool), "bool"),
    ],
)
def test_wrong_tensors_are_described(tensor, reason):
    with pytest.raises(ImageError, match=reason):
        open_image(tensor)


def test_to_tensor_normalises():
    mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 2.0)
    tensor = to_tensor(Image.new("RGB", (5, 4), (255, 0, 51)), mean, std)
    assert tensor.shape == (3, 4, 5) and tensor.dtype == torch.float32
    torch.testing.assert_close(tensor[:, 2, 3], torch.tensor([1.0, -1.0, 0.1]))


# Sizes


@pytest.mark.parametrize(
    ("width", "height", "resized"),
    [
        (1, 1, (448, 448)),
        (10_000, 10, (2048, 2)),
        (10, 10_000, (2, 2048)),
        (6000, 4000, (672, 448)),
        (100_000, 1, (2048, 1)),
    ],
)
def test_extreme_sizes_are_read_and_cut_into_windows(width, height, resized):
    config = SegmentConfig()
    content = encode(Image.new("RGB", (width, height), GREEN), "PNG")
    image = resize(open_image(content), config)
    assert image.size == resized
    boxes = window_boxes(image.height, image.width, config.window, config.stride)
    covered = np.zeros((image.height, image.width), dtype=bool)
    for top, left, rows, columns in boxes:
        covered[top : top + rows, left : left + columns] = True
    assert covered.all()
    windows = cut_windows(to_tensor(image, (0.0,) * 3, (1.0,) * 3), boxes, 16)
    assert windows.shape[0] == len(boxes)
    assert not (windows.shape[2] % 16 or windows.shape[3] % 16)
    inside = windows[:, :, : boxes[0].height, : boxes[0].width]
    assert torch.equal(inside, (torch.tensor(GREEN) / 255)[:, None, None].expand_as(inside))


@given(st.integers(1, 20_000), st.integers(1, 20_000))
@settings(derandomize=True)
def test_resizing_keeps_the_ratio(height, width):
    new_height, new_width = resized_size(height, width, 448, 2048)
    assert 1 <= min(new_height, new_width) <= 448
    assert max(new_height, new_width) <= 2048
    assert min(new_height, new_width) == 448 or max(new_height, new_width) == 2048
    # Of the exact sizes at one scale both are rounded to whole pixels.
    scale = min(448 / min(height, width), 2048 / max(height, width))
    assert abs(new_height - height * scale) <= 0.5 or new_height == 1
    assert abs(new_width - width * scale) <= 0.5 or new_width == 1
