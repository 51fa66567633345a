"""The resources of a run, and the processes and devices it runs on.

A run on one process needs nothing else: :class:`Alone`. For several, Lightning Fabric joins a
process to the others and wraps the model in ``DistributedDataParallel``. It leaves the loop to us,
which Accelerate would do as well; Fabric is the smaller dependency, and takes its environment as an
argument in place of guessing it.
"""

import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mgca.config import TrainConfig
from mgca.data.shards import CORRUPT_LIMIT
from mgca.utils.devices import make_repeatable, pick_device
from mgca.utils.processes import exit_with_parent


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources of a run; none of them changes what is learned, but for rounding.

    Attributes:
        accelerator: Kind of device, ``"auto"``, ``"cpu"`` or ``"cuda"``, or one device such as
            ``"cuda:1"``.
        workers: Number of processes that read and decode images for each process; None for as many
            as there are cores for, 0 for none.
        micro_batch: Number of images that pass through the decoder at a time; None for all of a
            process.
        budget: Bytes that the losses may hold beside their inputs.
        checkpoint_every: Number of steps between checkpoints.
        keep: Number of newest checkpoints that are kept.
        milestone: Number of steps between checkpoints that are kept for good; None for none.
        corrupt_limit: Share of the samples that may be unreadable.
        precomputed: Folder of nouns and text embeddings; by default the cache.
        download_limit: Bytes that downloaded shards may take in the cache.
    """

    accelerator: str = "auto"
    workers: int | None = None
    micro_batch: int | None = None
    budget: int | None = None
    checkpoint_every: int = 50
    keep: int = 2
    milestone: int | None = None
    corrupt_limit: float = CORRUPT_LIMIT
    precomputed: str | os.PathLike | None = None
    download_limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "keep", "micro_batch", "milestone", "budget"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if (self.workers or 0) < 0 or not 0 <= self.corrupt_limit <= 1:
            raise ValueError("workers must not be negative, and corrupt_limit a share")


class Process(Protocol):
    """One of the processes of a run: what training needs of it, as Lightning Fabric has it."""

    @property
    def device(self) -> torch.device: ...
    @property
    def global_rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def is_global_zero(self) -> bool: ...

    def setup(self, module: nn.Module) -> Any:
        """The module, wrapped so that its gradients are those of all processes."""
        ...

    def backward(self, tensor: Tensor) -> None: ...
    def no_backward_sync(
        self, module: Any, enabled: bool = True
    ) -> AbstractContextManager[None]: ...
    def barrier(self) -> None: ...


@dataclass(frozen=True)
class Alone:
    """The only process of a run.

    Attributes:
        device: Device on which it computes.
    """

    device: torch.device

    global_rank = 0
    world_size = 1
    is_global_zero = True

    def setup(self, module: nn.Module) -> nn.Module:
        return module.to(self.device)

    def backward(self, tensor: Tensor) -> None:
        tensor.backward()

    def no_backward_sync(self, module: Any, enabled: bool = True) -> AbstractContextManager[None]:
        return nullcontext()

    def barrier(self) -> None:
        pass


def launch(resources: Resources, config: TrainConfig) -> Process:
    """This process on its device, with all others if ``torchrun`` launched it.

    Raises:
        ImportError: If ``torchrun`` launched it, and lightning-fabric is missing.
        ValueError: If the precision needs another device, or there is no such device.
    """
    several = torch.distributed.is_torchelastic_launched()
    process = _fabric(resources) if several else Alone(pick_device(resources.accelerator))
    check_precision(config, process.device)
    return process


def check_precision(config: TrainConfig, device: torch.device) -> None:
    """Refuse a precision that a device cannot train in.

    Raises:
        ValueError: If the device cannot train in the configuration's precision.
    """
    if config.precision == "float16" and device.type != "cuda":
        raise ValueError("precision float16 needs a GPU: use bfloat16 or float32")


def _fabric(resources: Resources) -> Process:
    """Lightning Fabric, which joins the processes that ``torchrun`` launched."""
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments import TorchElasticEnvironment
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        raise ImportError(
            'training on several processes needs lightning-fabric: pip install "mgca[train]"'
        ) from error
    make_repeatable()
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    fabric = Fabric(
        accelerator=resources.accelerator,
        # Parameters are never unused. Said otherwise, gradients stay in the buckets they begin in,
        # and a run that is resumed adds them up in the order of one that was not interrupted.
        strategy=DDPStrategy(find_unused_parameters=True),
        devices=local,
        num_nodes=int(os.environ["WORLD_SIZE"]) // local,
        plugins=[TorchElasticEnvironment()],
    )
    fabric.launch()
    exit_with_parent()  # torchrun's processes outlive it where it is killed
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    return fabric
