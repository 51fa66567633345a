"""torchvision imports beside a torch build that its compiled operators were not made for."""

import importlib.util
import json
import os
import subprocess
import sys
import types

import pytest

from mgca.utils import torchvision as _torchvision


def run(code: str) -> subprocess.CompletedProcess:
    """Code in an interpreter of its own: what is imported here cannot be imported anew."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ
    )


MENDED = """
import json, sys
from mgca.utils import torchvision as _torchvision

calls = [_torchvision.make_importable() for _ in range(2)]
assert "torchvision" not in sys.modules
import numpy, torch, torchvision
from PIL import Image
from torchvision import transforms

calls += [_torchvision.make_importable() for _ in range(2)]
pixels = numpy.arange(4 * 6 * 3, dtype=numpy.uint8).reshape(4, 6, 3)
image = Image.fromarray(pixels)
steps = transforms.Compose([transforms.CenterCrop(2), transforms.ToTensor(),
                            transforms.Normalize((0.5,) * 3, (0.25,) * 3)])
expected = (torch.from_numpy(pixels[1:3, 2:4] / 255).permute(2, 0, 1).float() - 0.5) / 0.25
larger = transforms.Resize(8, transforms.InterpolationMode.BICUBIC)(image)
import open_clip, timm
print(json.dumps({
    "calls": calls,
    "close": torch.allclose(steps(image), expected, atol=1e-6),
    "larger": larger.size,
    "same": larger.tobytes() == image.resize((12, 8), Image.Resampling.BICUBIC).tobytes(),
    "towers": hasattr(open_clip, "create_model") and hasattr(timm, "create_model"),
}))
"""

PLAIN = "import torchvision"


@pytest.fixture(scope="module")
def mended() -> dict:
    result = run(MENDED)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_transforms_work(mended):
    assert mended["close"] and mended["same"] and mended["towers"]
    assert mended["larger"] == [12, 8]


def test_calling_again_is_harmless(mended):
    assert mended["calls"] in ([True] * 4, [False] * 4)


def test_something_is_mended_only_where_it_is_broken(mended):
    plain = run(PLAIN)
    broken = plain.returncode != 0
    assert mended["calls"][0] == broken, plain.stderr
    assert not broken or "torchvision::nms does not exist" in plain.stderr


def test_a_torchvision_already_imported_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(_torchvision, "_library", None)
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    assert _torchvision.make_importable() is False
    assert _torchvision._library is None


def test_without_torchvision_there_is_nothing_to_mend(monkeypatch):
    monkeypatch.setattr(_torchvision, "_library", None)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert _torchvision.make_importable() is False
    assert _torchvision._library is None
