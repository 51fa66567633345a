"""Caption files and masks: read as they are meant, or refused with the place of the mistake."""

import dataclasses
import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgca.data import masks as data
from mgca.data.captions import load_captions
from mgca.data.masks import DataError, Masked, load_masked
from mgca.utils.images import ImageError, open_image

# Captions


def captions_file(folder: Path, text: str | bytes, images: tuple[str, ...] = ()) -> Path:
    (folder / "images").mkdir()
    for name in images:
        (folder / "images" / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / "images" / name)
    file = folder / "captions.tsv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_captions_are_grouped_by_image(tmp_path):
    text = "image\tindex\tcaption\nb.png\t0\tA dog .\na.png\t0\tA cat .\nb.png\t1\t Two dogs \n"
    loaded = load_captions(captions_file(tmp_path, text, ("a.png", "b.png")))
    assert len(loaded) == 2
    assert loaded.name == "captions"
    assert [path.name for path in loaded.images] == ["a.png", "b.png"]
    assert loaded.captions == [["A cat ."], ["A dog .", "Two dogs"]]
    assert all(open_image(path).size == (4, 4) for path in loaded.images)


def test_images_may_lie_elsewhere_and_in_folders(tmp_path):
    file = captions_file(tmp_path, "image\tcaption\nx/a.png\tA cat\n", ("x/a.png",))
    (tmp_path / "images").rename(tmp_path / "photos")
    with pytest.raises(FileNotFoundError, match="1 of 1 images"):
        load_captions(file)
    assert load_captions(file, tmp_path / "photos").images == [tmp_path / "photos/x/a.png"]


@pytest.mark.parametrize(
    "caption",
    ['"Stop" says the sign', 'a 6" pipe', "it's 'art'", "ein Löwe, 猫 & 🐱", "a, b; c|d \\t", '"'],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_quotes_and_unicode_stay(tmp_path, caption, end, mark):
    text = f"{mark}image\tcaption{end}a.png\t{caption}{end}a.png\tanother{end}"
    loaded = load_captions(captions_file(tmp_path, text, ("a.png",)))
    assert loaded.captions == [[caption, "another"]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "columns image and caption"),
        ("image\tcaption\n", "no captions"),
        ("image\ttext\na.png\tA cat\n", "columns image and caption"),
        ("image,caption\na.png,A cat\n", "columns image and caption"),
        ("a.png\tA cat\n", "columns image and caption"),
        ("image\tcaption\na.png\tA cat\na.png\t\n", "line 3: empty caption of a.png"),
        ("image\tcaption\na.png\t  \n", "line 2: empty caption of a.png"),
        ("image\tcaption\na.png\n", "line 2: empty caption of a.png"),
        ("caption\timage\nA cat\n", "line 2: no image"),
        ("image\tcaption\n\tA cat\n", "line 2: no image"),
        ("image\tcaption\na.png\tA\tcat\n", "line 2: more columns than the header"),
        ("image\tcaption\na.png\tein Löwe\n".encode("latin-1"), "not a UTF-8 text table"),
        ("image\tcaption\na.png\tA cat\n".encode("utf-16"), "not a UTF-8 text table"),
        ("image\tcaption\na.png\t" + "long " * 100_000, "not a UTF-8 text table .*field larger"),
    ],
)
def test_wrong_captions_files(tmp_path, text, reason):
    file = captions_file(tmp_path, text, ("a.png",))
    with pytest.raises(DataError, match=f"{file}.*{reason}"):
        load_captions(file)


def test_missing_captions_file(tmp_path):
    for place in (tmp_path / "none.tsv", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no captions file {place}"):
            load_captions(place)


def test_missing_images_are_counted(tmp_path):
    text = "image\tcaption\n" + "".join(f"{name}.png\tA cat\n" for name in "dbca")
    file = captions_file(tmp_path, text, ("b.png", "d.png"))
    with pytest.raises(FileNotFoundError, match=r"2 of 4 images .*images, first a\.png"):
        load_captions(file)


def test_digest_names_the_captions(tmp_path):
    file = captions_file(tmp_path, "image\tcaption\na.png\tA cat\n", ("a.png",))
    first = load_captions(file).digest
    assert load_captions(file).digest == first
    file.write_text("image\tcaption\na.png\tA dog\n")
    assert load_captions(file).digest != first


# Masks


def masked(folder: Path, ids: np.ndarray | Image.Image, *, subtract: int = 0) -> Masked:
    """A set of one image with this mask and the classes cat, dog and cow."""
    image = ids if isinstance(ids, Image.Image) else Image.fromarray(ids)
    image.save(folder / "mask.png")
    Image.new("RGB", image.size).save(folder / "image.png")
    items = [("one", folder / "image.png", folder / "mask.png")]
    return Masked("animals", items, ("cat", "dog", "cow"), subtract, "digest")


def test_mask_is_the_ids(tmp_path):
    ids = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)
    mask = masked(tmp_path, ids).mask(0, (2, 3))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, ids)


