"""TCL as its paper and the facts of its release state it: loops, slow and plain.

The objective is made of 0-dimensional tensors, as in :mod:`reference`; the published network works
on one token or one pixel at a time.
"""

import math

import torch
from reference import cosine, info_nce, pixel_list


def sigmoid(x):
    return 1 / (1 + (-x).exp())


def inverse_temperature(scale):
    return scale.exp() if scale.exp() <= 100 else torch.full_like(scale, 100)


def objective(
    pixels, texts, config, learned, *, images=None, noise=None, encode=None, exclude=None
):
    """The terms and their weighted sum; ``learned`` has w, b, feature_scale and image_scale."""
    height, width = pixels.shape[2:]
    p, pairs, places = pixel_list(pixels), range(len(texts)), range(height * width)
    logit = [
        [[learned["w"] * cosine(p[i][n], texts[j]) + learned["b"] for n in places] for j in pairs]
        for i in pairs
    ]
    mask = [[[sigmoid(z) for z in logit[i][j]] for j in pairs] for i in pairs]
    found = {
        "area": area(mask, config.area_prior, exclude),
        "feature": feature(p, texts, mask, learned["feature_scale"], exclude),
        "variation": variation([pixels[i] for i in pairs])
        + variation(
            [torch.stack([torch.stack(m).view(height, width) for m in mask[i]]) for i in pairs]
        ),
    }
    if images is not None:
        own = [torch.stack(logit[i][i]).view(height, width) for i in pairs]
        tau = config.gumbel_temperature
        cut = [cut_out(own[i], images[i], noise[i], tau) for i in pairs]
        embeddings = encode(torch.stack(cut))
        scale = inverse_temperature(learned["image_scale"])
        logits = [[scale * cosine(embeddings[i], texts[j]) for j in pairs] for i in pairs]
        found["image"] = info_nce(logits, "both", exclude)
    contrast = found["feature"] + found.get("image", 0)
    found["total"] = (
        config.area * found["area"]
        + config.contrast * contrast
        + config.variation * found["variation"]
    )
    return found


def area(mask, prior, exclude):
    positive, negative = [], []
    for i in range(len(mask)):
        for j in range(len(mask)):
            if i == j:
                positive += mask[i][j]
            elif exclude is None or not exclude[i][j]:
                negative += mask[i][j]
    return abs(sum(positive) / len(positive) - prior) + sum(negative) / max(1, len(negative))


def feature(p, texts, mask, scale, exclude):
    pairs = range(len(texts))
    logits = [[None for _ in pairs] for _ in pairs]
    for i in pairs:
        for j in pairs:
            total = sum(m * pixel for m, pixel in zip(mask[i][j], p[i], strict=True))
            v = total / (sum(mask[i][j]) + 1e-6)
            logits[i][j] = inverse_temperature(scale) * cosine(v, texts[j])
    return info_nce(logits, "both", exclude)


