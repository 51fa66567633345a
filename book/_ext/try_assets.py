"""What the page "Try it" loads: the model as ONNX, the words' embeddings, and photographs.

``make try`` writes them all from ``mgca.load("lite")``. The table of the words, which takes ten
minutes of a core, goes to book/extra/try and is committed; it is made only if the text encoder or
the words are others than the table's. The rest goes to _build/try. The build of the site copies
both. The scripts of the page, in book/extra/try, read what they need to know from ``about.json``.
"""

import argparse
import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from PIL import Image
from torch import Tensor

import mgca
from mgca.inference.export import INPUT, OUTPUT, export_onnx
from mgca.inference.overlay import palette
from mgca.inference.scoring import REST
from mgca.model import Model
from mgca.prompts import CLASS_TEMPLATES, class_embeddings
from mgca.utils.files import replacing, write_text

ROOT = Path(__file__).resolve().parents[2]
EXTRA = ROOT / "book" / "extra"
BUILT = ROOT / "_build" / "try"
WORDS = EXTRA / "try" / "words.txt"
TABLE, TABLE_FACTS = EXTRA / "try" / "words.bin.gz", EXTRA / "try" / "words.json"
COLOURS = 40  # as many words as can be asked for at once
BITS = 14  # of a number of a word's embedding: with 8, up to one label in fifty is another one
OPSET = 20


class Photo(NamedTuple):
    """A photograph that comes inside a package.

    Attributes:
        title: Name on its button.
        words: Words that are asked for with it.
        credit: Author and licence.
    """

    title: str
    words: tuple[str, ...]
    credit: str


PHOTOS = {
    "temple": Photo("A temple", ("temple", "sky", "tree"), "danielbuechele, CC BY 2.0"),
    "chelsea": Photo("A cat", ("cat", "blanket", "wall"), "Stéfan van der Walt, CC0"),
    "coffee": Photo("Coffee", ("cup", "coffee", "spoon", "table"), "Rachel Michetti, CC0"),
    "astronaut": Photo(
        "An astronaut", ("person", "clothes", "flag", "helmet"), "NASA, public domain"
    ),
    "rocket": Photo("A launch", ("rocket", "sky", "smoke", "tower"), "SpaceX, public domain"),
}
EXAMPLE = "temple"


def photograph(name: str) -> Image.Image:
    """A photograph of :data:`PHOTOS`."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    array = load_sample_image("china.jpg") if name == "temple" else getattr(skimage.data, name)()
    return Image.fromarray(array)


def short_weights(model: onnx.ModelProto, kind: type[np.signedinteger] = np.int16) -> None:
    """Keep the weights of a model as integers, with a step for each output channel, in place.

    They become numbers again when the model is loaded, and it computes in float32 as before. Of
    16 bits a weight is off by at most 1/65534 of the largest of its channel; float16, as long, is
    off several times as much.

    Args:
        model: The model.
        kind: The integers.
    """
    graph, nodes = model.graph, []
    for weight in list(graph.initializer):
        # Statistics and biases, of one axis, are few.
        if weight.data_type != onnx.TensorProto.FLOAT or len(weight.dims) < 2:
            continue
        name, values = weight.name, onnx.numpy_helper.to_array(weight)
        largest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
        step = (np.maximum(largest, 1e-12) / np.iinfo(kind).max).astype(np.float32)
        whole = np.round(values / step).astype(kind)
        weight.CopyFrom(onnx.numpy_helper.from_array(whole, f"{name}_whole"))
        graph.initializer.append(onnx.numpy_helper.from_array(step, f"{name}_step"))
        nodes += [
            onnx.helper.make_node(
                "Cast", [f"{name}_whole"], [f"{name}_float"], to=onnx.TensorProto.FLOAT
            ),
            onnx.helper.make_node("Mul", [f"{name}_float", f"{name}_step"], [name]),
        ]
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)


def nearest_point() -> onnx.ModelProto:
    """The one product of the units that is large: each pixel's most similar meta-point.

    In numbers ``einsum("bcg,bcn->bgn").max(dim=1).indices`` of :func:`mgca.units.semantic_units`,
    for the unit pixels (C, N) of one window and the indices (G,) of the meta-points.
    """
    make, kind = onnx.helper, onnx.TensorProto
    nodes = [
        make.make_node("Gather", ["pixels", "index"], ["points"], axis=1),
        make.make_node("Transpose", ["points"], ["rows"], perm=[1, 0]),
        make.make_node("MatMul", ["rows", "pixels"], ["similarity"]),
        make.make_node("ArgMax", ["similarity"], ["assignment"], axis=0, keepdims=0),
    ]
    graph = make.make_graph(
        nodes,
        "nearest_point",
        [
            make.make_tensor_value_info("pixels", kind.FLOAT, ["C", "N"]),
            make.make_tensor_value_info("index", kind.INT64, ["G"]),
        ],
        [make.make_tensor_value_info("assignment", kind.INT64, ["N"])],
    )
    opset = [make.make_opsetid("", OPSET)]
    return make.make_model(graph, opset_imports=opset, ir_version=10)


def quantised(embeddings: Tensor, parts: Sequence[int]) -> bytes:
    """Embeddings (n, C) in :data:`BITS` bits a number; each part of a row has a step of its own.

    Args:
        embeddings: Unit vectors.
        parts: Lengths of the parts, which follow one another along a row.

    Returns:
        The low bytes (n, C), the high bytes (n, C), apart because that packs well, then the steps
        (n, parts) float32. The largest of each part has all its bits.
    """
    rows, steps = [], []
    for part in embeddings.split(list(parts), dim=1):
        largest = part.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        steps.append(largest / (2 ** (BITS - 1) - 1))
        rows.append((part / steps[-1]).round().to(torch.int16))
    low, high = torch.cat(rows, 1).numpy().astype("<i2").view(np.uint8).reshape(-1, 2).T
    return low.tobytes() + high.tobytes() + torch.cat(steps, 1).numpy().tobytes()


class Remembered(torch.nn.Module):
    """A sentence encoder that keeps on disk what it has computed, as float16.

    What takes long is the sentences of all words. They stay the same for another alignment, and a
    table that was given up goes on where it was.

    Args:
        encoder: The text encoder of ``lite``.
        folder: Folder of the sentences' embeddings.
    """

    def __init__(self, encoder: torch.nn.Module, folder: Path) -> None:
        super().__init__()
        self.encoder, self.folder = encoder, folder

    def forward(self, texts: Sequence[str]) -> Tensor:
        key = hashlib.sha256("\n".join([self.encoder.text_digest, *texts]).encode()).hexdigest()
        path = self.folder / f"{key}.npy"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary, temporary.open("wb") as opened:
                np.save(opened, self.encoder(texts).half().numpy())
        return torch.from_numpy(np.load(path)).float()


def parts_of(model: Model) -> list[int]:
    """Lengths of the parts of an embedding: of ``lite``, what captions taught, and the classes."""
    dim = model.backbone.dim
    learned = model.backbone.learned or dim
    return [learned, dim - learned] if learned < dim else [dim]


def table_key(model: Model) -> str:
    """Digest of all that the words' table is made of."""
    words = WORDS.read_text()
    made_of = "\n".join([str(BITS), model.backbone.text_digest, *CLASS_TEMPLATES, words])
    return hashlib.sha256(made_of.encode()).hexdigest()


