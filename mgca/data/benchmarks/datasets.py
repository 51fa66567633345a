"""Data sets that mmsegmentation lacks, in its registry.

Importing this module imports mmsegmentation.
"""

import contextlib
import io

from mgca.utils.torchvision import make_importable

make_importable()

# Its "Could not import OneDL" is about a service that is not used here, and would stand in the
# midst of what a command prints for machines.
with contextlib.redirect_stdout(io.StringIO()):
    from mmseg.datasets import BaseSegDataset, COCOStuffDataset, PascalVOCDataset
    from mmseg.registry import DATASETS

_VOC = PascalVOCDataset.METAINFO
_COCO = COCOStuffDataset.METAINFO
_THINGS = 80  # come first among the classes of COCO-Stuff


@DATASETS.register_module()
class PascalVOC20Dataset(BaseSegDataset):
    """PASCAL VOC without background: ids 1 to 20 become 0 to 19, 0 and 255 are ignored."""

    METAINFO = {"classes": _VOC["classes"][1:], "palette": _VOC["palette"][1:]}

    def __init__(self, img_suffix=".jpg", seg_map_suffix=".png", reduce_zero_label=True, **kwargs):
        super().__init__(
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            reduce_zero_label=reduce_zero_label,
            **kwargs,
        )


@DATASETS.register_module()
class COCOObjectDataset(BaseSegDataset):
    """COCO's 80 things: 0 is background, 1 to 80 the things in COCO's order."""

    METAINFO = {
        "classes": ("background", *_COCO["classes"][:_THINGS]),
        "palette": [[0, 0, 0], *_COCO["palette"][:_THINGS]],
    }

    def __init__(self, img_suffix=".jpg", seg_map_suffix="_instanceTrainIds.png", **kwargs):
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


def class_names(dataset: str) -> tuple[str, ...]:
    """The class names of a registered data set.

    Raises:
        ValueError: If the installed mmsegmentation has no such data set.
    """
    kind = DATASETS.get(dataset)
    if kind is None:
        raise ValueError(f"the installed mmsegmentation has no data set {dataset}")
    return tuple(kind.METAINFO["classes"])
