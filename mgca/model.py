"""A backbone and a decoder, ready to segment: ``mgca.load(...).segment(image, classes)``."""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mgca.backbone import Backbone, check_known, load_backbone
from mgca.backbone.affinity import affinity_of
from mgca.backbone.base import state_digest
from mgca.backbone.lite import own_alignment, take_alignment
from mgca.config import BACKGROUND, PRECISIONS, SegmentConfig, grid_side
from mgca.decoder import GatedConvDecoder
from mgca.inference.refine import refined
from mgca.inference.score_map import ScoreMap
from mgca.inference.scoring import (
    SIGMOID,
    SOFTMAX,
    Rule,
    against_rest,
    largest_of_words,
    rest_of,
    rules,
)
from mgca.inference.segmentation import Segmentation
from mgca.inference.segmenter import Embedded, check_background
from mgca.inference.windows import cut_windows, resize, window_boxes
from mgca.prompts import CLASS_TEMPLATES, ClassWords, check_words, class_embeddings
from mgca.units import semantic_units
from mgca.utils.devices import pick_device
from mgca.utils.files import write_text
from mgca.utils.images import ImageSource, open_image, to_tensor
from mgca.weights import HEADS, WeightsError, hub, load_weights, manifest, saved
from mgca.weights.decoders import decoder_from, learned_sigmoid, read_decoder

_WINDOWS_AT_ONCE = 4
_SAME = 1 - 1e-6  # cosine of two texts that are one, rounding aside
_UNSET: Any = object()


