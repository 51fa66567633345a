"""What a run from shards takes, and the processes and devices it runs on.

Lightning Fabric joins a process to the others and moves the model to its device, wrapped in
``DistributedDataParallel``. It leaves the loop to us, which Accelerate would do as well; Fabric is
the smaller dependency, and takes its environment as an argument in place of guessing it.
"""

import os
import warnings
from dataclasses import dataclass

import torch

try:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy
except ImportError as error:
    raise ImportError(
        'training from shards needs lightning-fabric: pip install "mgca[train]"'
    ) from error

from mgca.config import TrainConfig
from mgca.data.shards import CORRUPT_LIMIT
from mgca.utils.processes import exit_with_parent


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a run takes, and how: nothing of it changes what is learned, but for rounding.

    Attributes:
        accelerator: As of Lightning Fabric: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        workers: Processes that read and decode images for each process; None for as many as there
            are cores for, 0 for none.
        micro_batch: Images that pass through the decoder at a time; None for all of a process.
        budget: Bytes that the losses may hold beside their inputs.
        checkpoint_every: Steps between checkpoints.
        keep: Newest checkpoints that are kept.
        milestone: Every checkpoint whose step this number divides is kept too; None for none.
        corrupt_limit: Share of the samples that may be unreadable.
        precomputed: Folder of nouns and text embeddings; by default the cache.
        download_limit: Bytes that downloaded shards may take in the cache.
    """

    accelerator: str = "auto"
    workers: int | None = None
    micro_batch: int | None = None
    budget: int | None = None
    checkpoint_every: int = 500
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


def make_fabric(resources: Resources, config: TrainConfig) -> Fabric:
    """Fabric on this process's device, and on those of all others if ``torchrun`` launched it.

    Raises:
        ValueError: If the precision needs another device.
    """
    # Without it deterministic matrix products are refused on a GPU; it is read once, at the first.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    several = torch.distributed.is_torchelastic_launched()
    local = int(os.environ["LOCAL_WORLD_SIZE"]) if several else 1
    fabric = Fabric(
        accelerator=resources.accelerator,
        # Parameters are never unused. Said otherwise, gradients stay in the buckets they begin in,
        # and a run that is resumed adds them up in the order of one that was not interrupted.
        strategy=DDPStrategy(find_unused_parameters=True) if several else "auto",
        devices=local,
        num_nodes=int(os.environ["WORLD_SIZE"]) // local if several else 1,
        # Said, because Fabric would take a shell inside a SLURM job for one of its tasks.
        plugins=[TorchElasticEnvironment() if several else LightningEnvironment()],
    )
    fabric.launch()
    if several:
        exit_with_parent()  # torchrun's processes outlive it where it is killed
    if config.precision == "float16" and fabric.device.type != "cuda":
        raise ValueError("precision float16 needs a GPU: use bfloat16 or float32")
    if several:
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    if fabric.device.type == "cuda":
        # Where the decoder's outputs have 8 or 11 bits, TF32's 11 are enough for the losses;
        # float32 is float32, in convolutions too.
        half = config.precision != "float32"
        torch.set_float32_matmul_precision("high" if half else "highest")
        torch.backends.cudnn.allow_tf32 = half
    return fabric
