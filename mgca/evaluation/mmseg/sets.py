"""Sets as mmsegmentation reads them, with errors that name the file."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS
from mmseg.structures import SegDataSample
from torch.utils.data import Dataset

from mgca.data.benchmarks.files import read_ids
from mgca.data.masks import DataError, MaskedSet, id_names
from mgca.utils.images import open_image

# Of the sets of mmsegmentation. No Resize: the model does that itself. With their scope, types are
# found before a Runner has set one.
PIPELINE = [{"type": f"mmseg.{name}"} for name in ("OpenImage", "OpenMask", "PackSegInputs")]


@TRANSFORMS.register_module()
class OpenImage(BaseTransform):
    """An image as RGB, as :func:`mgca.utils.images.open_image` reads it.

    In place of mmcv's ``LoadImageFromFile``, which does not say which file it could not read.
    """

    def transform(self, results: dict) -> dict:
        image = np.array(open_image(results["img_path"]))
        shape = image.shape[:2]
        return {**results, "img": image, "img_shape": shape, "ori_shape": shape}


@TRANSFORMS.register_module()
class OpenMask(LoadAnnotations):
    """mmsegmentation's mask of class ids, after checks.

    Raises:
        FileNotFoundError: If it is missing.
        DataError: If it cannot be read, does not hold one 8-bit id per pixel, or is not of the size
            of its image.
    """

    def __init__(self, **options) -> None:
        super().__init__(imdecode_backend="pillow", **options)

    def transform(self, results: dict) -> dict:
        path = results["seg_map_path"]
        ids, expected = read_ids(path), tuple(results["img_shape"])
        if ids.shape != expected:
            raise DataError(f"{path}: the mask is {ids.shape}, its image {expected}")
        if not 0 <= ids.min() <= ids.max() <= 255:  # mmsegmentation would take them modulo 256
            raise DataError(f"{path}: the mask has ids up to {ids.max()}, beyond 8 bits")
        return super().transform(results)


@DATASETS.register_module()
class MaskedImages(Dataset):
    """A set of this project, such as one of the scenes or a folder, as one of mmsegmentation.

    Args:
        data: The set.
    """

    def __init__(self, data: MaskedSet) -> None:
        self.data = data
        self.metainfo = {"classes": id_names(data)}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict:
        """An RGB image (3, H, W) uint8 and a sample with its mask (1, H, W) int64."""
        identifier, image, mask = self.data[index]
        sample = SegDataSample(
            gt_sem_seg=PixelData(data=torch.from_numpy(mask.astype(np.int64))[None]),
            metainfo={
                "img_path": identifier,
                "seg_map_path": f"the mask of {identifier}",
                "img_shape": (image.height, image.width),
                "ori_shape": (image.height, image.width),
            },
        )
        return {
            "inputs": torch.from_numpy(np.array(image)).permute(2, 0, 1),
            "data_samples": sample,
        }
