"""What is set before a GPU computes; the settings are there without one."""

import os

import pytest
import torch

from mgca.utils.devices import allow_tf32, pick_device


@pytest.fixture(autouse=True)
def settings_of_torch():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("own", [None, ":16:8"])
def test_whoever_picks_a_device_can_have_deterministic_products(monkeypatch, own):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if own:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", own)
    pick_device("cpu")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (own or ":4096:8")


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_set_for_products_and_convolutions_of_a_gpu(allowed):
    def settings():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = settings()
    allow_tf32(torch.device("cpu"), not before[1])
    assert settings() == before
    allow_tf32(torch.device("cuda"), allowed)
    assert settings() == (("high", True) if allowed else ("highest", False))
