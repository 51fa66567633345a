"""Scales, grids and runs: what the tables compare, and how it is computed.

:func:`load_scale` gives a scale, :func:`mgca.experiments.grid.grid` the rows of a table, and
:func:`mgca.experiments.runner.run_ablations` computes what is missing of it.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mgca.experiments.scale import Scale


def load_scale(
    name: str,
    *,
    data: str | os.PathLike | None = None,
    cache: str | os.PathLike | None = None,
) -> "Scale":
    """A scale by its name.

    Args:
        name: Name of the scale, ``"scenes"``, ``"photos"`` or ``"photos-hybrid"``, the photos with
            another encoder.
        data: Folder of the real data sets, as in :func:`mgca.data.masks.data_root`; the scenes
            need none.
        cache: Folder of features, as in :func:`mgca.utils.files.cache_folder`.

    Raises:
        NotRun: For ``"paper"``.
        ValueError: For an unknown name.
        FileNotFoundError: If the data folder given does not exist.
    """
    if name in ("photos", "photos-hybrid"):
        from mgca.experiments.photos import HybridScale, PhotosScale

        return (PhotosScale if name == "photos" else HybridScale)(data, cache)
    if name == "scenes":
        from mgca.experiments.scenes import ScenesScale

        return ScenesScale(cache)
    if name == "paper":
        from mgca.experiments.scale import NotRun

        raise NotRun(
            "the paper scale is not run: it needs OpenAI's weights of CLIP ViT-B/16, the 2.9 "
            "million pairs of CC3M (shards pixparse/cc3m-wds), the validation sets of VOC 2012, "
            "Pascal Context, COCO 2017 with COCO-Stuff, Cityscapes and ADE20K, and four GPUs of "
            "24 GiB, as the paper had, for each of its 15-epoch runs. Use the scales 'scenes' or "
            "'photos'"
        )
    raise ValueError(f"unknown scale {name!r}, only scenes, photos, photos-hybrid and paper")
