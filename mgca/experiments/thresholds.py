"""The threshold curves of a scale: ``results/<scale>/background.csv``."""

import argparse
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mgca.config import config_hash, to_dict
from mgca.evaluation.results import write_run
from mgca.evaluation.thresholds import TEMPERATURES, choose, log, threshold_curve
from mgca.experiments import load_scale
from mgca.experiments.scale import Scale
from mgca.model import Model
from mgca.utils.files import replacing
from mgca.utils.provenance import provenance
from mgca.weights import load_weights
from mgca.weights.decoders import decoder_from

COLUMNS = ["variant", "dataset", "unit", "seed", "temperature", "threshold", "miou", "run"]


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m mgca.experiments.thresholds``: curves on images that are no benchmark."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--scale", default="scenes", help="scenes or photos")
    parser.add_argument("--data", default=None, help="data sets; $MGCA_DATA or ../shared/data")
    parser.add_argument("--cache", default=None, help="features; $MGCA_CACHE or ~/.cache/mgca")
    parser.add_argument("--out", default=None, help="results folder; results/<scale>")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    scale = load_scale(given.scale, data=given.data, cache=given.cache)
    table = scale_curves(scale, given.out or Path("results") / scale.name)
    threshold, temperature, miou = choose(table)
    log.info("best: threshold %.2f, temperature %g, mean mIoU %.2f", threshold, temperature, miou)


def scale_curves(scale: Scale, out: str | os.PathLike) -> pd.DataFrame:
    """Curves of the published models of a scale, with and without their decoder, both units.

    Writes ``<out>/background.csv`` and the run's provenance.
    """
    began = time.perf_counter()
    data = scale.calibration()
    state, meta = load_weights(f"{scale.training.backbone}-mgca")
    backbone = scale.published_backbone()
    decoders = {"dense": None, "mgca": decoder_from(state, meta, backbone)}
    config = {
        "scale": scale.name,
        "set": [data.name, data.digest, len(data)],
        "decoder": meta["run"],
        "backbone": backbone.digest,
        "segment": to_dict(scale.segment()),
        "temperatures": TEMPERATURES,
    }
    run = config_hash(config)
    curves = []
    for variant, decoder in decoders.items():
        model = Model(backbone, decoder, scale.segment())
        # The one in use among them, so that its curve is there.
        own = round(scale.background(model)["temperature"], 4)
        curve = threshold_curve(model, data, temperatures=sorted({*TEMPERATURES, own}))
        curves.append(curve.assign(variant=variant, dataset=data.name, seed=0, run=run))
    table = pd.concat(curves, ignore_index=True)[COLUMNS]
    record = provenance(
        config, seed=0, data={data.name: data.digest}, seconds=time.perf_counter() - began
    )
    write_run(out, run, record)
    with replacing(Path(out) / "background.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table


if __name__ == "__main__":
    main()
