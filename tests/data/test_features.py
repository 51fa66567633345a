"""Features that are kept: two who want the same ones at once."""

import threading

import numpy as np
from tiny import TinyBackbone

from mgca.data.features import image_features
from mgca.data.scenes import training_pairs


class Slow(TinyBackbone):
    """Holds its first batch until told to go on, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on, self.batches = threading.Event(), threading.Event(), 0

    def features(self, images):
        self.batches += 1
        self.begun.set()
        self.go_on.wait(60)
        return super().features(images)


def test_what_another_computes_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("mgca.utils.files._PATIENCE", 0.1)
    data, found = training_pairs(5, 0), {}
    first, second = Slow(), Slow()
    second.go_on.set()

    def compute(name, backbone):
        found[name] = image_features(backbone, data, size=112, batch=2, folder=tmp_path)

    threads = [
        threading.Thread(target=compute, args=each, daemon=True)
        for each in (("first", first), ("second", second))
    ]
    threads[0].start()
    assert first.begun.wait(60)
    threads[1].start()
    threads[1].join(1)
    assert threads[1].is_alive() and not second.batches
    first.go_on.set()
    for thread in threads:
        thread.join(60)
    assert first.batches == 4 and not second.batches  # one tells the shape
    np.testing.assert_array_equal(found["first"], found["second"])
