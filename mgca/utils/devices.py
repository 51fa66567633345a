"""Which device computes: the one rule of all commands."""

import os

import torch


def pick_device(name: str = "auto") -> torch.device:
    """A device that torch can compute on here.

    Args:
        name: ``"auto"`` for the GPU if there is one, or this process's own among those that
            ``torchrun`` started, else the CPU; or a device's own name, such as ``"cpu"`` or
            ``"cuda:1"``.

    Raises:
        ValueError: If torch cannot compute on it, with torch's reason in one line.
    """
    if name == "auto":
        own = f"cuda:{os.environ['LOCAL_RANK']}" if "TORCHELASTIC_RUN_ID" in os.environ else "cuda"
        name = own if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).sum().item()
    except Exception as error:  # each backend has errors of its own
        lines = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"no device {name!r} here: {lines[0]}") from error
    return torch.device(name)