def cut_out(logit, image, noise, tau):
    """An image (3, H, W) under its sampled mask: straight through, nearest neighbours."""
    rows, columns = image.shape[1:]
    out = torch.zeros_like(image)
    for y in range(rows):
        for x in range(columns):
            at = (y * logit.shape[0] // rows, x * logit.shape[1] // columns)
            soft = sigmoid((logit[at] + noise[at]) / tau)
            hard = 1.0 if soft > 0.5 else 0.0
            out[:, y, x] = image[:, y, x] * (hard + soft - soft.detach())
    return out


def variation(maps):
    """Mean absolute differences along x and along y of a list of (C, H, W)."""
    across, down = [], []
    for channels in maps:
        for m in channels:
            rows, columns = m.shape
            across += [
                (m[y, x] - m[y, x + 1]).abs() for y in range(rows) for x in range(columns - 1)
            ]
            down += [(m[y, x] - m[y + 1, x]).abs() for y in range(rows - 1) for x in range(columns)]
    return sum(across) / len(across) + sum(down) / len(down)


# The published network. ``state`` holds the tensors of a checkpoint under their released names.


def norm(x, state, name):
    """Layer normalisation of one vector."""
    centred = x - x.mean()
    unit = centred / (centred.square().mean() + 1e-5).sqrt()
    return unit * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x, state, name):
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def value_only(token, state, name):
    """A CLIP block for one token that attends to itself alone."""
    width = len(token)
    normed = norm(token, state, f"{name}.ln_1")
    value = state[f"{name}.attn.in_proj_weight"][2 * width :] @ normed
    value = value + state[f"{name}.attn.in_proj_bias"][2 * width :]
    token = token + linear(value, state, f"{name}.attn.out_proj")
    hidden = linear(norm(token, state, f"{name}.ln_2"), state, f"{name}.mlp.c_fc")
    hidden = hidden * sigmoid(1.702 * hidden)
    return token + linear(hidden, state, f"{name}.mlp.c_proj")


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def conv_block(grid, state, name):
    """x + tanh(g) conv(gelu(ln(x))) of a list of rows of vectors, zeros around it."""
    active = [[gelu(norm(x, state, f"{name}.norm")) for x in row] for row in grid]
    kernel, bias = state[f"{name}.conv.weight"], state[f"{name}.conv.bias"]
    gate = torch.tanh(state[f"{name}.gate.gate"])
    out = []
    for y in range(len(grid)):
        out.append([])
        for x in range(len(grid[0])):
            total = bias.clone()
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < len(grid) and 0 <= x + dx < len(grid[0]):
                        total = total + kernel[:, :, dy + 1, dx + 1] @ active[y + dy][x + dx]
            out[-1].append(grid[y][x] + gate * total)
    return out


def twice(grid):
    """Nearest upsampling by 2."""
    return [[x for x in row for _ in range(2)] for row in grid for _ in range(2)]


def published_pixels(tokens, size, state, block):
    """(4 h, 4 w, C) of one image's tokens (1 + h w, width) before the last block."""
    encoder = "masker.image_encoder."
    name = f"{encoder}backbone.transformer.resblocks.{block}"
    patches = [value_only(token, state, name) for token in tokens[1:]]
    grid = [patches[row * size[1] : (row + 1) * size[1]] for row in range(size[0])]
    for stage in range(2):
        grid = twice(grid)
        for part in ("conv", "conv2"):
            grid = conv_block(grid, state, f"{encoder}decoder.decoder.net.{stage}.{part}")
    projection = f"{encoder}decoder.image_proj"
    return torch.stack(
        [
            torch.stack(
                [norm(x, state, f"{projection}.ln") @ state[f"{projection}.proj"] for x in row]
            )
            for row in grid
        ]
    )


def published_scores(pixels, texts, state):
    """(K, H, W) of (H, W, C): sigmoid(w cos + b)."""
    w, b = state["masker.sim2mask.w"], state["masker.sim2mask.b"]
    return torch.stack(
        [
            torch.stack(
                [torch.stack([sigmoid(w * cosine(x, t) + b) for x in row]) for row in pixels]
            )
            for t in texts
        ]
    )


def enlarged(small, size):
    """Bilinear, corners not aligned, of one map (h, w)."""

    def place(i, source, target):
        at = min(max((i + 0.5) * source / target - 0.5, 0), source - 1)
        low = math.floor(at)
        return low, min(low + 1, source - 1), at - low

    out = torch.zeros(size, dtype=small.dtype)
    for y in range(size[0]):
        for x in range(size[1]):
            top, bottom, v = place(y, small.shape[0], size[0])
            left, right, u = place(x, small.shape[1], size[1])
            upper = (1 - u) * small[top, left] + u * small[top, right]
            lower = (1 - u) * small[bottom, left] + u * small[bottom, right]
            out[y, x] = (1 - v) * upper + v * lower
    return out


def kp_scores(scores, dense, texts, share):
    """Scores (K, H, W) mixed with those of CLIP's own features (h, w, C)."""
    mixed = []
    for k, text in enumerate(texts):
        own = torch.stack(
            [torch.stack([sigmoid(10 * (cosine(x, text) - 0.25)) for x in row]) for row in dense]
        )
        mixed.append(share * enlarged(own, scores.shape[1:]) + (1 - share) * scores[k])
    return torch.stack(mixed)
