"""The threshold curves of a scale, ``background.csv``: ``mgca experiment thresholds``."""

import os
import time
from pathlib import Path

import pandas as pd

from mgca.config import config_hash, to_dict
from mgca.decoder import GatedConvDecoder
from mgca.evaluation.results import write_run
from mgca.evaluation.thresholds import TEMPERATURES, threshold_curve
from mgca.experiments.scale import Scale
from mgca.model import Model
from mgca.utils.files import replacing
from mgca.utils.provenance import provenance
from mgca.weights import HEADS, load_weights
from mgca.weights.decoders import decoder_from

COLUMNS = ["variant", "dataset", "unit", "seed", "temperature", "threshold", "miou", "run"]


def scale_curves(scale: Scale, out: str | os.PathLike) -> pd.DataFrame:
    """Curves of the published models of a scale, with and without a decoder, both units.

    Writes ``<out>/background.csv`` and the run's provenance.
    """
    began = time.perf_counter()
    data = scale.calibration()
    backbone = scale.published_backbone()
    decoders: dict[str, GatedConvDecoder | None]
    if backbone.name in HEADS:
        _, meta = load_weights(f"{backbone.name}-alignment")
        decoders = {"mgca": None}
    else:
        state, meta = load_weights(f"{backbone.name}-mgca")
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
        temperature = round(scale.background(model)["temperature"], 4)
        curve = threshold_curve(model, data, temperatures=sorted({*TEMPERATURES, temperature}))
        curves.append(curve.assign(variant=variant, dataset=data.name, seed=0, run=run))
    table = pd.concat(curves, ignore_index=True)[COLUMNS]
    record = provenance(
        config, seed=0, data={data.name: data.digest}, seconds=time.perf_counter() - began
    )
    write_run(out, run, record)
    with replacing(Path(out) / "background.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table


def as_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The curves with the columns ``metric`` and ``value`` of the tables of runs.

    A point's metric is ``miou at TEMPERATURE, THRESHOLD``.
    """
    places = zip(table["temperature"], table["threshold"], strict=True)
    metric = [f"miou at {t:g}, {threshold:g}" for t, threshold in places]
    return table.assign(metric=metric, value=table["miou"])
