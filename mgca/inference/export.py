"""The dense model as an ONNX file, for programs without PyTorch.

The file takes normalised windows (n, 3, H, W) and gives their pixel embeddings (n, C, 2h, 2w): both
encoder and decoder, ``P = D(E_v(x))`` of Eq. 1, for any number of windows of one size. What else
inference needs, the statistics of the pixels and where the weights come from, is in the file's
metadata; class embeddings are made once with :func:`mgca.prompts.class_embeddings`.
"""

import importlib.metadata
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from mgca.inference.segmenter import Segmenter
from mgca.utils.files import replacing

INPUT, OUTPUT = "windows", "pixels"
LICENCE = (
    "Code: Apache-2.0. The weights have the terms of the encoder and of the data that they were "
    "trained on."
)
# Bytes of one file, by the format it is written in.
_LIMIT = 2**31


class Dense(nn.Module):
    """Encoder and decoder of a model as one network."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.decoder = nn.Identity() if model.decoder is None else model.decoder

    def forward(self, windows: Tensor) -> Tensor:  # (n, 3, H, W) -> (n, C, 2h, 2w)
        return self.decoder(self.backbone.dense(windows))


def export_onnx(
    model: Segmenter, path: str | os.PathLike, *, size: int | None = None, run: str = ""
) -> Path:
    """Write the dense model to an ONNX file, which appears complete and checked, or not at all.

    Args:
        model: The model; without a decoder the file gives the backbone's dense features,
            (n, C, h, w).
        path: Name of the file.
        size: Side of the windows, a multiple of the backbone's stride; by default the model's own.
        run: Hash of the configuration that trained the decoder, kept in the metadata.

    Raises:
        ImportError: Without the packages of the extra ``onnx``.
        ValueError: If the size does not fit the backbone, the network is too large for one file, or
            its code fixes the number of windows.
        OSError: If the file cannot be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401, which torch.onnx needs
    except ImportError as error:
        raise ImportError('export needs more packages: pip install "mgca[onnx]"') from error
    side = size or model.config.window
    stride = model.backbone.stride
    if side < stride or side % stride:
        raise ValueError(f"size must be a multiple of {stride}, not {side}")
    network = Dense(model).eval()
    with replacing(path) as temporary:
        program = _program(network, side)
        weights = sum(
            value.const_value.nbytes for value in program.model.graph.initializers.values()
        )
        if weights >= _LIMIT:
            raise ValueError(f"{weights / 2**30:.1f} GiB of weights do not fit a file of 2 GiB")
        for key, value in metadata(model, side, run).items():
            program.model.metadata_props[key] = value
        program.save(temporary)
        onnx.checker.check_model(os.fspath(temporary), full_check=True)
    return Path(path)


def metadata(model: Segmenter, size: int, run: str = "") -> dict[str, str]:
    """The file's metadata: how pixels are prepared, and where the weights come from."""
    backbone = model.backbone
    return {
        "name": backbone.name,
        "mean": " ".join(f"{value:.8g}" for value in backbone.mean),
        "std": " ".join(f"{value:.8g}" for value in backbone.std),
        "size": str(size),
        "stride": str(backbone.stride),
        "temperature": f"{backbone.temperature:.8g}",
        "backbone_digest": backbone.digest,
        "text_digest": backbone.text_digest,
        "decoder": "none" if model.trained is None else str(model.trained[0]),
        "decoder_run": run,
        "mgca_version": importlib.metadata.version("mgca"),
        "licence": LICENCE,
    }


@torch.no_grad()
def _program(network: Dense, side: int) -> torch.onnx.ONNXProgram:
    """The network in ONNX, for any number of windows of one size."""
    like = next(network.parameters())
    # Two windows: one would be taken for a constant.
    example = torch.zeros(2, 3, side, side, device=like.device, dtype=like.dtype)
    with warnings.catch_warnings():
        # Of torch's own internals, about which a user can do nothing.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("n")},),
        )
    # Where an encoder asks for the number as an integer, torch takes it for a constant.
    if isinstance(program.model.graph.inputs[0].shape[0], int):
        raise ValueError(
            f"{network.backbone.name} cannot be exported for any number of windows: its code "
            "fixes the number when it is traced"
        )
    return program