class Model:
    """A model for open-vocabulary segmentation: a frozen backbone and, on top of it, a decoder.

    Args:
        backbone: Frozen encoders of images and texts.
        decoder: The trained decoder, or None to use the backbone's dense features as they are.
        config: Sliding window and units; by default the paper's, at the backbone's own window.
        scoring: Rules by which scores become probabilities, by name, as
            :func:`mgca.inference.scoring.rules` gives them; by default the softmax, and the
            sigmoid that the backbone was trained with, if it was.

    Attributes:
        pretrained: Weights of the backbone, as in :func:`mgca.backbone.load_backbone`.
        precision: Number format of the products and convolutions of image encoder and decoder:
            ``"float32"``; ``"bfloat16"``, about half the time; or ``"float16"``, for GPUs. May be
            set.
        templates: Sentences that the words of classes are put into. May be set.
    """

    pretrained: bool | str = True
    templates: Sequence[str] = CLASS_TEMPLATES
    _precision: str = "float32"

    def __init__(
        self,
        backbone: Backbone,
        decoder: GatedConvDecoder | None = None,
        config: SegmentConfig | None = None,
        scoring: Mapping[str, Rule] | None = None,
    ) -> None:
        self.backbone = backbone
        self.decoder = decoder.requires_grad_(False).eval() if decoder is not None else None
        self.config = config or _usual(backbone)
        self.scoring = dict(scoring or rules(backbone.sigmoid))
        self._affinity: tuple[str, Callable[[Tensor], Tensor]] | None = None
        self._texts: dict[tuple[tuple[str, ...], tuple[str, ...]], Tensor] = {}

    @property
    def precision(self) -> str:
        return self._precision

    @precision.setter
    def precision(self, name: str) -> None:
        if name not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {name!r}")
        self._precision = name

    @torch.inference_mode()
    def embed(self, image: ImageSource) -> Embedded:
        """Pixel embeddings of an image, to be segmented with any classes and units.

        Raises:
            FileNotFoundError, ImageError: As :func:`mgca.utils.images.open_image`.
        """
        geometry, windows = self.windows(image)
        pixels = self.pixels(self.features(windows))
        return dataclasses.replace(geometry, pixels=pixels, affinity=self.affinity(windows))

    def windows(self, image: ImageSource) -> tuple[Embedded, Tensor]:
        """The geometry of an image's windows, and the normalised windows (n, 3, h, w) themselves.

        The first is an :class:`~mgca.inference.segmenter.Embedded` whose ``pixels`` are still
        empty.
        """
        original = open_image(image)
        resized = resize(original, self.config)
        tensor = to_tensor(resized, self.backbone.mean, self.backbone.std)
        size = (resized.height, resized.width)
        boxes = window_boxes(*size, self.config.window, self.config.stride)
        windows = cut_windows(tensor, boxes, self.backbone.stride, self.config.padding)
        padded = (windows.shape[-2], windows.shape[-1])
        joined = (self.config.blend, self.config.padding)
        return Embedded(original, size, boxes, padded, torch.empty(0), *joined), windows

    def rule_named(self, name: str) -> Rule:
        """One of ``scoring``.

        Raises:
            ValueError: If the model does not have it.
        """
        if name not in self.scoring:
            raise ValueError(
                f"rule {name!r} is not one of this model's ({', '.join(self.scoring)}): 'sigmoid' "
                "is for decoders trained with TCL's objective and models that learned with a "
                "sigmoid, 'groupvit' for GroupViT"
            )
        return self.scoring[name]

    @torch.inference_mode()
    def features(self, windows: Tensor) -> Tensor:
        """Features (n, F, h, w) of the frozen trunk, a few windows at a time."""
        device = next(self.backbone.parameters()).device
        parts = torch.split(windows, _WINDOWS_AT_ONCE)
        self.backbone.positions = self.config.positions
        with self._autocast(device):
            return torch.cat([self.backbone.features(part.to(device)) for part in parts])

    @torch.inference_mode()
    def pixels(self, features: Tensor) -> Tensor:
        """Pixel embeddings (n, C, H', W') from the trunk's features."""
        with self._autocast(features.device):
            parts = [self.backbone.project(f) for f in torch.split(features, _WINDOWS_AT_ONCE)]
            if self.decoder is not None:
                parts = [self.decoder(part) for part in parts]
        # Similarities, units and labels are computed in float32 all the same.
        return torch.cat(parts) if self.precision == "float32" else torch.cat(parts).float()

    @torch.inference_mode()
    def affinity(self, windows: Tensor) -> Tensor | None:
        """The map (n, A, h, w) that the configuration groups pixels in; None for their embeddings.

        Args:
            windows: (n, 3, H, W) normalised windows.
        """
        grouping = self.grouping
        if grouping is None:
            return None
        device = next(self.backbone.parameters()).device
        parts = torch.split(windows, _WINDOWS_AT_ONCE)
        return torch.cat([grouping(part.to(device)) for part in parts])

    @property
    def grouping(self) -> Callable[[Tensor], Tensor] | None:
        """What makes the map of :meth:`affinity`, loaded where it is asked for first; or None.

        Raises:
            ValueError, UnsupportedBackbone, BackboneUnavailable: As
                :func:`mgca.backbone.affinity.affinity_of`.
        """
        name = self.config.affinity
        if not name:
            return None
        if self._affinity is None or self._affinity[0] != name:
            self._affinity = (name, affinity_of(name, self.backbone))
        return self._affinity[1]

    def _autocast(self, device: torch.device) -> torch.autocast:
        kind: torch.dtype = getattr(torch, self.precision)
        return torch.autocast(device.type, kind, enabled=kind != torch.float32)

    def texts(self, classes: ClassWords) -> Tensor:
        """Embeddings (K, C) of the classes; those of the last lists asked for are kept.

        Where classes have several words, those (W, C) of the words, class by class, unless the
        configuration takes their mean.

        Raises:
            ValueError: For names that :func:`mgca.prompts.check_words` refuses, and for words of
                two classes that the text encoder cannot tell apart: they would share the
                probability, and neither would reach a threshold.
        """
        words = check_words(classes)
        counts = [len(several) for several in words.values()]
        every = tuple(word for several in words.values() for word in several)
        key = (every, tuple(self.templates))
        if key not in self._texts:
            embeddings = class_embeddings(self.backbone, every, self.templates)
            _check_apart(every, embeddings, counts)
            if len(self._texts) >= 8:
                self._texts.pop(next(iter(self._texts)))
            self._texts[key] = embeddings
        embeddings = self._texts[key]
        if self.config.words == "mean" and len(counts) < len(every):
            means = [part.mean(dim=0) for part in torch.split(embeddings, counts)]
            return F.normalize(torch.stack(means), dim=-1)
        return embeddings

    @torch.inference_mode()
    def segment(
        self,
        image: ImageSource | Embedded,
        classes: ClassWords,
        meta_points: int | None = _UNSET,
        background: float | Mapping[str, float] | None = None,
        temperature: float | None = None,
        rule: str = SOFTMAX,
        refine: str | None = None,
    ) -> Segmentation:
        """Name every pixel of an image with one of the classes.

        Args:
            image: The image as a path, the bytes of a file, a PIL image, an array, a tensor, or the
                result of :meth:`embed`.
            classes: Words or short phrases, such as "cat" or "a wooden table"; or, by the name of
                each class, the words that it stands for: ``{"sofa": ["sofa", "couch"]}``. Words of
                a class ``"background"`` are background, beside what the threshold leaves.
            meta_points: Square number of meta-points per window, or None for the pixel unit; the
                configuration's (36) by default. Windows with fewer pixels than that along a side
                get as many as fit.
            background: Threshold of the largest probability: a pixel where it is not above this is
                background. None: every pixel gets a class. One class alone is held against words
                for the rest, :data:`mgca.inference.scoring.REST`. Thresholds of single classes are
                given by name; a class without one is kept wherever it leads.
            temperature: Temperature of the softmax over classes; by default the one the backbone
                was trained with.
            rule: Name of the rule that makes probabilities, one of ``scoring``: ``"softmax"`` over
                the classes, or what the decoder has learned.
            refine: ``"pamr"`` to let the contours follow the image's own edges, which takes some
                seconds, or ``""`` for the scores as they are; the configuration's by default.

        Raises:
            FileNotFoundError, ImageError: If the image cannot be read.
            ValueError: For empty or repeated class names, numbers out of range, an unknown
                refinement, or a rule that the model does not have.
        """
        chosen = self.rule_named(rule)
        config = self.config if refine is None else dataclasses.replace(self.config, refine=refine)
        points = self.config.meta_points if meta_points is _UNSET else meta_points
        side = None if points is None else grid_side(points)
        words = check_words(classes)
        check_background(words, background)
        if background is not None and BACKGROUND in words:
            words = {BACKGROUND: words[BACKGROUND]} | words
        names = [name for name in words if background is None or name != BACKGROUND]
        # One class has nothing to be less likely than, so that its softmax is always 1.
        alone = chosen.softmax and background is not None and len(words) == 1
        if alone:
            words |= {other: (other,) for other in rest_of(names[0], *words[names[0]])}
        texts = self.texts(words)
        embedded = image if isinstance(image, Embedded) else self.embed(image)
        scores = self.scores(embedded.pixels, texts, side, **embedded.grouped)
        table = scores.table
        if len(texts) > len(words):
            table = largest_of_words(table, [len(several) for several in words.values()])
        scores = scores._replace(table=chosen.scores(table))
        if temperature is None:
            temperature = self.backbone.temperature
        if alone:
            scores = scores._replace(table=against_rest(scores.table, temperature))
        if alone or not chosen.softmax:
            temperature = None
        if config.refine:
            embedded, scores = refined(embedded, scores, temperature)
            temperature = None
        return Segmentation(embedded, names, scores, background=background, temperature=temperature)

    def to(self, device: str | torch.device) -> "Model":
        """Move the model to a device, such as ``"cuda"``, or ``"auto"``; returns the model itself.

        Raises:
            ValueError: If torch cannot compute on the device here.
        """
        chosen = pick_device(str(device))
        for network in self.networks:
            network.to(chosen)
        self._texts.clear()
        return self

    @property
    def networks(self) -> list[torch.nn.Module]:
        """The networks of the model, which :meth:`to` moves to a device: backbone and decoder."""
        return [self.backbone] if self.decoder is None else [self.backbone, self.decoder]

    @property
    def trained(self) -> list[Any] | None:
        """JSON data that names what is trained on top of the backbone; None without a decoder."""
        if self.decoder is None:
            return None
        learned = [value for rule in self.scoring.values() for value in rule.learned]
        return [state_digest(self.decoder), self.decoder.upsample, learned or None]

    def save(self, folder: str | os.PathLike[str], *, run: str = "") -> Path:
        """Write the trained parts of the model to a folder that :func:`load` takes.

        Args:
            folder: The folder, which is made if need be.
            run: Hash of the configuration that trained them, kept in the files.

        Raises:
            ValueError: If nothing of the model is trained.
            OSError: If a file cannot be written.
        """
        return saved.write(
            folder,
            self.backbone,
            self.config,
            pretrained=self.pretrained,
            decoder=self.decoder,
            sigmoid=self.scoring[SIGMOID].learned if SIGMOID in self.scoring else None,
            alignment=own_alignment(self.backbone),
            run=run,
        )

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        data: str = "",
        metrics: Mapping[str, float] | None = None,
        license: str | None = None,
        run: str = "",
    ) -> str:
        """Upload the trained parts of the model, with a model card, to a repository of the hub.

        The files are written to a temporary folder and loaded again from there first: what cannot
        be loaded, or is not the same model, is not uploaded.

        Args:
            repo: Name of the repository, ``"owner/name"``; it is made if need be.
            private: Whether a new repository is private; None for the owner's default.
            token: Token with the right to write; by default that of ``hf auth login`` or of
                ``$HF_TOKEN``.
            data: Name of the data it was trained on, for the card.
            metrics: Numbers by name, for the card.
            license: Licence of the weights, as the hub abbreviates it ("apache-2.0"); the card
                says so where none is given.
            run: Hash of the configuration that trained it.

        Returns:
            The ``hf://owner/name@commit`` that :func:`load` takes.

        Raises:
            ValueError: If nothing of the model is trained, or the name is not of that form.
            WeightsError: If the model could not be loaded again, such as one on other weights of
                the backbone than ``pretrained`` says.
            mgca.weights.hub.HubError: If it cannot be uploaded.
        """
        hub.check_repo(repo)
        with tempfile.TemporaryDirectory(prefix="mgca-") as folder:
            self.save(folder, run=run)
            again = _from_folder(folder)
            if again.trained != self.trained or again.config != self.config:
                raise WeightsError("what was written is not the model: it was not uploaded")
            card = saved.model_card(
                repo, folder, data=data, metrics=metrics or {}, license=license, run=run
            )
            write_text(Path(folder, "README.md"), card)
            return hub.upload(folder, repo, private=private, token=token)

    def scores(
        self, pixels: Tensor, texts: Tensor, side: int | None, affinity: Tensor | None = None
    ) -> ScoreMap:
        """Cosine similarities of the units of windows, or of their pixels, to the classes.

        Args:
            pixels: (n, C, H', W') pixel embeddings of the windows.
            texts: (K, C) unit vectors of the classes.
            side: Number of meta-points along each side of the grid, or None for the pixel unit.
            affinity: (n, A, h, w) map that the units are grouped in; it is resized to the pixels'.
        """
        if side is None:
            maps = torch.einsum("kc,nchw->nkhw", texts, F.normalize(pixels, dim=1))
            return ScoreMap.of_maps(maps)
        grid = (min(side, pixels.shape[2]), min(side, pixels.shape[3]))
        if affinity is not None:
            affinity = F.interpolate(
                affinity.float(), pixels.shape[-2:], mode="bilinear", align_corners=False
            )
        assignment, units = semantic_units(
            pixels,
            grid,
            placement=self.config.placement,
            average=self.config.average,
            affinity=affinity,
        )
        table = F.normalize(units, dim=-1).flatten(0, 1) @ texts.t()
        first = torch.arange(len(units), device=units.device) * units.shape[1]
        return ScoreMap(table, assignment + first[:, None, None])


