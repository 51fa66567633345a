"""The hybrid's dense path against open_clip's own passes and timm's own trunk, and its file."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mgca.weights
from mgca.backbone import load_backbone
from mgca.backbone.hybrid import (
    Hybrid,
    HybridConfig,
    SmallCLIP,
    Trunk,
    hybrid_state,
    load_hybrid,
)
from mgca.backbone.lite import SentenceEncoder, load_trunk
from mgca.config import LAST_BLOCKS
from mgca.weights import WeightsError, publish, write_tensors

# isort: split
# After mgca.backbone, which lets them import beside a CPU build of torch.
import timm
from open_clip.model import resize_pos_embed

SIZES = HybridConfig(dim=8, width=32, layers=2, heads=2, grid=4, enlarge=2)


def shaken(hybrid: Hybrid) -> Hybrid:
    """Random also where training starts at 0 or 1, rounded as weights are kept."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in hybrid.model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_((parameter + 0.1 * noise).half().float())
    return hybrid.refresh()


@pytest.fixture(scope="module")
def sentences():
    return SentenceEncoder()


@pytest.fixture
def make(monkeypatch, sentences):
    """Hybrids around one sentence encoder, which takes most of the time to make."""
    monkeypatch.setattr("mgca.backbone.hybrid.SentenceEncoder", lambda: sentences)

    def make(last_block="value", sizes=SIZES, name="scenes") -> Hybrid:
        torch.manual_seed(1)
        return shaken(Hybrid(name, sizes, last_block=last_block))

    return make


def trunk_features(*size) -> torch.Tensor:
    return torch.randn(2, 112, *size, dtype=torch.float64)


def visual_of(hybrid: Hybrid, size) -> nn.Module:
    """open_clip's transformer for another grid, with the positions as open_clip resizes them."""
    other = SmallCLIP(dataclasses.replace(hybrid.config, grid=size)).to(torch.float64)
    state = hybrid.model.state_dict()
    resize_pos_embed(state, other)
    other.load_state_dict(state)
    other.visual.output_tokens = True
    return other.visual.eval()


GRIDS = [(4, 4), (6, 3), (7, 7)]


@torch.no_grad()
@pytest.mark.parametrize("size", GRIDS)
def test_with_its_attention_it_gives_open_clips_own_tokens(make, size):
    hybrid, features = make("attention"), trunk_features(*size)
    hybrid.model.double()
    visual = visual_of(hybrid, size)
    pooled, tokens = visual(features)
    found = hybrid.project(hybrid.from_trunk(features))
    torch.testing.assert_close(found, (tokens @ visual.proj).mT.unflatten(2, size))
    # The class token, which the dense path leaves out.
    last = hybrid.model.visual.transformer.resblocks[-1]
    token = last(super(Hybrid, hybrid).tokens(features))[:, :1]
    token = hybrid.project(token.mT.unflatten(2, (1, 1)))[:, :, 0, 0]
    torch.testing.assert_close(token, pooled)


