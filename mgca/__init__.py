"""Multi-grained cross-modal alignment: open-vocabulary segmentation from captions.

>>> import mgca
>>> model = mgca.load("lite")  # doctest: +SKIP
>>> model.segment("photo.jpg", ["cat", "a wooden table"]).overlay()  # doctest: +SKIP

Submodules are imported when first used, so that ``import mgca`` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgca.inference.segmentation import Segmentation as Segmentation
    from mgca.model import Model as Model
    from mgca.model import load as load

__version__ = "0.1.0"

_FROM = {"load": "mgca.model", "Model": "mgca.model", "Segmentation": "mgca.inference.segmentation"}
_MODULES = (
    "ablation_page",
    "ablations",
    "align",
    "backbone",
    "background",
    "batches",
    "benchmarks",
    "boundary",
    "captions",
    "catalogue",
    "clip",
    "config",
    "correspondence",
    "data",
    "decoder",
    "distributed",
    "doctor",
    "engine",
    "estimate",
    "evaluate",
    "explain",
    "export",
    "features",
    "figures",
    "flops",
    "formats",
    "groupvit",
    "harness",
    "hub",
    "images",
    "interactive",
    "losses",
    "measure",
    "metrics",
    "monitor",
    "others",
    "outputs",
    "pairwise",
    "photos",
    "prompts",
    "report",
    "resources",
    "results",
    "runs",
    "scales",
    "scenes",
    "score_map",
    "shards",
    "step",
    "tcl",
    "timing",
    "train",
    "units",
    "variants",
    "weights",
    "windows",
)

__all__ = [*_FROM, "__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"mgca.{name}")
    raise AttributeError(f"module 'mgca' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
