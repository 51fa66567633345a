"""What the small CLIP knows of images as a whole, and how far its texts describe them."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mgca.backbone.hybrid import Hybrid
from mgca.images import to_tensor
from mgca.prompts import class_embeddings
from mgca.scenes.sets import evaluation_set, training_pairs


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
        ``top word present``: the class most similar to an image occurs in it. ``largest first``:
        it is the class that covers most of it. ``R@1``, ``R@5``: how often the first caption of
        an image is among the one or five captions, of as many, most similar to it.
    """
    scenes = evaluation_set("scenes", images, seed=seed)
    pictures, masks = zip(*((picture, mask) for _, picture, mask in scenes), strict=True)
    texts = class_embeddings(backbone, scenes.classes)
    top = (embed_images(backbone, list(pictures)) @ texts.t()).argmax(dim=1).tolist()
    areas = [np.bincount(mask.ravel(), minlength=len(scenes.classes)) for mask in masks]
    pairs = training_pairs(images, seed)
    captions = F.normalize(backbone.encode_text([own[0] for own in pairs.captions]), dim=-1)
    scores = embed_images(backbone, [pairs.images[i] for i in range(images)]) @ captions.t()
    rank = (scores > scores.diagonal()[:, None]).sum(dim=1)
    return {
        "top word present": 100
        * float(np.mean([a[t] > 0 for a, t in zip(areas, top, strict=True)])),
        "largest first": 100
        * float(np.mean([a.argmax() == t for a, t in zip(areas, top, strict=True)])),
    } | {f"R@{k}": 100 * float((rank < k).float().mean()) for k in (1, 5)}