@torch.no_grad()
@pytest.mark.parametrize("size", GRIDS)
def test_the_value_path_is_attention_of_each_token_to_itself(make, size):
    hybrid, features = make("value"), trunk_features(*size)
    hybrid.model.double()
    visual = visual_of(hybrid, size)
    first, last = visual.transformer.resblocks
    tokens = first(visual._embeds(features))
    normed = last.ln_1(tokens)
    mask = torch.full((tokens.shape[1],) * 2, -math.inf, dtype=torch.float64).fill_diagonal_(0)
    attended, weights = last.attn(normed, normed, normed, attn_mask=mask)
    assert torch.equal(weights[0], torch.eye(tokens.shape[1], dtype=torch.float64))
    tokens = tokens + attended
    tokens = tokens + last.mlp(last.ln_2(tokens))
    expected = (visual.ln_post(tokens)[:, 1:] @ visual.proj).mT.unflatten(2, size)
    found = hybrid.project(hybrid.from_trunk(features))
    torch.testing.assert_close(found, expected)
    plain = (visual(features)[1] @ visual.proj).mT.unflatten(2, size)
    assert not torch.allclose(found, plain, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("last_block", LAST_BLOCKS)
@pytest.mark.parametrize("size", [(32, 32), (48, 24)])
def test_kept_trunk_features_give_the_same(make, last_block, size):
    hybrid, images = make(last_block), torch.randn(2, 3, *size)
    features = hybrid.features(images)
    assert features.shape == (2, 32, size[0] // 8, size[1] // 8)
    assert torch.equal(hybrid.from_trunk(hybrid.trunk.features(images)), features)
    assert torch.equal(hybrid.project(features), hybrid.dense(images))


@torch.no_grad()
@pytest.mark.parametrize("enlarge", [1, 2])
def test_the_grid_follows_the_image(make, enlarge):
    hybrid = make(sizes=dataclasses.replace(SIZES, enlarge=enlarge))
    stride = 16 // enlarge
    assert (hybrid.dim, hybrid.stride) == (8, stride)
    for rows, columns in [(1, 1), (4, 4), (2, 5), (9, 7)]:
        dense = hybrid.dense(torch.randn(1, 3, stride * rows, stride * columns))
        assert dense.shape == (1, 8, rows, columns) and dense.isfinite().all()
    for size in [(4 * stride + 1, 32), (32, 4 * stride - 4), (0, 32), (stride // 2, stride)]:
        message = rf"scenes takes images whose sides are multiples of {stride}, not {size[0]}x"
        with pytest.raises(ValueError, match=message):
            hybrid.dense(torch.randn(1, 3, *size))


@pytest.mark.parametrize("enlarge", [0, 3, -2, 32])
def test_an_enlargement_must_leave_a_whole_stride(enlarge):
    with pytest.raises(ValueError, match=f"enlarge must divide 16, not {enlarge}"):
        HybridConfig(enlarge=enlarge)


@torch.no_grad()
@pytest.mark.parametrize("enlarge", [1, 2])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_the_trunk_is_timms_own(enlarge, size):
    network = timm.create_model("tf_efficientnet_lite0", num_classes=1000).eval()
    load_trunk(network)
    images = torch.randn(2, 3, *size)
    large = images
    if enlarge != 1:
        large = F.interpolate(images, [enlarge * side for side in size], mode="bilinear")
    stages = network.forward_intermediates(large, intermediates_only=True)
    expected = next(s for s in stages if s.shape[-1] == large.shape[-1] // 16)
    assert expected.shape[1] == 112
    found = Trunk(enlarge).features(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_digests_name_what_the_features_depend_on(make):
    first = make()
    again = make(name="other")
    assert (again.digest, again.text_digest) == (first.digest, first.text_digest)
    assert first.trunk_digest == first.digest
    blocks = {make(last_block).digest for last_block in LAST_BLOCKS}
    enlarged = make(sizes=dataclasses.replace(SIZES, enlarge=1))
    assert len(blocks | {enlarged.digest}) == 1 + len(LAST_BLOCKS)
    assert enlarged.text_digest == first.text_digest
    assert enlarged.trunk.trunk_digest != first.trunk.trunk_digest

    model = again.model
    model.logit_scale.fill_(math.log(20))
    assert again.refresh().temperature == pytest.approx(0.05)
    assert (again.digest, again.text_digest) == (first.digest, first.text_digest)
    model.text.bias[0] += 1e-6
    assert again.refresh().digest == first.digest and again.text_digest != first.text_digest
    texts = again.text_digest
    model.visual.proj[0, 0] += 1e-6
    assert again.refresh().digest != first.digest and again.text_digest == texts
    model.logit_scale.fill_(50)
    assert again.refresh().temperature == pytest.approx(0.01)  # the training's own bound


@torch.no_grad()
def test_texts_keep_their_order_and_empty_ones_are_refused(make, sentences):
    hybrid = make()
    texts = ["a very long sentence about a red boat on the water", "a dog", "sand", "a blue cup"]
    embeddings = hybrid.encode_text(texts)
    assert embeddings.shape == (4, 8)
    text = hybrid.model.text
    for each, embedding in zip(texts, embeddings, strict=True):
        expected = text.weight @ sentences([each])[0] + text.bias
        torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-5)
    for wrong in ([], [""], ["a dog", "  "]):
        with pytest.raises(ValueError, match="empty|at least one text"):
            hybrid.encode_text(wrong)
    with pytest.raises(TypeError, match="not one string"):
        hybrid.encode_text("a dog")


def test_it_is_frozen(make):
    hybrid = make()
    assert not any(p.requires_grad for p in hybrid.parameters())
    assert not any(module.training for module in hybrid.train().modules())
    assert not hybrid.dense(torch.randn(1, 3, 32, 32)).requires_grad
    state = {key: value.clone() for key, value in hybrid.trunk.state_dict().items()}
    hybrid.dense(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(value, state[k]) for k, value in hybrid.trunk.state_dict().items())


@pytest.fixture
def published(make, monkeypatch, tmp_path):
    """A hybrid whose weights come with a project that has no others."""
    hybrid = make()
    monkeypatch.setattr(mgca.weights, "FOLDER", tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    state, meta = hybrid_state(hybrid)
    assert {value.dtype for value in state.values()} == {torch.float16}
    publish("scenes-clip", write_tensors(tmp_path / "trained.safetensors", state, meta))
    return hybrid


@torch.no_grad()
@pytest.mark.parametrize("last_block", ["value", "attention"])
def test_the_file_gives_the_identical_backbone(published, make, last_block):
    trained, loaded = make(last_block), load_backbone("scenes", last_block=last_block)
    assert isinstance(loaded, Hybrid) and loaded.config == trained.config
    for attribute in ("name", "digest", "trunk_digest", "text_digest", "temperature", "last_block"):
        assert getattr(loaded, attribute) == getattr(trained, attribute)
    images = torch.randn(1, 3, 32, 48)
    assert torch.equal(loaded.dense(images), trained.dense(images))
    texts = ["a dog", "a red boat"]
    assert torch.equal(loaded.encode_text(texts), trained.encode_text(texts))
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_random_one_has_the_sizes_of_the_file(published):
    random = load_hybrid("scenes", pretrained=False)
    assert random.config == published.config
    assert random.digest != published.digest and random.text_digest != published.text_digest


def test_missing_and_damaged_weights_are_named(published, tmp_path):
    with pytest.raises(WeightsError, match="no weights 'paintings-clip', only scenes-clip"):
        load_hybrid("paintings")
    path = tmp_path / "scenes-clip.safetensors"
    path.write_bytes(path.read_bytes()[:-2] + b"\0\1")
    with pytest.raises(WeightsError, match=r"scenes-clip\.safetensors has SHA-256"):
        load_hybrid("scenes")
