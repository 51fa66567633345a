"""A run of the paper's scale on several devices, a process on each, by ``torchrun``.

They train together and share the images of the benchmarks out. The process that started them then
finds decoder and counts in the run's folder (:meth:`mgca.experiments.paper.PaperScale.join`).
"""

import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import torch

from mgca.experiments.grid import ABLATIONS, Variant, grid
from mgca.experiments.paper import PaperScale
from mgca.experiments.paper_file import made_of, table_of
from mgca.experiments.runner import compute
from mgca.training.resources import launch
from mgca.utils.files import write_text
from mgca.utils.processes import exit_with_parent

_PATIENCE = 120  # seconds that processes have to write a checkpoint after Ctrl-C


def together(scale: PaperScale, variant: Variant, seed: int, folder: Path) -> None:
    """Compute a run with a process for each device.

    Args:
        scale: The scale.
        variant: The variant that is run.
        seed: Seed of the run.
        folder: Folder of the run. What they print goes into its ``log.txt``.

    Raises:
        RuntimeError: If they do not come to their end; what they computed is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task, log = folder / "task.json", folder / "log.txt"
    about = {"file": table_of(scale.file), "run": variant.run(scale, seed), "seed": seed}
    write_text(task, json.dumps(about | {"units": variant.units}))
    words = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(scale.file.devices)]
    words += ["-m", "mgca.experiments.paper_run", str(task), str(os.getpid())]
    with log.open("w", encoding="utf-8") as lines:
        child = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdout=lines,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        try:
            code = child.wait()
        except KeyboardInterrupt:  # which reached them too
            child.wait(_PATIENCE)
            raise
    if code:
        raise RuntimeError(f"{last_error(log)} ({scale.file.devices} processes, {log})")
    task.unlink()


def last_error(log: Path) -> str:
    """The error that the processes of a run printed, as its last line says it.

    Args:
        log: File of what they printed.
    """
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    # torchrun marks the lines of a process by its rank: "[rank0]: ValueError: ...".
    said = [line.rpartition("]: ")[2].strip() for line in lines]
    errors = [line for line in said if line.partition(": ")[0].endswith(("Error", "NotFinite"))]
    errors = [line for line in errors if "ChildFailedError" not in line]
    return errors[-1] if errors else "a process was killed, perhaps for lack of memory"


def main(task: str, parent: str) -> None:
    """Compute a task as one of several processes.

    Args:
        task: File that says which, in the run's folder.
        parent: Number of the process that waits for it.
    """
    exit_with_parent(int(parent))
    folder, about = Path(task).parent, json.loads(Path(task).read_text(encoding="utf-8"))
    scale, seed = PaperScale(made_of(about["file"])), about["seed"]
    every = (variant for name in ABLATIONS for variant in grid(name, scale))
    variant = next(variant for variant in every if variant.run(scale, seed) == about["run"])
    variant = dataclasses.replace(variant, units=tuple(about["units"]))
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces each process
    scale.process = launch(scale.file.resources, scale.training)
    if scale.process.is_global_zero:
        # Whatever was imported may have set up another log.
        logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    compute(variant, seed, scale, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
