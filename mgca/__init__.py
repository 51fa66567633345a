"""Multi-grained cross-modal alignment: open-vocabulary segmentation from captions.

>>> import mgca
>>> model = mgca.load("lite")  # doctest: +SKIP
>>> model.segment("photo.jpg", ["cat", "a wooden table"]).overlay()  # doctest: +SKIP

Rooms and modules are imported when first used, so that ``import mgca`` is quick.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgca.inference.segmentation import Segmentation as Segmentation
    from mgca.model import Model as Model
    from mgca.model import load as load

__version__ = "0.1.0"

_FROM = {
    "load": "mgca.model",
    "Model": "mgca.model",
    "Segmentation": "mgca.inference.segmentation",
}

__all__ = [*_FROM, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name]), name)
    if not name.startswith("_") and importlib.util.find_spec(f"mgca.{name}"):
        return importlib.import_module(f"mgca.{name}")
    raise AttributeError(f"module 'mgca' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
