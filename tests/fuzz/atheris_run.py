"""Fuzzing guided by coverage: ``python tests/fuzz/atheris_run.py shard --seconds 60``.

Each target (``--list`` names them) runs in a process of its own, from a corpus of its valid files
that grows by the inputs which reach new code of mgca. An input that breaks a property ends the
target and is kept in ``--out`` as ``TARGET-crash-*``; ``--replay FILE`` runs it again. Wants a
machine of its own no more than the tests do: the limits count the process's own seconds.
"""

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
LONGEST = 65536  # bytes of an input
MEMORY = 4096  # MiB at which libFuzzer itself ends a target


def fuzz(name: str, out: Path, seconds: int, runs: int) -> None:
    """Fuzz one target; does not return, libFuzzer ends the process."""
    import atheris
    from harness import attempt
    from mutations import change
    from targets import TARGETS

    target = TARGETS[name]
    folder = Path(tempfile.mkdtemp(prefix=f"mgca-fuzz-{name}-"))
    corpus = out / f"{name}-corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        """libFuzzer's own mutations and ours, in turn."""
        chance = random.Random(seed)
        if chance.random() < 0.5:
            data = atheris.Mutate(data, longest)
        else:
            data = change(data, chance)
        if target.repair and chance.random() < 0.8:
            data = target.repair(data)
        return data[:longest]

    options = [f"-artifact_prefix={out}/{name}-", f"-max_len={LONGEST}", f"-rss_limit_mb={MEMORY}"]
    options += [f"-runs={runs}" if runs else f"-max_total_time={seconds}", "-print_final_stats=1"]
    options += ["-seed=1", "-use_value_profile=0", "-verbosity=1", "-timeout=300"]
    atheris.Setup(
        [sys.argv[0], *options, str(corpus)],
        lambda data: attempt(target, data, folder / "x"),
        custom_mutator=mutate,
    )
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="one after the other")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    parser.add_argument("--runs", type=int, default=0, help="of each target, in place of seconds")
    parser.add_argument("--out", type=Path, default=Path("_build/fuzz"), help="corpora and crashes")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the target on this input")
    given = parser.parse_args()
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import atheris

    # The libraries below are taken as they are: what counts is how much of mgca is reached.
    with atheris.instrument_imports(include=["mgca"], enable_loader_override=False):
        from harness import attempt
        from targets import TARGETS
    import torch

    torch.set_num_threads(1)
    if given.list:
        print("\n".join(TARGETS))
        return 0
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}: {', '.join(TARGETS)}")
    if given.replay:
        with tempfile.TemporaryDirectory() as folder:
            for name in given.targets:
                read = attempt(TARGETS[name], given.replay.read_bytes(), Path(folder) / "x")
                print(f"{name}: {'read' if read else 'refused'}")
        return 0
    failed = []
    for name in given.targets or TARGETS:
        print(f"== {name}", file=sys.stderr, flush=True)
        child = os.fork()  # all that was imported is shared
        if child == 0:
            fuzz(name, given.out.resolve(), given.seconds, given.runs)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            failed.append(name)
    if failed:
        print(f"broken: {', '.join(failed)}; inputs in {given.out}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
