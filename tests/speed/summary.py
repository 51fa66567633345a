"""The table's headline numbers beside what they are wanted to be at most.

``python tests/speed/summary.py`` reads ``results/speed/<device>.csv``.
"""

import argparse
from pathlib import Path

import torch
from inference import device_name

from mgca.evaluation.results import read_results

# At most, on a CPU and on a GPU; None where no limit is set.
WANTED = {
    "losses_over_decoder": (0.25, None),
    "losses_peak_over_similarity": (2.0, 2.0),
    "losses_over_step": (None, 0.15),
    "step_over_floor": (1.35, 1.35),
    "units_over_decoder": (0.05, 0.05),
    "scaling_exponent_batch": (None, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="results/speed", help="folder of the table")
    parser.add_argument("--device", help="name of the table; by default made from the machine")
    given = parser.parse_args()
    gpu = torch.cuda.is_available()
    name = given.device or device_name("cuda" if gpu else "cpu")
    table = read_results(Path(given.out) / f"{name}.csv")
    for metric, limits in WANTED.items():
        for row in table[table["metric"] == metric].itertuples():
            most = limits[gpu]
            wanted = "" if most is None else f"at most {most:g}: {_verdict(row.value, most)}"
            print(f"{metric:30} {row.variant:32} {row.dataset:30} {row.value:8.3f}  {wanted}")


def _verdict(value: float, most: float) -> str:
    return "yes" if value <= most else "NO"


if __name__ == "__main__":
    main()
