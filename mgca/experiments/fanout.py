"""Several runs at a time: processes of this machine, or the jobs of a cluster.

On one machine joblib has the processes. On a cluster submitit has the jobs: it hands a function to
SLURM as it is and brings back what it returned, and a job that SLURM stops at its time limit queues
again, to go on where it stopped. The other choice was joblib on a Dask cluster, whose scheduler has
to live as long as the runs do, and whose workers would need a time limit longer than the longest.
submitit is imported only where a configuration asks for it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

T = TypeVar("T")
EXECUTORS = ("", "local", "slurm")
_GONE = "its process was killed, perhaps for lack of memory; the same command goes on from there"


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Where runs are computed, and how many at a time.

    Attributes:
        executor: ``""`` for processes of this machine; ``"slurm"`` for jobs of a cluster, or
            ``"local"`` for the same jobs on this machine, both by submitit.
        at_once: Number of runs at a time on this machine; a cluster decides that itself.
        requeue: Number of times that a job queues again after its time limit.
        options: What submitit's ``update_parameters`` takes: ``timeout_min``, ``slurm_partition``,
            ``gpus_per_node`` and the like.
    """

    executor: str = ""
    at_once: int = 1
    requeue: int = 20
    options: dict[str, str | int | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise ValueError(
                f'executor is "" for this machine, "local" or "slurm", not {self.executor!r}'
            )
        if self.at_once < 1:
            raise ValueError(f"at_once must be at least 1, not {self.at_once}")


def ended(
    function: Callable[..., tuple[T, str]],
    tasks: Sequence[T],
    *arguments: Any,
    folder: Path,
    jobs: int | None = None,
    submitted: Jobs | None = None,
) -> Iterator[tuple[T, str]]:
    """Tasks as they end, each with what went wrong, or an empty text.

    Args:
        function: Called with a task and the arguments; it returns the task and what went wrong.
        tasks: The tasks.
        arguments: What it is called with besides.
        folder: Folder for what a cluster's jobs print.
        jobs: Number of processes; None leaves it to ``joblib.parallel_config``, one without.
        submitted: Jobs of a cluster in their place.

    Raises:
        ImportError: If submitit is asked for and missing.
    """
    if submitted is not None and submitted.executor:
        yield from _by_submitit(function, tasks, arguments, folder, submitted)
        return
    left = list(tasks)
    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
    try:
        for task, error in parallel(delayed(function)(task, *arguments) for task in tasks):
            left.remove(task)
            yield task, error
    except TerminatedWorkerError:
        # joblib does not say whose process it was: all that had not ended are to be done again.
        yield from ((task, _GONE) for task in left)


@dataclass(frozen=True)
class _Job:
    """A function that submitit queues again at the time limit: what was computed stays."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def checkpoint(self, *arguments: Any) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def _by_submitit(
    function: Callable[..., tuple[T, str]],
    tasks: Sequence[T],
    arguments: Sequence[Any],
    folder: Path,
    jobs: Jobs,
) -> Iterator[tuple[T, str]]:
    try:
        import submitit
    except ImportError as error:
        raise ImportError(
            f'the executor {jobs.executor!r} needs submitit: pip install "mgca[cluster]"'
        ) from error
    executor = submitit.AutoExecutor(
        folder=folder, cluster=jobs.executor, slurm_max_num_timeout=jobs.requeue
    )
    executor.update_parameters(name="mgca", **jobs.options)
    submitted = {executor.submit(_Job(function), task, *arguments): task for task in tasks}
    for job in submitit.helpers.as_completed(list(submitted)):
        try:
            yield job.result()
        except Exception as error:  # of submitit's own: the function returns what went wrong
            said = str(error).strip() or type(error).__name__
            yield submitted[job], f"{said}\n{_GONE} ({job.paths.stderr})"
