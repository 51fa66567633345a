"""GroupViT: its groups and their scores, against transformers' own and against loops; loading."""

import hashlib
import itertools
import json
import math
import os
import pickle
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mgca.backbone import BackboneUnavailable, UnsupportedBackbone
from mgca.config import SegmentConfig
from mgca.evaluation.baselines import models as others
from mgca.evaluation.baselines.groupvit import (
    CHECKPOINT,
    Grouping,
    GroupViT,
    load_groupvit,
    published_scores,
    soft_scores,
    unit_scores,
)
from mgca.inference.segmentation import Segmentation
from mgca.prompts import class_embeddings
from mgca.weights import WeightsError, read_tensors

# isort: split
# After mgca.backbone, which lets them import beside a CPU build of torch.
import huggingface_hub.constants
from transformers import CLIPTokenizer, GroupViTConfig, GroupViTModel
from transformers.models.groupvit.modeling_groupvit import GroupViTAssignAttention

PATCH, SIDE, GROUPS, DIM = 8, 32, 3, 12
START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = ["c a", "ca t</w>", "d o", "do g</w>"]
STATISTICS = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}


def write_tokenizer(folder: Path) -> int:
    """A CLIP vocabulary of ASCII letters and four merges; gives the number of its last, the end."""
    letters = [chr(code) for code in range(33, 127)]
    words = letters + [f"{letter}</w>" for letter in letters]
    words += [merge.replace(" ", "") for merge in MERGES] + [START, END]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]))
    return vocabulary[END]


