"""What tables and figures of the book call the lines of results: one name for one model.

Results name their lines as commands do, ``maskclip`` or ``alpha_neg=0.05,no pixel``. The glossary
has the names that readers see. At the photos scale the encoder has no last block to change: its
dense features have one name, whatever a table calls them.
"""

import re
from collections.abc import Iterable

import pandas as pd

PLAIN, MASKCLIP, ALONE = "plain CLIP", "MaskCLIP", "alignment alone"
_MODELS = {
    **{"baseline": PLAIN, "clip": PLAIN, "maskclip": MASKCLIP, "dense": MASKCLIP},
    **{"sclip": "SCLIP", "clearclip": "ClearCLIP", "naclip": "NACLIP"},
    **{"tcl": "TCL's loss", "mgca": "MGCA", "alignment": ALONE},
    **{"object": "object", "region": "region", "pixel": "pixel"},
    **{"object+region": "object + region", "all": "all three (MGCA)"},
    **{"image": "image level", "decoder": "decoder on top"},
    "tcl, its own background": "TCL's loss, own background",
}
_OF_LITE = {"baseline": ALONE, "clip": ALONE, "dense": ALONE}
_PARAMETERS = {
    "alpha": "object area {}",
    "alpha_neg": "negative area {}",
    "k": "positive at k = {}",
    "k_neg": "negative at k = {}",
    "upsample": "upsampling: {}",
    "optimizer": "optimiser: {}",
    "captions": "texts: {} only",
    "measure": "similarity: {}",
    "detach_weights": "weights without gradient",
    "direction": "contrast from {}s only",
    "placement": "meta-points: {}",
    "average": "mean of {} embeddings",
}


def worded(name: str, scale: str = "") -> str:
    """The name of a line as readers see it; a name that is not known stays as it is.

    Args:
        name: Name of a variant, as results have it.
        scale: Name of the scale.
    """
    block, plus, on_top = name.partition("+")
    if plus and on_top == "mgca":
        return f"MGCA on {worded(block, scale)}"
    parameter = re.fullmatch(r"(\w+)=([^,]+)(,no pixel)?", name)
    if parameter and parameter[1] in _PARAMETERS:
        without = ", without pixel level" if parameter[3] else ""
        return _PARAMETERS[parameter[1]].format(parameter[2]) + without
    models = _MODELS | (_OF_LITE if scale.startswith("photos") else {})
    return models.get(name, name)


def relabelled(table: pd.DataFrame, scale: str = "") -> pd.DataFrame:
    """A table with the names of its lines as readers see them, in index, columns or cells.

    Args:
        table: A table in which a level of the index or of the columns, or a column, is called
            ``variant``.
        scale: Name of the scale.
    """
    table = table.copy()
    if "variant" in table.columns:
        table["variant"] = _all(table["variant"], scale)
    for axis in ("index", "columns"):
        names = getattr(table, axis).names
        if "variant" in names:
            level = names.index("variant")
            every = getattr(table, axis).get_level_values(level).unique()
            mapping = dict(zip(every, _all(every, scale), strict=True))
            table = table.rename(**{axis: mapping}, level=level if len(names) > 1 else None)
            called = ["model" if name == "variant" else name for name in names]
            table = table.rename_axis(**{axis: called})
    return table


def _all(names: Iterable[str], scale: str) -> list[str]:
    return [worded(name, scale) for name in names]
