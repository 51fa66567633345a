"""The losses of Eq. 2 to 8 as the method states them: loops over images i, texts j and pixels n.

Slow and plain, for comparison only. Every number is a 0-dimensional tensor, so that autograd gives
the gradient of the loops too. Shares are exact decimal fractions: floor(0.29 * 100) is 29 here.
"""

import math
from fractions import Fraction


def area(share, pixels):
    """max(1, floor(a N)), without rounding."""
    return max(1, math.floor(Fraction(str(share)) * pixels))


def rank(share, size):
    """ceil(k floor(alpha N)), at least 1, without rounding."""
    return max(1, math.ceil(Fraction(str(share)) * size))


def pixel_list(pixels):
    """p[i][n], row by row, of a (B, C, H, W) tensor."""
    images, _, height, width = pixels.shape
    return [
        [pixels[i, :, y, x] for y in range(height) for x in range(width)] for i in range(images)
    ]


def inner(a, b):
    return (a * b).sum()


def cosine(a, b):
    return inner(a, b) / (inner(a, a).sqrt() * inner(b, b).sqrt())


def similarities(p, texts, measure):
    """s[i][j][n], Eq. 2."""
    phi = {"dot": inner, "cosine": cosine}[measure]
    return [[[phi(pixel, text) for pixel in image] for text in texts] for image in p]


def largest_first(scores):
    return sorted(range(len(scores)), key=lambda n: -scores[n].item())


def region(p_i, s_ij, share, detach):
    """o_ij(a), Eq. 3 and 4: A is a softmax over all pixels, M keeps the largest."""
    exponentials = [s.exp() for s in s_ij]
    attention = [e / sum(exponentials) for e in exponentials]
    if detach:
        attention = [a.detach() for a in attention]
    mask = [0] * len(p_i)
    for n in largest_first(s_ij)[: area(share, len(p_i))]:
        mask[n] = 1
    numerator, denominator = 0, 0
    for n, pixel in enumerate(p_i):
        numerator = numerator + attention[n] * mask[n] * pixel
        denominator = denominator + attention[n] * mask[n]
    return numerator / denominator


def info_nce(logits, direction, exclude=None):
    """Cross-entropy of a square list of lists whose pairs are on the diagonal.

    Pair (i, j) is left out of the negatives where ``exclude[i][j]``.
    """

    def kept(i, j):
        return i == j or exclude is None or not exclude[i][j]

    images = texts = 0
    for i in range(len(logits)):
        row = sum(logits[i][j].exp() for j in range(len(logits)) if kept(i, j))
        column = sum(logits[j][i].exp() for j in range(len(logits)) if kept(j, i))
        images = images + (row.log() - logits[i][i]) / len(logits)
        texts = texts + (column.log() - logits[i][i]) / len(logits)
    return {"image": images, "text": texts, "both": (images + texts) / 2}[direction]


def object_loss(
    pixels, texts, *, alpha, temperature, measure, detach_weights, direction, exclude=None
):
    """Eq. 5."""
    p, pairs = pixel_list(pixels), range(len(texts))
    s = similarities(p, texts, measure)
    o = [region(p[i], s[i][i], alpha, detach_weights) for i in pairs]
    logits = [[cosine(o[i], texts[j]) / temperature for j in pairs] for i in pairs]
    return info_nce(logits, direction, exclude)


def region_loss(
    pixels,
    texts,
    *,
    alpha,
    alpha_neg,
    temperature,
    measure,
    detach_weights,
    direction,
    exclude=None,
):
    """Eq. 6."""
    p, pairs = pixel_list(pixels), range(len(texts))
    s = similarities(p, texts, measure)
    logits = [[None for _ in pairs] for _ in pairs]
    for i in pairs:
        for j in pairs:
            share = alpha if i == j else alpha_neg
            o = region(p[i], s[i][j], share, detach_weights)
            logits[i][j] = cosine(o, texts[j]) / temperature
    return info_nce(logits, direction, exclude)


def pixel_loss(pixels, texts, *, alpha, k, k_neg, measure, direction, exclude=None):
    """Eq. 7."""
    p, pairs = pixel_list(pixels), range(len(texts))
    s = similarities(p, texts, measure)
    size = area(alpha, len(p[0]))
    logits = [[None for _ in pairs] for _ in pairs]
    for i in pairs:
        for j in pairs:
            place = rank(k if i == j else k_neg, size)
            n = largest_first(s[i][j])[place - 1]
            logits[i][j] = s[i][j][n] / math.sqrt(len(texts[j]))
    return info_nce(logits, direction, exclude)


def total_loss(pixels, texts, config, exclude=None):
    """Eq. 8."""
    common = {"measure": config.measure, "direction": config.direction, "alpha": config.alpha}
    common["exclude"] = exclude
    soft = {"temperature": config.temperature, "detach_weights": config.detach_weights}
    return (
        config.object * object_loss(pixels, texts, **common, **soft)
        + config.region * region_loss(pixels, texts, alpha_neg=config.alpha_neg, **common, **soft)
        + config.pixel * pixel_loss(pixels, texts, k=config.k, k_neg=config.k_neg, **common)
    )
