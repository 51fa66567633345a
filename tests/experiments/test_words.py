"""One name for one model: what readers see of the lines of results."""

import re
from pathlib import Path

import pandas as pd
import pytest

from mgca.experiments import load_scale
from mgca.experiments.grid import ABLATIONS, grid
from mgca.experiments.report.words import relabelled, worded

BOOK = Path(__file__).resolve().parents[2] / "book"


@pytest.mark.parametrize(
    ("name", "scale", "shown"),
    [
        ("baseline", "scenes", "plain CLIP"),
        ("clip", "scenes", "plain CLIP"),
        ("clip", "photos", "alignment alone"),
        ("alignment", "photos", "alignment alone"),
        ("dense", "scenes", "MaskCLIP"),
        ("maskclip", "", "MaskCLIP"),
        ("naclip+mgca", "", "MGCA on NACLIP"),
        ("object+region", "", "object + region"),
        ("alpha_neg=0.05,no pixel", "", "negative area 0.05, without pixel level"),
        ("k=0.06", "", "positive at k = 0.06"),
        ("of somebody else", "", "of somebody else"),
    ],
)
def test_names(name, scale, shown):
    assert worded(name, scale) == shown


def test_different_lines_of_a_table_keep_different_names():
    scale = load_scale("scenes")
    for ablation in ABLATIONS:
        names = [variant.name for variant in grid(ablation, scale)]
        shown = [worded(name, "scenes") for name in names]
        assert len(set(shown)) == len(set(names)), ablation
        assert not [one for one in shown if re.search(r"\w=\w|_", one)], ablation


def test_a_table_is_relabelled_wherever_the_name_stands():
    table = pd.DataFrame({"variant": ["baseline", "mgca"], "value": [1, 2]})
    assert list(relabelled(table)["variant"]) == ["plain CLIP", "MGCA"]
    assert list(table["variant"]) == ["baseline", "mgca"]
    both = table.assign(unit="pixel").set_index(["variant", "unit"])
    shown = relabelled(both)
    assert shown.index.names == ["model", "unit"]
    assert shown.loc[("plain CLIP", "pixel"), "value"] == 1
    wide = table.set_index("variant").T
    assert list(relabelled(wide).columns) == ["plain CLIP", "MGCA"]


def test_the_glossary_has_the_two_baselines():
    text = (BOOK / "glossary.md").read_text(encoding="utf-8")
    for name in ("baseline", "maskclip"):
        assert f"\n{worded(name)}\n" in text
