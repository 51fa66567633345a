"""What mmsegmentation needs to see of this project, and its metric as a counter of our loop.

Importing this registers, with mmsegmentation, the segmentor :class:`OpenVocabulary`, the transforms
:class:`OpenImage` and :class:`OpenMask`, the set :class:`MaskedImages`, the metric
:class:`UnitIoU`, and the data sets of :mod:`mgca.data.benchmarks.datasets`, so that a configuration
of mmsegmentation's own tools needs one line more::

    custom_imports = dict(imports=["mgca.evaluation.mmseg"])

It needs the extra ``benchmarks``.
"""

import contextlib
import io
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mgca.data.benchmarks.files import read_ids
from mgca.data.masks import DataError, MaskedSet, id_names
from mgca.evaluation.evaluate import unit_name
from mgca.evaluation.metrics import Confusion
from mgca.inference.scoring import SOFTMAX
from mgca.model import Model, load
from mgca.utils import torchvision
from mgca.utils.images import open_image

torchvision.make_importable()

try:
    # mmsegmentation prints that it lacks the client of a commercial service, and mmcv warns that
    # its lite edition lacks an operator. Neither is used here, nor anything to be done about.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmcv.transforms import BaseTransform
        from mmengine.structures import PixelData
        from mmseg.datasets.transforms import LoadAnnotations
        from mmseg.evaluation.metrics import IoUMetric
        from mmseg.models.data_preprocessor import SegDataPreProcessor
        from mmseg.models.segmentors.base import BaseSegmentor
        from mmseg.registry import DATASETS, METRICS, MODELS, TRANSFORMS
        from mmseg.structures import SegDataSample

        from mgca.data.benchmarks.datasets import COCOObjectDataset, PascalVOC20Dataset
except ModuleNotFoundError as error:
    raise ImportError(
        f"benchmarks need mmsegmentation ({error}): pip install 'mgca[benchmarks]'"
    ) from error

__all__ = [
    "Areas",
    "COCOObjectDataset",
    "MaskedImages",
    "OpenImage",
    "OpenMask",
    "OpenVocabulary",
    "PascalVOC20Dataset",
    "UnitIoU",
]

# Of the sets of mmsegmentation. No Resize: the model does that itself. With their scope, types are
# found before a Runner has set one.
PIPELINE = [{"type": f"mmseg.{name}"} for name in ("OpenImage", "OpenMask", "PackSegInputs")]
# mmsegmentation counts pixels in float32, and adds two counts: exact up to 16 million.
_EXACT = 2**23
_NAMES = ("intersection", "union", "prediction", "truth")


