"""What the small CLIP knows of images as a whole, and how far its texts describe them."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mgca.backbone.hybrid import Hybrid
from mgca.data.scenes.scene import THINGS
from mgca.data.scenes.sets import evaluation_set, training_pairs
from mgca.evaluation.metrics import recall
from mgca.prompts import class_embeddings
from mgca.utils.images import to_tensor


@torch.inference_mode()
def embed_images(backbone: Hybrid, images: list, batch: int = 32) -> Tensor:
    """Image embeddings (n, C), unit vectors: open_clip's own, from the class token.

    Args:
        images: PIL images of the size that the transformer was trained for.
    """
    parts = []
    for start in range(0, len(images), batch):
        tensors = [to_tensor(im, backbone.mean, backbone.std) for im in images[start:][:batch]]
        parts.append(backbone.model.visual(backbone.trunk.features(torch.stack(tensors))))
    return F.normalize(torch.cat(parts), dim=-1)


@torch.inference_mode()
def image_level(backbone: Hybrid, images: int, seed: int) -> dict[str, float]:
    """Image-level accuracy of the small CLIP, in percent.

    Args:
        images: Scenes to measure on. seed: Of the scenes.

    Returns:
        ``top word present``: the class most similar to an image occurs in it. ``largest thing
        first``: the thing most similar to it is the largest in it. ``R@1``, ``R@5``: how often the
        first caption of an image is among the one or five captions, of as many, most similar to it.
    """
    scenes = evaluation_set("scenes", images, seed=seed)
    pictures, masks = zip(*((picture, mask) for _, picture, mask in scenes), strict=True)
    texts = class_embeddings(backbone, scenes.classes)
    scores = embed_images(backbone, list(pictures)) @ texts.t()
    areas = torch.stack(
        [torch.from_numpy(np.bincount(m.ravel(), minlength=len(texts))) for m in masks]
    )
    present = areas.gather(1, scores.argmax(dim=1, keepdim=True)) > 0
    things = slice(0, len(THINGS))
    largest = areas[:, things].argmax(dim=1) == scores[:, things].argmax(dim=1)
    pairs = training_pairs(images, seed)
    captions = F.normalize(backbone.encode_text([own[0] for own in pairs.captions]), dim=-1)
    scores = embed_images(backbone, [pairs.images[i] for i in range(images)]) @ captions.t()
    measured = {"top word present": present, "largest thing first": largest}
    shares = {name: 100 * float(hits.float().mean()) for name, hits in measured.items()}
    return shares | recall(scores)