def _usual(backbone: Backbone) -> SegmentConfig:
    """The paper's settings at the backbone's own window: windows that overlap by half."""
    side = backbone.window
    return SegmentConfig(short_side=side, window=side, stride=side // 2)


def load(
    name: str | os.PathLike[str] = "lite",
    decoder: str | os.PathLike[str] | None = "mgca",
    *,
    pretrained: bool | str = True,
    config: SegmentConfig | None = None,
    device: str | torch.device = "cpu",
) -> Model:
    """Load a model that segments.

    Args:
        name: Name of the model: ``"lite"`` or ``"scenes"``, which work offline, ``"vit-b-16"``, an
            open_clip model, the folder that :meth:`Model.save` wrote, or
            ``"hf://owner/name[@revision]"``, a model that :meth:`Model.push_to_hub` uploaded.
        decoder: ``"mgca"`` for what MGCA has trained that comes with the project: for ``"scenes"``
            a decoder, for ``"lite"`` a part of the encoder; None for the backbone's dense features
            alone; or the path of a trained decoder, of a checkpoint, or of a run's folder.
        pretrained: Weights of the backbone, as in :func:`mgca.backbone.load_backbone`.
        config: Sliding window and units; by default the paper's, at the backbone's own window.
        device: Device on which it computes, such as ``"cuda"``; see :meth:`Model.to`.

    Raises:
        ValueError: If the name is unknown, or torch cannot compute on the device here.
        BackboneUnavailable: If the backbone's weights cannot be had.
        WeightsError: If there is no such decoder, or it was trained for another backbone.
        mgca.weights.hub.HubError: If a repository on the hub cannot be reached.
    """
    pick_device(str(device))
    return _load(os.fspath(name), decoder, pretrained, config).to(device)


def _load(
    name: str,
    decoder: str | os.PathLike[str] | None,
    pretrained: bool | str,
    config: SegmentConfig | None,
) -> Model:
    published = name.startswith(hub.PREFIX)
    if published or (name not in ("lite", "scenes") and Path(name, saved.CONFIG).is_file()):
        if decoder not in ("mgca", None) or pretrained is not True:
            raise ValueError(f"{name} has a decoder and weights of its own; decoder may be None")
        folder = hub.download(name) if published else name
        return _from_folder(folder, decoder=decoder is not None, config=config)
    if decoder == "mgca" and name in HEADS:
        decoder = None
    if decoder == "mgca" and f"{name}-mgca" not in manifest():
        check_known(name)
        raise WeightsError(
            f"no trained decoder for {name!r} comes with the project: pass decoder=None for its "
            'dense features, decoder="path/to/decoder.safetensors", or use mgca.load("lite")'
        )
    if decoder is None:
        model = Model(load_backbone(name, pretrained), None, config)
        model.pretrained = pretrained
        return model
    # Read first: the decoder says which dense features of a transformer it was trained on.
    state, meta = load_weights(f"{name}-mgca") if decoder == "mgca" else read_decoder(decoder)
    backbone = load_backbone(name, pretrained, last_block=meta.get("last_block", "value"))
    trained = decoder_from(state, meta, backbone)
    model = Model(backbone, trained, config, rules(learned_sigmoid(meta) or backbone.sigmoid))
    model.pretrained = pretrained
    return model


def _check_apart(classes: Sequence[str], embeddings: Tensor, counts: Sequence[int]) -> None:
    """Refuse words (W, C) of two classes, of so many words each, that the text encoder cannot tell
    apart."""
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(embeddings.device)
    same = (embeddings @ embeddings.t()).triu(diagonal=1) > _SAME
    for one, other in (same & (owner[:, None] != owner)).nonzero().tolist():
        raise ValueError(
            f"the text encoder cannot tell {classes[one]!r} from {classes[other]!r}: leave one out"
        )


def _from_folder(
    folder: str | os.PathLike[str], *, decoder: bool = True, config: SegmentConfig | None = None
) -> Model:
    """The model that :meth:`Model.save` wrote.

    Raises:
        WeightsError: If a file is damaged or not one of a model that can be loaded here.
        BackboneUnavailable: If the backbone's own weights cannot be had.
    """
    description, state, alignment = saved.read(folder)
    encoder = description.backbone
    try:
        # Without the published alignment where another will replace it.
        backbone = load_backbone(
            encoder.name,
            encoder.pretrained if alignment is None else False,
            last_block=encoder.last_block,
        )
    except ValueError as error:
        raise WeightsError(f"its backbone cannot be loaded: {error}") from error
    if alignment is not None:
        take_alignment(backbone, *alignment)
    for key in ("digest", "text_digest"):
        expected, actual = getattr(encoder, key), getattr(backbone, key)
        if expected != actual:
            raise WeightsError(
                f"{Path(folder, saved.CONFIG)} is for the backbone {backbone.name!r} with {key} "
                f"{expected}, and here it has {actual}: other weights, or another version of the "
                "package"
            )
    trained, sigmoid = None, None
    if decoder and state is not None:
        trained, sigmoid = decoder_from(*state, backbone), learned_sigmoid(state[1])
    model = Model(
        backbone, trained, config or description.segment, rules(sigmoid or backbone.sigmoid)
    )
    model.pretrained = encoder.pretrained
    return model