@MODELS.register_module()
class OpenVocabulary(BaseSegmentor):
    """Segments with any class names, as mmsegmentation's tools expect it.

    The model resizes, slides its window and resizes back itself: a test pipeline must not.

    Args:
        model: A :class:`~mgca.model.Model`, or the arguments of :func:`mgca.load`.
        classes: Names that are asked for, without "background".
        units: Numbers of meta-points, None for the pixel unit. The first is the prediction,
            ``pred_sem_seg``; all are there as ``pred_<unit>``.
        background: Threshold of the background, which takes id 0; None without background.
        temperature: Temperature of the softmax, as in :meth:`mgca.model.Model.segment`.
        rule: Name of the rule that makes probabilities, as in :meth:`mgca.model.Model.segment`.
        data_preprocessor: By default that of images as OpenCV loads them, BGR; for RGB give
            ``dict(type="SegDataPreProcessor")``.
        pretrained: Without effect; mmsegmentation's ``init_model`` gives it to all.
        train_cfg: Without effect, likewise.
    """

    def __init__(
        self,
        model: Model | dict,
        classes: Sequence[str],
        units: Sequence[int | None] = (36,),
        background: float | None = None,
        temperature: float | None = None,
        rule: str = SOFTMAX,
        data_preprocessor: dict | SegDataPreProcessor | None = None,
        pretrained: None = None,
        train_cfg: None = None,
    ) -> None:
        super().__init__(data_preprocessor or SegDataPreProcessor(bgr_to_rgb=True))
        self.model = load(**model) if isinstance(model, dict) else model
        # Registered, so that moving the segmentor to a device moves the networks.
        self.networks = nn.ModuleList(self.model.networks)
        self.classes, self.units = list(classes), tuple(units)
        self.background, self.temperature, self.rule = background, temperature, rule
        self.align_corners = False
        self.num_classes = len(self.classes) + (background is not None)

    @torch.inference_mode()
    def predict(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Labels of RGB images (n, 3, H, W) of values 0 to 255, as ``pred_sem_seg`` (1, H, W)."""
        data_samples = data_samples or [SegDataSample() for _ in inputs]
        for image, sample in zip(inputs, data_samples, strict=True):
            # A batch is padded at the bottom and right to its largest image.
            height, width = sample.metainfo.get("img_shape", image.shape[1:])[:2]
            embedded = self.model.embed(image[:, :height, :width].round().to(torch.uint8))
            for unit in self.units:
                labels = self.model.segment(
                    embedded, self.classes, unit, self.background, self.temperature, self.rule
                ).labels
                sample.set_data({f"pred_{unit_name(unit)}": PixelData(data=labels[None])})
            sample.set_data({"pred_sem_seg": sample.get(f"pred_{unit_name(self.units[0])}")})
        return data_samples

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """The backbone's dense features of normalised images (n, 3, H, W)."""
        return self.model.backbone.dense(inputs)

    def encode_decode(self, inputs: Tensor, batch_data_samples: list[SegDataSample]) -> Tensor:
        """Scores (1, K, H, W) of an RGB image (1, 3, H, W) of values 0 to 255."""
        segmentation = self.model.segment(
            inputs[0].round().to(torch.uint8),
            self.classes,
            self.units[0],
            self.background,
            self.temperature,
            self.rule,
        )
        return segmentation.scores[None]

    def _forward(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        return self.predict(inputs, data_samples)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict:
        """Not here: the decoder learns from captions, by ``mgca train``."""
        raise TypeError("this model is not trained on masks: see mgca train")


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


class Areas:
    """mmsegmentation's count of pixels, as a counter of :func:`mgca.evaluation.evaluate.evaluate`.

    Args:
        classes: Number of classes ``K``, the background included.
        ignore: Id of pixels that do not count.

    Attributes:
        areas: (4, K) pixels of the intersection, the union, the prediction and the truth of each
            class.
    """

    tables = ("areas",)

    def __init__(self, classes: int, ignore: int = 255) -> None:
        self.ignore = ignore
        self.areas = np.zeros((4, classes), dtype=np.int64)

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count an image, maps (H, W) of class ids."""
        maps = (torch.from_numpy(ids.astype(np.int64)) for ids in (predicted, truth))
        self.areas += areas(*maps, self.areas.shape[1], self.ignore).long().numpy()

    def metrics(self, confusion: Confusion) -> dict[str, float]:
        """mmsegmentation's ``aAcc``, ``mIoU`` and ``mAcc`` in percent.

        Raises:
            RuntimeError: If its areas are not those of the confusion matrix of the same images.
        """
        totals = torch.from_numpy(self.areas).double()
        check_same(totals, confusion)
        found = IoUMetric.total_area_to_metrics(*totals)
        return {
            name if name == "aAcc" else f"m{name}": float(np.round(np.nanmean(value) * 100, 2))
            for name, value in found.items()
        }


@METRICS.register_module()
class UnitIoU(IoUMetric):
    """``IoUMetric`` on the prediction of one unit.

    Beside mmsegmentation's areas it keeps ``confusion``, of which this project's numbers come,
    and compares the two at the end.

    Args:
        unit: ``"pixel"`` or the number of meta-points.
        classes: Number of classes, the background included.
        options: Options of ``IoUMetric``.
    """

    def __init__(self, unit: str, classes: int, **options) -> None:
        super().__init__(prefix=unit, **options)
        self.unit = unit
        self.confusion = Confusion(classes, self.ignore_index)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch.

        Raises:
            DataError: If a mask has unknown ids, or another size than its image.
        """
        classes = len(self.confusion.counts)
        if not self.results:  # another test with the same metric, as after each epoch
            self.confusion = Confusion(classes, self.ignore_index)
        for sample in data_samples:
            predicted = sample[f"pred_{self.unit}"]["data"][0].cpu()
            truth = sample["gt_sem_seg"]["data"].squeeze(0).cpu()
            try:
                self.confusion.add(predicted.numpy(), truth.numpy())
            except ValueError as error:
                raise DataError(f"{sample.get('seg_map_path', 'a mask')}: {error}") from error
            self.results.append(tuple(areas(predicted, truth, classes, self.ignore_index)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """mmsegmentation's ``aAcc``, ``mIoU`` and ``mAcc`` in percent, and this project's ``miou``.

        Raises:
            RuntimeError: If mmsegmentation's areas are not those of the confusion matrix.
        """
        check_same(
            torch.stack([sum(areas) for areas in zip(*results, strict=True)]), self.confusion
        )
        return super().compute_metrics(results) | {"miou": self.confusion.miou}


def areas(predicted: Tensor, truth: Tensor, classes: int, ignore: int) -> Tensor:
    """Intersection, union, prediction and truth (4, K) of the classes in an image, counted by
    mmsegmentation; as float64, which holds them exactly.

    Args:
        predicted: (H, W) class ids.
        truth: (H, W) class ids.
        classes: Number of classes ``K``.
        ignore: Id in the truth of pixels that do not count.
    """
    rows = max(1, _EXACT // predicted.shape[-1])  # in bands, where an image has many pixels
    return sum(
        torch.stack(IoUMetric.intersect_and_union(band, true, classes, ignore)).double()
        for band, true in zip(predicted.split(rows), truth.split(rows), strict=True)
    )


def check_same(totals: Tensor, confusion: Confusion) -> None:
    """Refuse areas (4, K) that are not those of a confusion matrix.

    Raises:
        RuntimeError: If they differ; the message says in what.
    """
    counts = torch.from_numpy(confusion.counts)
    hit, predicted, truth = counts.diagonal(), counts.sum(0), counts.sum(1)
    for name, found, own in zip(
        _NAMES, totals, (hit, predicted + truth - hit, predicted, truth), strict=True
    ):
        if not torch.equal(found, own.double()):
            raise RuntimeError(f"two counts of the {name} of each class differ: {found}, {own}")
