"""The command ``mgca calibrate``: the threshold that it finds is the best of all."""

import json

import numpy as np
import pandas as pd
import pytest
from evaluated import SMALL, folders  # noqa: F401
from PIL import Image
from tiny import TinyBackbone

from mgca.cli import loading, main
from mgca.data.masks import load_folder
from mgca.evaluation.evaluate import evaluate
from mgca.model import Model


@pytest.fixture
def own(folders, monkeypatch):  # noqa: F811
    """A folder to work in, and the options of a set in it; every model is tiny."""
    monkeypatch.chdir(folders)
    model = Model(TinyBackbone(), None, SMALL)
    monkeypatch.setattr(loading, "load_named", lambda *_: (model, "tiny"))
    return ["calibrate", "--images", "images", "--masks", "masks"]


@pytest.mark.parametrize("classes, foreground", [("red,green", None), ("red", 2)])
def test_the_threshold_is_the_best_of_all(own, capsys, classes, foreground):
    arguments = [*own, "--classes", classes, "--units", "16", "--out", "curve.csv"]
    if foreground is not None:
        arguments += ["--foreground", str(foreground)]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    curve = pd.read_csv("curve.csv")
    best = curve.loc[curve["miou"].idxmax()]
    assert found["miou"] == best["miou"] > curve["miou"].min()
    # Evaluating with what was found gives what was promised.
    data = load_folder(
        "images", "masks", classes.split(","), background=foreground is None, foreground=foreground
    )
    model = Model(TinyBackbone(), None, SMALL)
    options = {"background": found["background"], "temperature": found["temperature"]}
    assert evaluate(model, data, (16,), **options)["16"].miou == pytest.approx(
        found["miou"], abs=0.01
    )
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith(
        f"--background {found['background']:g} --temperature {found['temperature']:g}\n"
    )


def test_wrong_usage(own, capsys):
    for arguments in (["voc"], own[1:], ["things", *own[1:]]):
        assert main(["calibrate", *arguments]) == 2
    Image.fromarray(np.full((60, 80), 2, np.uint8)).save("masks/0.png")
    assert main([*own, "--classes", "red"]) == 1
    assert "masks/0.png: id 2 is not one of" in capsys.readouterr().err
