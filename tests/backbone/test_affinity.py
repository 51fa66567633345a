"""Maps of other encoders and of earlier stages, in which units are grouped."""

import pytest
import torch
from PIL import Image
from tiny import TinyBackbone
from torch.nn import functional as F

from mgca.backbone import BackboneUnavailable, UnsupportedBackbone, load_backbone
from mgca.backbone.affinity import affinity_of
from mgca.config import SegmentConfig
from mgca.model import Model
from mgca.units import semantic_units

# isort: split
# After mgca.backbone, which lets it import beside a CPU build of torch.
import timm


@torch.no_grad()
@pytest.mark.parametrize("name, channels, side", [("lite", 112, 6), ("scenes", 112, 12)])
def test_an_earlier_stage_of_the_trunk(name, channels, side):
    backbone = load_backbone(name, pretrained=False)
    images = torch.randn(1, 3, 96, 96)
    early = affinity_of("early", backbone)(images)
    assert early.shape == (1, channels, side, side)
    if name == "lite":
        trunk = backbone.tower.trunk
        rest = trunk.blocks[5:](early)
        expected = trunk.bn2(trunk.conv_head(rest))
        torch.testing.assert_close(backbone.features(images), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_tokens_of_a_transformer_of_timm(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: create(*a, **k | {"pretrained": False})
    )
    backbone = TinyBackbone()
    images = torch.randn(1, 3, 32, 64)
    torch.manual_seed(1)
    found = affinity_of("timm:test_vit", backbone)(images)
    torch.manual_seed(1)
    network = create("test_vit", num_classes=0, dynamic_img_size=True).eval()
    mean, std = (torch.tensor(network.default_cfg[k])[:, None, None] for k in ("mean", "std"))
    pixels = (images * 0.25 + 0.5 - mean) / std
    tokens = network.forward_features(pixels)[:, network.num_prefix_tokens :]
    torch.testing.assert_close(found, tokens.mT.unflatten(2, (2, 4)), rtol=1e-4, atol=1e-5)


def test_maps_that_cannot_be_had(monkeypatch):
    backbone = TinyBackbone()
    with pytest.raises(ValueError, match="early or timm:NAME, not 'dino'"):
        affinity_of("dino", backbone)
    with pytest.raises(UnsupportedBackbone, match="tiny: no earlier stage"):
        affinity_of("early", backbone)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneUnavailable, match="the weights of vit_tiny_patch16_224"):
        affinity_of("timm:vit_tiny_patch16_224", backbone)


@torch.no_grad()
def test_a_model_groups_in_it_and_names_in_its_own_space(monkeypatch):
    brightness = lambda images: F.avg_pool2d(images.mean(1, keepdim=True), 8).exp()  # noqa: E731
    monkeypatch.setattr("mgca.model.affinity_of", lambda name, backbone: brightness)
    config = SegmentConfig(short_side=64, window=64, stride=32, meta_points=4, affinity="early")
    model = Model(TinyBackbone(), config=config)
    pixels = torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8)
    embedded = model.embed(Image.fromarray(pixels.numpy()))
    found = model.segment(embedded, ["cat", "dog", "sky"])
    _, windows = model.windows(Image.fromarray(pixels.numpy()))
    size = embedded.pixels.shape[-2:]
    other = F.interpolate(brightness(windows), size, mode="bilinear", align_corners=False)
    groups, units = semantic_units(embedded.pixels, 2, affinity=other)
    table = F.normalize(units, dim=-1).flatten(0, 1) @ model.texts(["cat", "dog", "sky"]).t()
    torch.testing.assert_close(found._maps.table, table)
    first = 4 * torch.arange(len(groups))[:, None, None]
    assert torch.equal(found._maps.index, groups + first)
    # The pixel unit has no groups.
    usual = Model(TinyBackbone(), config=SegmentConfig(short_side=64, window=64, stride=32))
    image = Image.fromarray(pixels.numpy())
    one, other = (each.segment(image, ["cat", "dog"], None).labels for each in (model, usual))
    assert torch.equal(one, other)
