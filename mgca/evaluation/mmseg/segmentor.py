"""A model of this project as a segmentor of mmsegmentation."""

from collections.abc import Sequence

import torch
from mmengine.structures import PixelData
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mgca.evaluation.evaluate import unit_name
from mgca.model import Model, load


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
        temperature, rule: As in :meth:`mgca.model.Model.segment`.
        data_preprocessor: By default that of images as OpenCV loads them, BGR; for RGB give
            ``dict(type="SegDataPreProcessor")``.
        pretrained, train_cfg: Without effect; mmsegmentation's ``init_model`` gives them to all.
    """

    def __init__(
        self,
        model: Model | dict,
        classes: Sequence[str],
        units: Sequence[int | None] = (36,),
        background: float | None = None,
        temperature: float | None = None,
        rule: str = "softmax",
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
        """Not here: the decoder learns from captions, :class:`mgca.training.trainer.Trainer`."""
        raise TypeError("this model is not trained on masks: see mgca.training.trainer")
