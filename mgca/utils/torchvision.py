"""Let torchvision import beside a torch build it was not linked against.

The only torchvision wheel on PyPI is linked against CUDA. Beside a CPU build of torch its
compiled operators cannot be loaded, and ``import torchvision`` then fails with ``operator
torchvision::nms does not exist``, because it registers a fake kernel for operators that were
never defined. open_clip and timm import torchvision for its transforms only, so it is enough to
define the two schemas it looks for. On a machine where the compiled operators load, nothing is
done.
"""

import importlib.util
import sys
from pathlib import Path

# Kept for the life of the process: a torch Library takes its operators with it when it goes.
_library = None

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def make_importable() -> bool:
    """Define torchvision's operator schemas where its compiled library does not load.

    Must run before the first ``import torchvision`` (or open_clip, or timm). Safe to call again.

    Returns:
        True if the schemas were defined here, False if there was nothing to mend.
    """
    global _library
    if _library is not None:
        return True
    if "torchvision" in sys.modules:
        return False
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for shared in sorted(Path(spec.origin).parent.glob("_C*.so")):
        try:
            torch.ops.load_library(str(shared))
        except OSError:
            continue
        return False
    if hasattr(torch.ops.torchvision, "nms"):
        return False
    _library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        _library.define(schema)
    return True