def test_subtracted_ids(tmp_path):
    ids = np.array([[0, 1, 2, 3, 255]], dtype=np.uint8)
    assert masked(tmp_path, ids, subtract=1).mask(0).tolist() == [[255, 0, 1, 2, 255]]
    assert masked(tmp_path, ids, subtract=2).mask(0).tolist() == [[255, 255, 0, 1, 255]]


def test_palette_mask_is_read_as_indices(tmp_path):
    ids = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    image = Image.fromarray(ids).convert("P")
    image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200] + [224, 224, 192] * 253)
    data_set = masked(tmp_path, image)
    assert Image.open(tmp_path / "mask.png").mode == "P"
    assert data_set.mask(0).tolist() == ids.tolist()


def test_16_bit_and_1_bit_masks(tmp_path):
    ids = np.array([[0, 1, 2, 255]], dtype=np.uint16)
    assert masked(tmp_path, ids).mask(0).tolist() == [[0, 1, 2, 255]]
    assert masked(tmp_path, ids[:, :2] > 0).mask(0).tolist() == [[0, 1]]
    ids[0, 1] = 256  # would be 0 in 8 bits
    with pytest.raises(DataError, match="id 256 is not one of the 3 classes of animals"):
        masked(tmp_path, ids).mask(0)


@pytest.mark.parametrize(("subtract", "unknown"), [(0, 3), (1, 4), (0, 254), (1, 254)])
def test_ids_out_of_range(tmp_path, subtract, unknown):
    ids = np.array([[1, unknown]], dtype=np.uint8)
    with pytest.raises(DataError, match=rf"mask\.png: id {unknown} is not one of the 3 classes"):
        masked(tmp_path, ids, subtract=subtract).mask(0)
    ids[0, 1] = 2 + subtract
    assert masked(tmp_path, ids, subtract=subtract).mask(0).max() == 2


@pytest.mark.parametrize("subtract", [0, 1])
def test_a_background_moves_the_classes_up_by_one(tmp_path, subtract):
    def on_disk(*ids):
        array = np.array([[*(i + subtract for i in ids), 255]], dtype=np.uint8)
        return masked(tmp_path, array, subtract=subtract)

    data_set = on_disk(0, 1, 2, 3)
    with pytest.raises(DataError, match=f"id {3 + subtract} is not one of the 3 classes"):
        data_set.mask(0)
    with_background = dataclasses.replace(data_set, background=True)
    assert with_background.mask(0).tolist() == [[0, 1, 2, 3, 255]]
    on_disk(0, 4)
    with pytest.raises(DataError, match=f"id {4 + subtract} is not one of the 3 classes"):
        with_background.mask(0)


