"""Run by torchrun from test_shares.py: an evaluation whose images several processes share.

``shared_out.py FOLDER [IMAGES]``: with the last, a process ends when it would begin another image
after so many.
"""

import json
import sys
from pathlib import Path

import torch
from evaluated import load, tiny

from mgca.data.masks import Masked
from mgca.evaluation import shares
from mgca.evaluation.benchmark import Evaluation, masked


def main(folder: Path, images: int | None = None) -> None:
    rank = shares.join()
    subject, read = masked(load(folder)), Masked.__getitem__
    seen = []

    def noted(self, index):
        if len(seen) == images:
            raise OSError("the disk is gone")
        seen.append(index)
        return read(self, index)

    Masked.__getitem__ = noted
    evaluation = Evaluation(tiny(), "tiny", subject, (None, 16), contours=True)
    record, found = evaluation.compute(folder / "out", folder / "work")
    said = {unit: confusion.counts.tolist() for unit, confusion in found.items()}
    said |= {"seen": seen, "measured": record["measured"]}
    (folder / f"said-{rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
