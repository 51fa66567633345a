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
    make_repeatable()
    if name == "auto":
        own = f"cuda:{os.environ['LOCAL_RANK']}" if "TORCHELASTIC_RUN_ID" in os.environ else "cuda"
        name = own if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).sum().item()
    except Exception as error:  # each backend has errors of its own
        lines = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"no device {name!r} here: {lines[0]}") from error
    return torch.device(name)


def make_repeatable() -> None:
    """Let a GPU's matrix products be the same every time; called before the first of them.

    torch refuses deterministic ones otherwise, and asks once only.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def allow_tf32(device: torch.device, allowed: bool) -> None:
    """Whether a GPU may compute products of float32 numbers in TF32, which has 11 bits for 24.

    torch's own default is yes in convolutions and no in matrix products.

    Args:
        device: Any device; nothing is done for a CPU.
        allowed: Yes where what is computed beside has 8 or 11 bits anyway.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed
