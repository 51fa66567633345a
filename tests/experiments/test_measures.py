"""What the pages of the book measure on scenes: closed forms, loops, and small cases by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import mgca
from mgca.backbone import load_backbone
from mgca.data.scenes import (
    CLASSES,
    COLOURS,
    HELD_OUT,
    STUFFS,
    SYNONYMS,
    TEST_SEED,
    THINGS,
    WorldConfig,
    compose,
    evaluation_set,
    render,
    sentences,
)
from mgca.data.scenes.scene import TELLING, random
from mgca.evaluation.metrics import Confusion
from mgca.experiments.report import truth, unit_steps, validation, world
from mgca.experiments.report.correspondence import named, scene_pairs
from mgca.experiments.scenes import ScenesScale
from mgca.losses.levels import object_loss, pixel_loss, region_loss
from mgca.utils.images import to_tensor

COUNT, BATCH = 6, 3


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    return mgca.load("scenes", config=ScenesScale().segment())


@pytest.fixture(scope="module")
def scenes(model):
    with torch.no_grad():
        return truth.Scenes(model, COUNT)


# validation


def test_a_map_that_is_the_mask_beats_everything_outside():
    inside = np.zeros((8, 8), bool)
    inside[2:4, 3:7] = True
    score = torch.from_numpy(inside).float()
    assert validation.inside_beats_outside(score, inside) == 100
    assert validation.inside_beats_outside(-score, inside) == 0
    assert validation.inside_beats_outside(torch.zeros(8, 8), inside) == 50
    assert validation.higher_inside(score, inside) == 1


def test_pairs_inside_and_outside_are_counted_one_by_one():
    score, inside = drawn(6, 6).round(), np.arange(36).reshape(6, 6) % 5 == 0
    values = score.numpy()
    pairs = [(a > b) + (a == b) / 2 for a in values[inside] for b in values[~inside]]
    assert validation.inside_beats_outside(score, inside) == pytest.approx(100 * np.mean(pairs))


def test_directions_are_followed_where_a_word_is():
    thing, stuff = THINGS[0], STUFFS[0]
    mask = np.full((8, 8), CLASSES.index(stuff))
    mask[:4] = CLASSES.index(thing)
    features = torch.from_numpy(np.stack([mask == k for k in np.unique(mask)])).float()[None]
    first, second = torch.eye(2)
    # The third word is nowhere in the scene, and so is not asked for.
    directions = {thing: first, stuff: first, THINGS[1]: second}
    assert validation.found_by(directions, features, [mask]) == {"thing": 100, "stuff": 0}


def test_pixels_are_named_by_the_highest_score():
    masks = np.array([[[0, 0], [1, 2]]])
    scores = F.one_hot(torch.tensor([[[0, 1], [1, 2]]]), 3).permute(0, 3, 1, 2).float()
    assert validation.correct_pixels(scores, masks) == 75
    names = F.normalize(drawn(3, 5), dim=1)
    pixels = 7 * names[torch.tensor([[[0, 0], [1, 2]]])].permute(0, 3, 1, 2)
    assert validation.correct_pixels(validation.similarities(pixels, names), masks) == 100


def test_questions_about_images_regions_and_pixels():
    mask = np.zeros((4, 4), int)
    mask[2:] = 1
    names = torch.eye(3)
    right = names[torch.from_numpy(mask)].permute(2, 0, 1)[None]
    half = right.clone()
    half[0, :, 0] = 2 * names[1][:, None]  # the first row is named as the second content
    encoders = {
        "right": lambda trunk: (right, None),
        "absent": lambda trunk: (right, names[2]),  # the whole image is named as what it has not
        "half": lambda trunk: (half, None),
    }
    table = validation.granularity(encoders, torch.zeros(1, 2, 4, 4), [mask], names)
    assert table.loc["right"].tolist() == [100, 100, 100]
    assert table.loc["absent"].tolist() == [0, 100, 100]
    # Of content 0 the mean is (1/2, 1): it is named as 1, as are half of its pixels.
    assert table.loc["half"].tolist() == [100, 50, 75]


def test_patches_are_compared_two_by_two():
    masks = [np.kron(np.array([[0, 1], [1, 1]]), np.ones((4, 4), int)), np.zeros((8, 8), int)]
    patches = validation.Patches(masks, 2)
    assert patches.named.tolist() == [[0, 1, 1, 1], [0, 0, 0, 0]]
    embeddings = drawn(2, 4, 5)
    same, different = [], []
    for own, names in zip(embeddings, patches.named, strict=True):
        for a in range(4):
            for b in range(4):
                cosine = F.cosine_similarity(own[a], own[b], dim=0).item()
                if names[a] != names[b]:
                    different.append(cosine)
                elif a != b:
                    same.append(cosine)
    expected = (pytest.approx(np.mean(same), abs=1e-6), pytest.approx(np.mean(different), abs=1e-6))
    assert patches.alike(embeddings) == expected
    texts = torch.eye(5)[:3]
    tokens = texts[torch.tensor([[0, 1, 0, 2], [0, 0, 1, 1]])]
    correct, somewhere = patches.labelled(tokens, texts)
    maps = validation.similarities(tokens.transpose(1, 2).unflatten(2, (2, 2)), texts)
    assert correct == validation.correct_pixels(maps, np.stack(masks))
    assert 0 < correct < somewhere
    assert somewhere == (75 + 50) / 2


def test_segmentations_are_compared():
    masks = [np.zeros((10, 10), int), np.zeros((10, 10), int)]
    masks[0][:, 5:] = 1
    broken = masks[0].copy()
    broken[:, 5:] = 2
    broken[0, 9] = 1  # a twentieth of the content that is there
    named_by = {"right": masks, "broken": [broken, masks[1]]}
    table, right = validation.compared(named_by, masks, 3)
    assert table.loc["right"].tolist() == [100, 100, 1, 0]
    confusion = Confusion(3)
    for own, mask in zip(named_by["broken"], masks, strict=True):
        confusion.add(own, mask)
    assert table.loc["broken", "mIoU (%)"] == confusion.miou
    assert table.loc["broken", "contents lost (%)"] == pytest.approx(100 / 3)
    assert right["broken"].tolist() == [51, 100]
    assert right["right"].tolist() == [100, 100]


def test_words_used_are_counted(model):
    (_, image, mask) = evaluation_set("scenes", 1, seed=TEST_SEED)[0]
    embedded = model.embed(image)
    labels = np.unique(model.segment(embedded, CLASSES, 4).labels.numpy())
    used, share = validation.words_used(model, [embedded], [mask], 4)
    assert used == len(labels)
    assert share == 100 * np.isin(np.unique(mask), labels).mean()


def test_encoders_are_clip_and_what_stands_on_it(model):
    clip = load_backbone("scenes", last_block="attention")
    _, picture, _ = evaluation_set("scenes", 1, seed=TEST_SEED)[0]
    with torch.no_grad():
        trunk = validation.trunk_features(model.backbone, [picture])
        encoders = validation.encoders(clip, model.backbone, {"all": model.decoder})
        (_, whole), (dense, no_whole), (trained, _) = (own(trunk) for own in encoders.values())
        torch.testing.assert_close(model.decoder(dense), trained)
        torch.testing.assert_close(model.embed(picture).pixels, trained)
        image = to_tensor(picture, clip.mean, clip.std)[None]
        expected = clip.model.visual(clip.trunk.features(image))
    assert list(encoders) == ["plain CLIP", "MaskCLIP", "all"]
    assert no_whole is None
    torch.testing.assert_close(whole, expected[0])


def test_scenes_of_their_own_size_are_named_as_they_are(model):
    data = evaluation_set("scenes", 2, seed=TEST_SEED)
    _, pictures, masks = zip(*data, strict=True)
    names, backbone = model.texts(CLASSES), model.backbone
    with torch.no_grad():
        found = validation.correct_at(112, backbone, pictures, np.stack(masks), names)
        inputs = [to_tensor(picture, backbone.mean, backbone.std) for picture in pictures]
        cosines = validation.similarities(backbone.dense(torch.stack(inputs)), names)
    assert found == validation.correct_pixels(cosines, np.stack(masks))


def test_choices_of_the_last_block_have_a_row_each():
    masks = [np.kron(np.array([[0, 1], [1, 1]]), np.ones((4, 4), int))]
    patches, texts = validation.Patches(masks, 2), torch.eye(3)
    right = texts[patches.named]
    table = validation.last_blocks({"value": right, "sclip": right.flip(1)}, patches, texts)
    assert list(table.index) == ["value", "sclip"]
    first = table.loc["value"].tolist()
    # One of 64 pixels lies between patches of both classes.
    assert first[:4] == ["itself", "yes", 1, 0] and first[4] == pytest.approx(98.4)
    assert table.loc["sclip", "pixels labelled correctly, %"] == pytest.approx(51.6)


def test_regions_are_counted_as_text():
    stripes = np.arange(9).reshape(3, 3) % 2
    named_by = {"cat": {"pixel": stripes, "unit": np.zeros((3, 3), int)}}
    assert validation.count_regions(named_by) == "cat 9 (pixel), 1 (unit)"


def test_images_are_segmented_by_each_model(model):
    data = evaluation_set("scenes", 1, seed=TEST_SEED)
    _, picture, _ = data[0]
    models = {"a": (model, 36, {"background": 0.9}), "b": (model, None, {})}
    named_by = validation.segmented(models, data, [picture])
    # A set without a background takes no threshold.
    assert named_by["a"][0].max() < len(data.classes)
    expected = model.segment(picture, data.classes, None).labels.numpy()
    assert (named_by["b"][0] == expected).all()


# truth


def test_scenes_are_those_of_their_seed(scenes):
    pairs = scene_pairs(COUNT)
    assert scenes.captions.words == pairs.captions
    for text, caption in zip(scenes.single.words, pairs.captions, strict=True):
        (only,) = named(text)
        assert only in named(caption)
    # Where training starts there is upsampling and nothing else: means are nearly kept.
    assert scenes.trained.shape == scenes.frozen.shape == (COUNT, 96, 28, 28)
    assert not torch.equal(scenes.trained, scenes.frozen)
    i = scenes.first(len(named(pairs.captions[0])), -1, 2)
    assert i == 0


def test_foreign_pairs_are_those_of_the_losses(scenes):
    areas = {"alpha": 0.34, "alpha_neg": 0.05}
    texts = scenes.captions
    rows, positives = truth.foreign_pairs(scenes.trained, texts, scenes.shares, BATCH, **areas)
    assert len(rows) == COUNT // BATCH * BATCH * (BATCH - 1)
    assert len(positives) == COUNT
    # The losses of the first batch, from the cosines.
    off = ~torch.eye(BATCH, dtype=torch.bool)
    pairs = torch.arange(BATCH)
    for level, loss in (
        ("object level", object_loss(scenes.trained[:BATCH], texts.embeddings[:BATCH], alpha=0.34)),
        ("region level", region_loss(scenes.trained[:BATCH], texts.embeddings[:BATCH], **areas)),
    ):
        logits = torch.diag(torch.from_numpy(positives[:BATCH]))
        logits[off] = torch.tensor(rows[level].to_numpy()[: BATCH * (BATCH - 1)])
        logits = logits / 0.07
        both = F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)
        torch.testing.assert_close(both / 2, loss)
    assert rows["in the image"].isin([0, 1]).all()
    assert (rows["in the region"][rows["in the image"] == 0] == 0).all()


def test_the_positive_of_a_rank_is_that_of_the_loss(scenes):
    texts, size = scenes.captions, math.floor(0.34 * 784)
    rank = math.ceil(0.06 * size)
    similar, pull, right = truth.positives_at(rank, scenes.trained, texts, BATCH)
    scores = truth.own_scores(scenes.trained, texts.embeddings)
    falling, order = scores.sort(dim=1, descending=True)
    assert similar == pytest.approx(falling[:, rank - 1].mean().item(), rel=1e-5)
    shows = texts.truth.gather(1, order)[:, rank - 1]
    assert right == pytest.approx(shows[texts.visible].mean().item(), abs=1e-6)
    # The pull is minus the gradient of the loss with respect to the logit of the pair.
    pulls = []
    for start in range(0, COUNT, BATCH):
        now = slice(start, start + BATCH)
        step = torch.zeros(BATCH, requires_grad=True)
        logits = torch.einsum("icn,jc->ijn", scenes.trained[now].flatten(2), texts.embeddings[now])
        first = logits.amax(-1)
        own = logits.diagonal(dim1=0, dim2=1).T.sort(-1, descending=True).values[:, rank - 1]
        z = (first.masked_fill(torch.eye(BATCH, dtype=torch.bool), 0) + torch.diag(own)) / 96**0.5
        z = z + torch.diag(step)
        pairs = torch.arange(BATCH)
        loss = (F.cross_entropy(z, pairs) + F.cross_entropy(z.T, pairs)) / 2
        torch.testing.assert_close(
            loss.detach(),
            pixel_loss(scenes.trained[now], texts.embeddings[now], alpha=0.34, k=0.06),
        )
        loss.backward()
        pulls.append(-BATCH * step.grad)
    assert pull == pytest.approx(torch.cat(pulls).mean().item(), rel=1e-4)


def test_trust_is_the_mean_over_the_ranks_of_a_bin(scenes):
    edges = np.array([1, 2, 50, 785])
    scores = truth.own_scores(scenes.trained, scenes.single.embeddings)
    order = scores.argsort(dim=1, descending=True, stable=True)
    sorted_truth = scenes.single.truth.gather(1, order)[scenes.single.visible]
    expected = [
        sorted_truth[:, a - 1 : b - 1].mean().item() for a, b in ((1, 2), (2, 50), (50, 785))
    ]
    assert truth.trust(scenes.trained, scenes.single, edges) == pytest.approx(expected, abs=1e-6)


def test_negatives_are_wrong_where_a_foreign_text_is_true(scenes):
    shown = []
    for start in range(0, COUNT, BATCH):
        for i in range(start, start + BATCH):
            for j in range(start, start + BATCH):
                if i != j:
                    scores = scenes.captions.embeddings[j] @ scenes.trained[i].flatten(1)
                    pixel = scores.argsort(descending=True, stable=True)[4]
                    content = list(named(scenes.captions.words[j]))
                    shown.append(scenes.shares[i, content, pixel].sum().item())
    found = truth.wrong_negatives(5, scenes, scenes.captions, BATCH)
    assert found == pytest.approx(np.mean(shown), abs=1e-6)


def test_regions_show_the_pixels_most_like_a_text(scenes):
    texts = scenes.single.embeddings[:2]
    shown = truth.shown_in_regions(scenes.trained, texts, scenes.shares, 0.05)
    assert shown.shape == (COUNT, 2, len(CLASSES))
    index = (scenes.trained[3].flatten(1).T @ texts[1]).topk(39).indices
    torch.testing.assert_close(shown[3, 1], scenes.shares[3][:, index].mean(dim=1))


def test_mistakes_are_of_words_that_are_absent():
    shares = torch.zeros(25, len(CLASSES), 4)
    shares[:, 3] = 1  # every image is all of class 3
    shares[20:, 3], shares[20:, 5] = 0, 1  # but five, which are too few
    shown = torch.zeros(25, len(CLASSES), len(CLASSES))
    shown[:20, 2, 3] = torch.linspace(0, 1, 20)
    rows = truth.mistakes(shown, shown / 2, shares)
    assert set(rows["content"]) == {CLASSES[3]}
    assert len(rows) == len(CLASSES) - 1
    first = rows.iloc[0]
    assert (first["word"], first["image"], first["thing"]) == (CLASSES[2], 1, 3 < len(THINGS))
    assert first["region"] == pytest.approx(0.5)
    assert first["before"] == pytest.approx(0.25)
    assert truth.things_in_regions(torch.ones_like(shown), shares) == len(THINGS)


def test_colours_are_sought_where_the_thing_is_absent(scenes):
    image, without, with_colour = truth.colour_in_regions(scenes, 0.05)
    shares = []
    for i in range(COUNT):
        things = compose(WorldConfig(), TEST_SEED, i).things
        absent = sum(scenes.shares[i, k].sum() == 0 for k in range(len(THINGS)))
        for colour in COLOURS:
            own = [CLASSES.index(thing.name) for thing in things if thing.colour == colour]
            shown = scenes.shares[i, own].sum(0)
            if own and shown.max() > 0.5:
                shares += [shown.mean().item()] * int(absent)
    assert image == pytest.approx(np.mean(shares), abs=1e-6)
    assert 0 <= min(without, with_colour) <= max(without, with_colour) <= 1


def test_tables_of_ranks(scenes):
    kinds = {"a caption": scenes.captions, "one class": scenes.single}
    table = truth.positives(scenes, kinds, (0, 0.06), 266, BATCH)
    assert table["rank"].tolist() == [1, 16]
    similar, pull, right = truth.positives_at(16, scenes.trained, scenes.single, BATCH)
    row = table.loc["0.06"]
    assert row["right, one class (%)"] == round(100 * right, 1)
    assert (row["similarity"], row["pull"]) == (round(similar, 1), round(pull, 3))
    table = truth.negatives(scenes, kinds, (0, 0.06), 266, BATCH)
    wrong = truth.wrong_negatives(16, scenes, scenes.captions, BATCH)
    assert table.loc["0.06", "wrong, a caption (%)"] == round(100 * wrong, 1)


def test_false_negatives_are_counted():
    rows = pd.DataFrame(
        {"in the image": [1, 1, 0, 0], "in the region": [0.9, 0.2, 0, 0]}
        | {"region level": [0.8, 0.1, 0.2, 0.3]}
    )
    table = truth.false_negatives({"a caption": rows})
    assert table.loc["a caption"].tolist() == ["50", "25", "0.80", "0.20"]


# unit_steps


def test_every_pixel_is_a_unit_at_the_last_steps(model):
    data = evaluation_set("scenes", 1, seed=TEST_SEED)
    _, picture, mask = data[0]
    image = unit_steps.unit_image("a scene", model, picture, data.classes, mask)
    assert [step["points"] for step in image["steps"]] == [*range(1, 29), None]
    *_, finest, pixel = image["steps"]
    assert (finest["named"][finest["assignment"]] == pixel["named"]).all()
    assert pixel["right"] == 100 * (pixel["named"] == image["truth"]).mean()
    assert image["steps"][0]["regions"] == 1
    assert image["truth"].tolist() == mask[2::4, 2::4].tolist()
    figure = unit_steps.still([image], (1, 28, None))
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["1, 1 regions", f"784, {finest['regions']} regions", "pixel"]
    pictures = [axis.images[0].get_array() for axis in figure.axes]
    assert (pictures[1] == pictures[2]).all()


def test_averages_mend_and_spoil(model):
    data = evaluation_set("scenes", 2, seed=TEST_SEED)
    embedded = {}
    table = unit_steps.measured(model, data, (36, None), embedded)
    assert list(table.index) == ["36", "pixel"]
    assert len(embedded) == 2
    means = unit_steps.averaged(model, data, 6, embedded)
    right = []
    for identifier, _, mask in data:
        own = embedded[data.source, identifier]
        right.append(
            [
                100 * (model.segment(own, data.classes, points).labels.numpy() == mask).mean()
                for points in (None, 36)
            ]
        )
    single, joint = np.mean(right, axis=0)
    assert means["mended"] - means["spoilt"] == pytest.approx(joint - single)
    assert -1 <= means["alone"] <= 1
    # As many meta-points as pixels: nothing is averaged.
    same = unit_steps.averaged(model, data, 28, embedded)
    assert (same["mended"], same["spoilt"]) == (0, 0)
    assert same["alone"] == pytest.approx(same["together"])


# world


@pytest.fixture(scope="module")
def told():
    config = WorldConfig()
    composed = [compose(config, 0, index) for index in range(30)]
    return (
        config,
        composed,
        [sentences(config, scene, random(0, TELLING, scene.index), 2) for scene in composed],
    )


def test_examples_have_every_class():
    examples = world.examples(0)
    assert set(examples) == set(CLASSES)
    assert all(isinstance(image, Image.Image) for image in examples.values())


def test_steps_end_with_the_scene(told):
    config, composed, _ = told
    scene = composed[0]
    steps = world.steps(config, scene)
    assert len(steps) == len(scene.things) + 2
    assert (steps["light and noise"] == render(config, scene)[0]).all()


def test_contents_and_names_are_counted(told):
    config, composed, sentences_ = told
    rows = world.visible_contents(config, composed, sentences_)
    seen = [c for scene in composed for c in scene.contents if c.area >= config.visible]
    assert len(rows) == 2 * len(seen)
    assert rows["area"].sum() == pytest.approx(2 * sum(c.area for c in seen))
    axes = world.named_by_area(rows).axes
    assert [axis.get_title() for axis in axes] == ["things", "stuffs"]
    whole, single = world.described_areas(composed, sentences_)
    assert len(whole) == 2 * len(composed)
    assert sum(whole) == pytest.approx(sum(single))
    table = world.named_in_captions(composed[0], sentences_[0])
    for n, sentence in enumerate(sentences_[0], start=1):
        assert (table[f"caption {n}"] == "named").sum() == len(set(sentence.contents))


def test_held_out_colours_are_not_seen(told):
    table, held = world.things_by_colour(told[1])
    assert table.shape == held.shape == (len(THINGS), len(COLOURS))
    assert table[held].sum() == 0
    assert table.sum() == sum(len(scene.things) for scene in told[1])
    assert held.sum() == sum(len(colours) for colours in HELD_OUT.values())


def test_frequencies_are_percents(told):
    _, composed, _ = told
    table = world.frequencies(composed).set_index("class")
    assert table["sum"].sum() == pytest.approx(100, abs=0.01)
    for name, row in table.iterrows():
        scenes_with = sum(any(c.name == name and c.area for c in s.contents) for s in composed)
        assert row["size"] == pytest.approx(100 * scenes_with / len(composed))


def test_settings_have_means_where_something_is_counted(told):
    config, composed, _ = told
    table = world.settings(config, composed)
    mean = np.mean([len(scene.things) for scene in composed])
    assert table.iloc[:, 1]["things per image"] == f"{mean:.3g}"
    assert table.iloc[:, 1]["turn"] == ""


def test_words_of_captions_are_counted():
    stuff, other = next(iter(SYNONYMS.items()))
    table = world.synonyms([[f"A boat on {stuff}.", f"{stuff}, {other}"], ["nothing"]])
    assert table.loc[stuff].tolist() == [2, other, 1]


def test_the_sets_have_a_row_and_a_figure_each():
    table = world.sets_table(["training", 0, "0" * 64, 3, "1 per image", "", ""])
    assert len(table) == 1 + 2 * 3
    assert (table["digest"].str.len() == 12).all()
    things = evaluation_set("things", 2, seed=TEST_SEED)
    figure = world.set_sheet(things)
    axes = np.array(figure.axes).reshape(3, 2)
    _, image, mask = things[1]
    assert (axes[0, 1].images[0].get_array() == np.asarray(image)).all()
    names = [text.get_text() for text in axes[2, 1].get_legend().texts]
    assert names[0] == "background"
    assert len(names) == len(np.unique(mask))