def test_mask_of_another_size(tmp_path):
    data_set = masked(tmp_path, np.zeros((2, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"the mask is \(2, 3\), its image one is \(3, 2\)"):
        data_set.mask(0, (3, 2))
    Image.new("RGB", (4, 4)).save(tmp_path / "image.png")
    with pytest.raises(DataError, match=r"its image one is \(4, 4\)"):
        list(data_set)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_mask_with_several_channels(tmp_path, mode):
    with pytest.raises(DataError, match="a mask has one channel of class ids"):
        masked(tmp_path, Image.new(mode, (3, 2))).mask(0)


def test_mask_of_fractions(tmp_path):
    data_set = masked(tmp_path, np.zeros((2, 3), dtype=np.uint8))
    Image.fromarray(np.full((2, 3), 0.5, dtype=np.float32)).save(tmp_path / "mask.png", "TIFF")
    with pytest.raises(DataError, match="one channel of class ids, this has float32"):
        data_set.mask(0)


def test_unreadable_mask(tmp_path, monkeypatch):
    data_set = masked(tmp_path, np.random.default_rng(0).integers(0, 3, (50, 50), dtype=np.uint8))
    whole = (tmp_path / "mask.png").read_bytes()
    for content in (b"", b"a letter", whole[:-100], whole[:20]):
        (tmp_path / "mask.png").write_bytes(content)
        with pytest.raises(DataError, match=r"mask\.png: not a readable mask"):
            data_set.mask(0)
    (tmp_path / "mask.png").write_bytes(whole)
    assert data_set.mask(0).shape == (50, 50)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"mask\.png: not a readable mask .*2500 pixels"):
        data_set.mask(0)


def test_unreadable_image(tmp_path):
    data_set = masked(tmp_path, np.zeros((2, 3), dtype=np.uint8))
    (tmp_path / "image.png").write_bytes(b"a letter")
    with pytest.raises(ImageError, match=r"image\.png: not a picture"):
        list(data_set)


def test_subset(tmp_path):
    data_set = masked(tmp_path, np.zeros((2, 3), dtype=np.uint8))
    assert len(data_set.first(0)) == 0
    assert data_set.first(None) is data_set


# Sets by name


@pytest.fixture
def camvid(tmp_path) -> Path:
    """The folder of a set of two images, as it lies on disk."""
    folder = tmp_path / "camvid"
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    for number in (1, 2):
        Image.new("RGB", (4, 3)).save(folder / f"images/{number}.jpg")
        Image.new("L", (4, 3), 10).save(folder / f"annotations/{number}.png")
    (folder / "train.txt").write_text("1\n2\n")
    (folder / "MANIFEST.sha256").write_text("")
    return folder


def test_set_by_name(tmp_path, camvid):
    loaded = load_masked("camvid", tmp_path)
    assert [identifier for identifier, _, _ in loaded] == ["1", "2"]
    for _, image, mask in loaded:
        assert image.size == (4, 3) and (mask == 10).all()
    assert loaded.classes[10] == "bicyclist"


def test_unknown_set(tmp_path):
    with pytest.raises(ValueError, match="unknown set 'ade20k', only voc20, coco80, voc20-all"):
        load_masked("ade20k", tmp_path)


@pytest.mark.parametrize(
    "lost", ["train.txt", "images/2.jpg", "annotations/1.png", "MANIFEST.sha256"]
)
def test_incomplete_set(tmp_path, camvid, lost):
    (camvid / lost).unlink()
    with pytest.raises(FileNotFoundError, match=str(camvid / lost)):
        load_masked("camvid", tmp_path)


def test_data_root(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("MGCA_DATA", raising=False)
    assert data.data_root() is None
    default = tmp_path / "shared" / "data"
    default.mkdir(parents=True)
    assert data.data_root().resolve() == default

    (tmp_path / "a").mkdir()
    monkeypatch.setenv("MGCA_DATA", str(tmp_path / "a"))
    assert data.data_root() == tmp_path / "a"
    assert data.data_root(default) == default
    with pytest.raises(FileNotFoundError, match=f"no data folder {tmp_path}/b"):
        data.data_root(tmp_path / "b")
    # A folder that was asked for and is not there is never replaced by another in silence.
    monkeypatch.setenv("MGCA_DATA", str(tmp_path / "b"))
    with pytest.raises(FileNotFoundError, match=f"no data folder {tmp_path}/b"):
        data.data_root()
    monkeypatch.setenv("MGCA_DATA", "")
    assert data.data_root().resolve() == default


# The real data


@pytest.mark.parametrize(
    ("name", "count", "classes"),
    [
        ("voc20", 297, 20),
        ("coco80", 240, 80),
        ("camvid", 123, 11),
        ("voc21", 297, 20),
        ("voc21-extra", 67, 20),
        ("coco81", 240, 80),
        ("voc20-all", 364, 20),
        ("coco80-val", 137, 80),
        ("camvid-odd", 61, 11),
    ],
)
def test_real_sets(data_root, name, count, classes):
    loaded = load_masked(name, data_root)
    assert len(loaded) == count
    assert len({identifier for identifier, _, _ in loaded.items}) == count
    assert len(loaded.classes) == len(set(loaded.classes)) == classes
    chosen = dataclasses.replace(loaded, items=random.sample(loaded.items, 10))
    seen = 0
    for _, image, mask in chosen:
        assert mask.shape == (image.height, image.width)
        known = mask[mask != data.IGNORE]
        assert known.size and known.max() < classes + loaded.background
        seen += 1
    assert seen == 10


def test_without_background_its_pixels_are_ignored(data_root):
    whole = load_masked("voc21", data_root).first(3)
    things = whole.without_background("voc20")
    assert (things.name, things.background, things.classes) == ("voc20", False, whole.classes)
    for (_, _, ids), (_, _, named) in zip(whole, things, strict=True):
        assert (ids == 0).any()
        expected = np.where((ids == 0) | (ids == data.IGNORE), data.IGNORE, ids - 1)
        assert np.array_equal(named, expected)
    with pytest.raises(ValueError, match="voc20 has no background"):
        things.without_background("again")


def test_real_captions(data_root):
    loaded = load_captions(data_root / "flickr8k" / "captions_train.tsv")
    assert len(loaded) == 7291
    assert {len(own) for own in loaded.captions} == {5}
    assert len(set(loaded.images)) == 7291
    for path in random.sample(loaded.images, 5):
        assert open_image(path).size == (224, 224)
    held_out = load_captions(data_root / "flickr8k" / "captions_val.tsv")
    assert len(held_out) == 300
    assert not set(held_out.images) & set(loaded.images)


def test_real_manifest_agrees(data_root):
    # The digest of a set is that of its manifest, and the manifest holds for the files.
    loaded = load_masked("camvid", data_root)
    folder = data_root / "camvid"
    lines = (folder / "MANIFEST.sha256").read_text().splitlines()
    hashes = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    assert loaded.digest == data.file_digest(folder / "MANIFEST.sha256")
    for _, image, mask in loaded.items[:3]:
        for path in (image, mask):
            assert hashes[os.path.relpath(path, folder)] == data.file_digest(path)