def small_config(end: int, **vision) -> GroupViTConfig:
    """Two towers of one block a stage, 6 segments and 3 groups."""
    text = {"vocab_size": end + 1, "hidden_size": 16, "intermediate_size": 32}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16}
    text |= {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    image = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    image |= {"depths": [1, 1, 1], "num_hidden_layers": 3, "image_size": SIDE, "patch_size": PATCH}
    image |= {"num_group_tokens": [6, GROUPS, 0], "num_output_groups": [6, GROUPS, GROUPS]} | vision
    return GroupViTConfig(
        text_config=text, vision_config=image, projection_dim=DIM, projection_intermediate_dim=24
    )


def small_model(end: int, seed: int = 19) -> GroupViTModel:
    """A random model, random also where training starts at 0 or at 1."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = GroupViTModel(small_config(end)).eval()
        for key, value in model.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point() and value.ndim:
                value.add_((0.3 if value.ndim > 1 else 0.05) * torch.randn(value.shape))
        # Or nearly all patches would be in one group.
        model.vision_model.embeddings.position_embeddings.mul_(8)
        for stage in assignments(model):
            stage.q_proj.weight.mul_(4)
    return model


def assignments(model) -> list[GroupViTAssignAttention]:
    return [m for m in model.modules() if isinstance(m, GroupViTAssignAttention)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("groupvit")
    small_model(write_tokenizer(path)).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(STATISTICS))
    return path


@pytest.fixture(scope="module")
def groupvit(folder) -> GroupViT:
    return load_groupvit(folder)


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    """A folder of one's own, to be damaged."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def images(*size, count=2) -> Tensor:
    return torch.randn(count, 3, *size)


def texts_of(groupvit) -> Tensor:
    return class_embeddings(groupvit, ["cat", "dog", "a cat on a dog", "god", "tac", "act", "doc"])


def of_image_size(model, size) -> GroupViTModel:
    """transformers' model for images of another size, its positions resized channel by channel."""
    state = model.state_dict()
    if size != (SIDE, SIDE):
        key = "vision_model.embeddings.position_embeddings"
        grid = state[key].unflatten(1, (SIDE // PATCH, SIDE // PATCH))
        patches = (size[0] // PATCH, size[1] // PATCH)
        channels = [
            F.interpolate(
                grid[None, ..., c], patches, mode="bicubic", align_corners=False
            ).flatten()
            for c in range(grid.shape[-1])
        ]
        state = state | {key: torch.stack(channels, dim=-1)[None]}
    other = GroupViTModel(small_config(model.config.text_config.eos_token_id, image_size=size))
    other.load_state_dict(state)
    return other.eval()


SIZES = [(32, 32), (64, 64), (24, 64), (64, 16), (16, 64)]


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_soft_scores_are_the_segmentation_logits_of_transformers(groupvit, size):
    pixels, sentences = images(*size), ["a cat", "a dog", "the cat and the dog"]
    tokens = groupvit.tokenizer(sentences, padding=True, return_tensors="pt")
    model = of_image_size(groupvit.model, size)
    theirs = model(pixel_values=pixels, output_segmentation=True, **tokens)
    texts = F.normalize(groupvit.encode_text(sentences), dim=-1)
    torch.testing.assert_close(texts, theirs.text_embeds)
    found = soft_scores(groupvit.grouping(pixels), texts)
    assert found.shape == (2, 3, size[0] // PATCH, size[1] // PATCH)
    found = F.interpolate(found, size, mode="bilinear", align_corners=False)
    scale = groupvit.model.logit_scale.exp()
    torch.testing.assert_close(found * scale**2, theirs.segmentation_logits, rtol=1e-4, atol=1e-3)
    whole = F.normalize(groupvit.grouping(pixels).images, dim=-1)
    torch.testing.assert_close(whole, theirs.image_embeds)


def assignments_by_hand(attention, query, key) -> Tensor:
    """(groups, members): each member's softmax over the groups, one product at a time."""
    queries, keys = attention.q_proj(query), attention.k_proj(key)
    out = torch.empty(len(queries), len(keys))
    for member, k in enumerate(keys):
        logits = [float(q @ k) / math.sqrt(len(k)) for q in queries]
        total = sum(math.exp(logit) for logit in logits)
        out[:, member] = torch.tensor([math.exp(logit) / total for logit in logits])
    return out


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_a_patch_is_in_a_group_through_its_segments(groupvit, size):
    pixels, seen = images(*size, count=1), []
    hooks = [
        stage.register_forward_pre_hook(lambda module, args: seen.append((module, *args)))
        for stage in assignments(groupvit.model)
    ]
    grouping = groupvit.grouping(pixels)
    for hook in hooks:
        hook.remove()
    (first, *ends), (second, *more) = seen
    of_patches = assignments_by_hand(first, *(tokens[0] for tokens in ends))
    of_segments = assignments_by_hand(second, *(tokens[0] for tokens in more))
    assert of_patches.shape[0] == 6 and of_segments.shape == (GROUPS, 6)
    rows, columns = size[0] // PATCH, size[1] // PATCH
    assignment, embeddings = groupvit.groups(pixels)
    assert assignment.shape == (1, rows, columns) and assignment.dtype == torch.int64
    assert torch.equal(embeddings, grouping.groups) and embeddings.shape == (1, GROUPS, DIM)
    for y, x in itertools.product(range(rows), range(columns)):
        patch = y * columns + x
        shares = [
            sum(float(of_segments[g, s] * of_patches[s, patch]) for s in range(6))
            for g in range(GROUPS)
        ]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert grouping.shares[0, :, y, x].tolist() == pytest.approx(shares, abs=1e-5)
        assert assignment[0, y, x] == max(range(GROUPS), key=shares.__getitem__)
    assert len(assignment.unique()) > 1


@torch.no_grad()
def test_an_image_does_not_depend_on_its_neighbours(groupvit):
    pixels = images(24, 40, count=3)
    together = groupvit.grouping(pixels)
    for i in range(3):
        alone = groupvit.grouping(pixels[i : i + 1])
        for part, whole in zip(alone, together, strict=True):
            torch.testing.assert_close(part[0], whole[i], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_units_have_the_cosines_of_their_groups(groupvit):
    pixels, texts = images(24, 64), texts_of(groupvit)
    table, index = groupvit.score_map(pixels, texts)
    assert table.shape == (2 * GROUPS, 7) and index.shape == (2, 3, 8)
    assignment, embeddings = groupvit.groups(pixels)
    for i, y, x in itertools.product(range(2), range(3), range(8)):
        group = embeddings[i, assignment[i, y, x]]
        expected = F.cosine_similarity(group[None], texts)
        torch.testing.assert_close(table[index[i, y, x]], expected)


def softmax(logits: dict) -> dict:
    total = sum(math.exp(value) for value in logits.values())
    return {key: math.exp(value) / total for key, value in logits.items()}


def published_by_hand(groupvit, pixels, texts, background) -> Tensor:
    """(classes, H, W) of one window, as its repository's inference is written: pixel by pixel."""
    grouping = groupvit.grouping(pixels[None])
    resized = F.interpolate(grouping.shares, pixels.shape[1:], mode="bilinear")[0]
    scores = []
    nearest = F.cosine_similarity(grouping.images, texts).tolist()
    likely = sorted(range(len(texts)), key=nearest.__getitem__)[-5:]
    for group in grouping.groups[0]:
        cosines = F.cosine_similarity(group[None], texts).tolist()
        logits = {k: cosine / groupvit.temperature for k, cosine in enumerate(cosines)}
        among_all, among_likely = softmax(logits), softmax({k: logits[k] for k in likely})
        scores.append([among_all[k] * among_likely.get(k, 0) for k in range(len(texts))])
    classes = len(texts) + (background is not None)
    out = torch.zeros(classes, *pixels.shape[1:])
    for y, x in itertools.product(*map(range, pixels.shape[1:])):
        own = scores[resized[:, y, x].argmax()]
        out[classes - len(own) :, y, x] = torch.tensor(own)
        if background is not None and max(own) < min(background, max(map(max, scores))):
            out[0, y, x] = 1
    return out


@torch.no_grad()
@pytest.mark.parametrize("classes", [2, 5, 7])
@pytest.mark.parametrize("background", [None, 0.3, 0.95])
@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
def test_the_published_rule(groupvit, classes, background, size):
    pixels, texts = images(*size), texts_of(groupvit)[:classes]
    table, index = groupvit.published(pixels, texts, background)
    columns = classes + (background is not None)
    assert table.shape == (2 * GROUPS, columns) and index.shape == (2, *size)
    for i in range(2):
        expected = published_by_hand(groupvit, pixels[i], texts, background)
        torch.testing.assert_close(table[index[i]].permute(2, 0, 1), expected, rtol=1e-4, atol=1e-6)


def test_the_published_rule_on_numbers():
    # Two groups along the axes, six classes; the image is like the first five.
    groups = 5 * torch.eye(6)[:2][None]
    image = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]])
    shares = torch.tensor([[[[0.9, 0.4]], [[0.1, 0.6]]]])
    grouping = Grouping(shares, groups, image)
    temperature = 1 / math.log(10)
    table, index = published_scores(grouping, torch.eye(6), (1, 6), temperature)
    own, other = 10 / 15 * 10 / 14, 1 / 15 * 1 / 14
    expected = [[own, *[other] * 4, 0], [other, own, *[other] * 3, 0]]
    torch.testing.assert_close(table, torch.tensor(expected))
    # Shares meet at 0.5 at four fifths of the way between the centres of the patches.
    assert index.tolist() == [[[0, 0, 0, 0, 1, 1]]]
    assert unit_scores(grouping, torch.eye(6))[1].tolist() == [[[0, 1]]]
    mixed = soft_scores(grouping, torch.eye(6))[0, :2, 0]
    torch.testing.assert_close(mixed, torch.tensor([[0.9, 0.4], [0.1, 0.6]]))
    for threshold in (own / 2, 0.95):
        # The highest score of the window is never background.
        with_background = published_scores(grouping, torch.eye(6), (1, 6), temperature, threshold)[
            0
        ]
        assert with_background[:, 0].tolist() == [0, 0]
        assert torch.equal(with_background[:, 1:], table)
    weak = grouping._replace(groups=torch.stack([groups[0, 0], torch.ones(6)])[None])
    found = published_scores(weak, torch.eye(6), (1, 2), temperature, 0.2)[0]
    assert found[:, 0].tolist() == [0, 1]
    for threshold in (-0.1, 1.1):
        with pytest.raises(ValueError, match="background is a probability"):
            published_scores(grouping, torch.eye(6), (1, 6), temperature, threshold)


@pytest.mark.parametrize("size", [(33, 32), (32, 36), (4, 8), (0, 32)])
def test_other_sizes_are_refused(groupvit, size):
    with pytest.raises(ValueError, match=rf"multiples of 8, not {size[0]}x{size[1]}"):
        groupvit.score_map(torch.zeros(1, 3, *size), torch.zeros(2, DIM))


@torch.no_grad()
def test_a_text_is_what_stands_at_its_end(groupvit):
    texts = ["cat", "a dog a cat", "dog " * 40]
    found = groupvit.encode_text(texts)
    assert found.shape == (3, DIM)
    model, numbers = groupvit.model, json.loads(Path(groupvit.name, "vocab.json").read_text())
    for text, embedding in zip(texts, found, strict=True):
        words = text.split()[:14]
        tokens = torch.tensor([[numbers[w] for w in (START, *(f"{w}</w>" for w in words), END)]])
        # Alone and with no padding; every token sees itself and those before it.
        hidden = model.text_model(tokens).last_hidden_state[0, -1]
        torch.testing.assert_close(
            embedding, model.text_projection(hidden[None])[0], rtol=1e-4, atol=1e-5
        )
    many = groupvit.encode_text(["cat"] * 300 + ["dog"])
    torch.testing.assert_close(many[[0, 299, 300]], groupvit.encode_text(["cat", "cat", "dog"]))
    for nothing in ([], [" "]):
        with pytest.raises(ValueError):
            groupvit.encode_text(nothing)


@torch.no_grad()
def test_older_configurations_name_another_end(groupvit, copied):
    # Until 2023 they said 2, and the highest number was taken for the end.
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (copied / "config.json").write_text(json.dumps(config))
    texts = ["cat", "a dog on a cat"]
    older = load_groupvit(copied)
    assert older.model.text_model.eos_token_id == 2
    assert torch.equal(older.encode_text(texts), groupvit.encode_text(texts))


def test_what_it_offers(groupvit, folder):
    assert (groupvit.name, groupvit.dim, groupvit.stride) == (str(folder), DIM, PATCH)
    assert (groupvit.window, groupvit.groups_per_image) == (448, GROUPS)
    assert (list(groupvit.mean), list(groupvit.std)) == tuple(STATISTICS.values())
    scale = groupvit.model.logit_scale.exp().item()
    assert groupvit.temperature == pytest.approx(1 / scale) and 1 < scale < 100
    assert not any(parameter.requires_grad for parameter in groupvit.parameters())
    assert not any(module.training for module in groupvit.train().modules())
    assert groupvit.model.dtype == torch.float32


def test_defaults_and_digests(groupvit, copied):
    (copied / "preprocessor_config.json").unlink()
    state = {k: v.clone() for k, v in groupvit.model.state_dict().items()}

    def changed(key) -> GroupViT:
        model = GroupViTModel(groupvit.model.config)
        model.load_state_dict(state | ({key: state[key] + 5} if key else {}))
        model.save_pretrained(copied)
        return load_groupvit(copied)

    def digests(one) -> tuple[str, str, str]:
        return one.trunk_digest, one.digest, one.text_digest

    def differ(key) -> list[bool]:
        pairs = zip(digests(changed(key)), digests(groupvit), strict=True)
        return [a != b for a, b in pairs]

    same = changed(None)
    assert digests(same) == digests(groupvit)
    assert same.mean == pytest.approx((0.485, 0.456, 0.406))
    assert same.std == pytest.approx((0.229, 0.224, 0.225))
    assert differ("vision_model.layernorm.bias") == [True, True, False]
    assert differ("visual_projection.0.bias") == [False, True, False]
    assert differ("text_model.final_layer_norm.bias") == [False, False, True]
    assert differ("text_projection.3.bias") == [False, False, True]
    assert changed("logit_scale").temperature == pytest.approx(0.01)


class Payload:
    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_weights_of_torch_are_read_as_tensors_alone(groupvit, copied):
    state, _ = read_tensors(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    torch.save(state, copied / "pytorch_model.bin")
    assert load_groupvit(copied).digest == groupvit.digest
    payload = Payload()
    payload.path = str(copied / "proof")
    torch.save(state | {"extra": payload}, copied / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="no complete GroupViT"):
        load_groupvit(copied)
    (copied / "pytorch_model.bin").write_bytes(pickle.dumps(payload, protocol=2))
    with pytest.raises(WeightsError, match="no complete GroupViT"):
        load_groupvit(copied)
    assert not (copied / "proof").exists()


@pytest.mark.parametrize(
    "name, message",
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no model.safetensors or pytorch_model.bin"),
        ("vocab.json", "has no tokenizer.json or vocab.json"),
        ("merges.txt", "has no tokenizer.json or merges.txt"),
    ],
)
def test_a_missing_file(copied, name, message):
    (copied / name).unlink()
    with pytest.raises(WeightsError, match=message):
        load_groupvit(copied)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("config.json", b"{", "config.json is not JSON"),
        ("config.json", b"[]", "config.json is not an object"),
        ("config.json", b'{"model_type": "clip"}', "type 'clip', not 'groupvit'"),
        ("preprocessor_config.json", b"\xff", "preprocessor_config.json is not JSON"),
        ("model.safetensors", b"\0" * 100, "no complete GroupViT"),
        ("vocab.json", b"{", "no complete GroupViT"),
    ],
)
def test_a_damaged_file(copied, name, content, message):
    (copied / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_groupvit(copied)


def test_weights_that_lack_tensors_or_have_others(copied, groupvit):
    state, _ = read_tensors(copied / "model.safetensors")
    del state["visual_projection.0.bias"]
    groupvit.model.save_pretrained(copied, state_dict=state)
    with pytest.raises(WeightsError, match="lack 1 tensors, visual_projection.0.bias first"):
        load_groupvit(copied)
    state["visual_projection.0.bias"] = torch.zeros(7)
    groupvit.model.save_pretrained(copied, state_dict=state)
    with pytest.raises(WeightsError, match="no complete GroupViT"):
        load_groupvit(copied)


@pytest.mark.parametrize(
    "vision, message",
    [
        ({"image_size": [32, 16]}, "must be square"),
        ({"num_group_tokens": [0, 0, 0]}, "none of its stages groups"),
    ],
)
def test_other_architectures_are_refused(vision, message):
    model = GroupViTModel(small_config(9, **vision))
    with pytest.raises(UnsupportedBackbone, match=f"^odd-model: .*{message}"):
        GroupViT("odd-model", model, None)


COMMIT = "0123456789abcdef0123456789abcdef01234567"
PICKLED = "someone/pickled"


@pytest.fixture
def hub(copied):
    """A stand-in for the hub, with and without safetensors: its address, and what was taken."""
    state, _ = read_tensors(copied / "model.safetensors")
    torch.save(state, copied / "pytorch_model.bin")
    (copied / "tf_model.h5").write_bytes(b"weights for something else")
    files = {file.name: file.read_bytes() for file in copied.iterdir()}
    repositories = {CHECKPOINT: files, PICKLED: dict(files)}
    del repositories[PICKLED]["model.safetensors"]
    answers, taken = {}, []
    for name, contents in repositories.items():
        api = f"/api/models/{name}"
        answers[f"{api}/revision/main"] = json.dumps({"id": name, "sha": COMMIT}).encode()
        tree = [
            {"type": "file", "path": file, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
            for file, body in contents.items()
        ]
        answers[f"{api}/tree/{COMMIT}"] = json.dumps(tree).encode()
        answers |= {f"/{name}/resolve/{COMMIT}/{file}": body for file, body in contents.items()}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            body = answers.get(self.path.split("?")[0])
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            if body is None:
                self.send_header("X-Error-Code", "RepoNotFound")
            else:
                self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            return body or b""

        def do_GET(self):
            self.wfile.write(self.do_HEAD())
            taken.append(self.path.split("?")[0])

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    server.server_close()


# Once from the hub, once from the cache, and once in vain.
DOWNLOADS = """
import sys
from mgca.evaluation.baselines.groupvit import load_groupvit
from mgca.backbone import BackboneUnavailable
import huggingface_hub.constants as constants
for constants.HF_HUB_OFFLINE in (False, True):
    for name in sys.argv[1:]:
        model = load_groupvit(name)
        print(model.name, model.digest, model.text_digest, *model.mean)
constants.HF_HUB_OFFLINE = False
try:
    load_groupvit("nobody/nothing")
except BackboneUnavailable as error:
    print(error)
"""


def test_a_hub_is_asked_once_and_for_one_file_of_weights(hub, groupvit, tmp_path_factory):
    endpoint, taken = hub
    cache = tmp_path_factory.mktemp("hub")
    kept = (k for k in os.environ if not k.startswith("HF_") and "proxy" not in k.lower())
    env = {k: os.environ[k] for k in kept} | {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint}
    command = [sys.executable, "-c", DOWNLOADS, CHECKPOINT, PICKLED]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    *loaded, refused = result.stdout.split("\n", maxsplit=4)
    digests = f"{groupvit.digest} {groupvit.text_digest} 0.1 0.2 0.3"
    assert loaded == 2 * [f"{CHECKPOINT} {digests}", f"{PICKLED} {digests}"]
    assert refused.startswith("the files of nobody/nothing") and str(cache) in refused
    small = ["config.json", "merges.txt", "preprocessor_config.json", "vocab.json"]
    for name, weights in ((CHECKPOINT, "model.safetensors"), (PICKLED, "pytorch_model.bin")):
        files = [path.rpartition("/")[2] for path in taken if path.startswith(f"/{name}/")]
        assert sorted(files) == sorted([*small, weights])


def test_offline_and_not_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(BackboneUnavailable) as error:
        load_groupvit()
    message = str(error.value)
    assert f"the files of {CHECKPOINT}" in message and str(tmp_path / "hub") in message
    assert 'mgca.load("lite")' in message


def test_the_tokenizer_is_clips(groupvit):
    assert isinstance(groupvit.tokenizer, CLIPTokenizer)
    assert groupvit.tokenizer.tokenize("a Cat, DOG") == ["a</w>", "cat</w>", ",</w>", "dog</w>"]


def test_as_a_model_its_groups_are_the_units(groupvit):
    config = SegmentConfig(short_side=32, window=32, stride=16)
    model = others.GroupViTModel(groupvit, config=config)
    classes = ["cat", "dog", "a cat on a dog"]
    image = torch.randint(256, (3, 40, 50), dtype=torch.uint8)
    found = model.segment(image, classes, None)
    geometry, windows = model.windows(image)
    assert len(windows) > 1
    expected = groupvit.score_map(windows, model.texts(classes))
    torch.testing.assert_close(
        found.scores, Segmentation(geometry, classes, expected).scores, rtol=0, atol=1e-6
    )
    with pytest.raises(ValueError, match="groups of its own"):
        model.segment(image, classes, 4)
    for threshold in (None, 0.3):
        rule = groupvit.published(windows, model.texts(classes), threshold)
        names = classes if threshold is None else ["background", *classes]
        found = model.segment(image, classes, background=threshold, rule="groupvit")
        assert found.classes == tuple(names)
        torch.testing.assert_close(found.scores, Segmentation(geometry, names, rule).scores)
    # A threshold on the softmax of cosines, as for any other method.
    things = model.segment(image, classes, None, background=0.4, temperature=0.05)
    assert torch.equal(things.labels, things.scores.argmax(0))
    with pytest.raises(ValueError, match="rule 'sigmoid' is not one"):
        model.segment(image, classes, rule="sigmoid")
