"""What all tests share: a seed, one thread, how much is fuzzed, and the way to the real data."""

import copy
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# The order in which threads add numbers up is theirs. With one thread per process a sum is the same
# on every machine with the same instructions, and pytest-xdist has the other cores.
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

# Processes that tests start find the helpers, too.
os.environ["PYTHONPATH"] = str(Path(__file__).parent)

# A busy machine is no failure of what is tested.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
# How much is fuzzed: a few inputs, the same in every run, or many that no run has tried before.
settings.register_profile("test", max_examples=6, deadline=None, derandomize=True)
settings.register_profile("fuzz", max_examples=400, deadline=None)


@pytest.fixture(autouse=True)
def same_seed():
    """Start every test from seed 0, whatever ran before it and in whichever process."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def loaded_once():
    """Whoever loads a backbone of the project by name gets a copy of one that is loaded once.

    The sentence encoder, most of it, is shared: nothing trains it. Loading draws no random numbers
    here, so that a test does not depend on whether another has loaded the backbone before.
    """
    from mgca import backbone as room
    from mgca import weights
    from mgca.backbone import hybrid, lite
    from mgca.experiments import scenes

    kept = {}

    def once(load, module, shared):
        def copied(*arguments, **options):
            # Where a test has put something else in the place of weights, that is loaded.
            made_of = (module.SentenceEncoder, module.load_weights, weights.FOLDER)
            key = (load, made_of, arguments, tuple(sorted(options.items())))
            with torch.random.fork_rng(devices=[]):
                if key not in kept:
                    kept[key] = load(*arguments, **options)
            text = getattr(kept[key], shared)
            return copy.deepcopy(kept[key], {id(text): text})

        return copied

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "load_lite", once(lite.load_lite, lite, "text"))
        of_scenes = once(hybrid.load_hybrid, hybrid, "sentences")
        patch.setattr(room, "load_hybrid", of_scenes)
        patch.setattr(scenes, "load_hybrid", of_scenes)
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real images and captions: $MGCA_DATA, or ../shared/data beside the project.

    Where there is none the test is skipped; with MGCA_REQUIRE_DATA=1 it fails instead.
    """
    folder = Path(os.environ.get("MGCA_DATA") or ROOT / "../shared/data").resolve()
    if not folder.is_dir():
        reason = f"needs real data, and there is no folder {folder}: set MGCA_DATA to yours"
        if os.environ.get("MGCA_REQUIRE_DATA") == "1":
            pytest.fail(f"{reason} (MGCA_REQUIRE_DATA=1 forbids skipping)", pytrace=False)
        pytest.skip(reason)
    return folder


# First, because pytest's own hook applies `-m "not needs_data"` to the marks that it finds.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "data_root" in fixtures:
            item.add_marker(pytest.mark.needs_data)
        if {"browser", "chromium"} & set(fixtures):
            item.add_marker(pytest.mark.browser)
