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
    config: str | os.PathLike | None = None,
) -> "Scale":
    """A scale by its name.

    Args:
        name: Name of the scale, ``"scenes"``, ``"photos"`` or ``"paper"``.
        data: Folder of the real data sets, as in :func:`mgca.data.masks.data_root`; the scenes
            need none.
        cache: Folder of features, as in :func:`mgca.utils.files.cache_folder`.
        config: File that describes ``"paper"``, as
            :func:`mgca.experiments.paper_file.read_paper_file` reads it.

    Raises:
        NotRun: For ``"paper"`` without a file.
        ValueError: For an unknown name, or a file that is wrong or of no use to the scale.
        FileNotFoundError: If the data folder or the file given does not exist.
    """
    if config and name != "paper":
        raise ValueError(f"a configuration is for the scale paper, not for {name}")
    if name == "photos":
        from mgca.experiments.photos import PhotosScale

        return PhotosScale(data, cache)
    if name == "scenes":
        from mgca.experiments.scenes import ScenesScale

        return ScenesScale(cache)
    if name == "paper":
        if config:
            from mgca.experiments.paper import PaperScale
            from mgca.experiments.paper_file import read_paper_file

            return PaperScale(read_paper_file(config))
        from mgca.experiments.scale import NotRun

        raise NotRun(
            "the paper scale is what a file says, --config FILE: OpenAI's weights of CLIP "
            "ViT-B/16, the 2.9 million pairs of CC3M (shards pixparse/cc3m-wds), the validation "
            "sets of VOC 2012, Pascal Context, COCO 2017 with COCO-Stuff, Cityscapes and ADE20K, "
            "and GPUs; nothing of it comes with the project. 'mgca reproduce' shows an example. "
            "Without them use the scales 'scenes' or 'photos'"
        )
    raise ValueError(f"unknown scale {name!r}, only scenes, photos and paper")