def table_is_current(model: Model) -> bool:
    """Whether the committed table belongs to the model's text encoder and to the list of words."""
    if not (TABLE.is_file() and TABLE_FACTS.is_file()):
        return False
    return json.loads(TABLE_FACTS.read_text())["key"] == table_key(model)


def write_table(model: Model) -> None:
    """Embed all words, as ``model.texts`` does, and write their table."""
    words = WORDS.read_text().split("\n")[:-1]
    encoder = model.backbone.text
    model.backbone.text = Remembered(encoder, BUILT.with_name("try-sentences"))
    found = []
    for start in range(0, len(words), 500):
        found.append(class_embeddings(model.backbone, words[start : start + 500]))
        print(f"{start + len(found[-1])} of {len(words)} words", flush=True)
    model.backbone.text = encoder
    parts = parts_of(model)
    with replacing(TABLE) as temporary:
        temporary.write_bytes(gzip.compress(quantised(torch.cat(found), parts), 9, mtime=0))
    facts = {"words": len(words), "parts": parts, "key": table_key(model)}
    write_text(TABLE_FACTS, json.dumps(facts, indent=2) + "\n")


def write_network(model: Model) -> None:
    """Write the two ONNX files."""
    export_onnx(model, BUILT / "model.onnx")
    network = onnx.load(BUILT / "model.onnx")
    short_weights(network)
    for path, each in (("model.onnx", network), ("nearest.onnx", nearest_point())):
        onnx.checker.check_model(each, full_check=True)
        with replacing(BUILT / path) as temporary:
            temporary.write_bytes(each.SerializeToString())


def write_photos(model: Model) -> None:
    """Write the photographs, and the picture that stands where no WebAssembly is."""
    for name in PHOTOS:
        with replacing(BUILT / f"{name}.jpg") as temporary:
            photograph(name).save(temporary, "JPEG", quality=90)
    result = model.segment(photograph(EXAMPLE), PHOTOS[EXAMPLE].words)
    with replacing(BUILT / "example.webp") as temporary:
        result.overlay().save(temporary, "WEBP", quality=80)


def write_about(model: Model) -> None:
    """Write what the scripts need to know, and how many bytes the worker loads."""
    config = dataclasses.asdict(model.config)
    if (config["placement"], config["average"]) != ("centre", "raw"):
        raise ValueError("units.js knows meta-points in the centre and raw averages only")
    loaded = [
        EXTRA / "onnxruntime" / "ort-wasm-simd-threaded.wasm.gz",
        *(EXTRA / "try" / name for name in ("words.txt", "words.bin.gz")),
        *(BUILT / name for name in ("model.onnx", "nearest.onnx")),
    ]
    backbone = model.backbone
    about = {
        "config": config,
        "mean": backbone.mean,
        "std": backbone.std,
        "multiple": backbone.stride,
        "temperature": backbone.temperature,
        "input": INPUT,
        "output": OUTPUT,
        "rest": REST,
        "colours": palette(["background", *map(str, range(COLOURS))]).tolist(),
        "table": json.loads(TABLE_FACTS.read_text()),
        "photos": {name: photo._asdict() for name, photo in PHOTOS.items()},
        "bytes": {os.path.relpath(path, path.parents[1]): path.stat().st_size for path in loaded},
        "made_of": {
            "encoder": backbone.digest,
            "texts": backbone.text_digest,
            "decoder": model.trained,
            "mgca": importlib.metadata.version("mgca"),
        },
    }
    write_text(BUILT / "about.json", json.dumps(about, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-table", action="store_true", help="take the table as it is")
    arguments = parser.parse_args()
    model = mgca.load("lite")
    BUILT.mkdir(parents=True, exist_ok=True)
    if not (arguments.no_table or table_is_current(model)):
        write_table(model)
    write_network(model)
    write_photos(model)
    write_about(model)


if __name__ == "__main__":
    main()
