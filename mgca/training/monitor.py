"""The speed of a long run while it runs, and the signals that ask it to stop."""

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Meter:
    """Speed of a run, step by step.

    Args:
        flops: FLOPs of an image with its text, in a step.
        ceiling: FLOP/s of all devices together, as measured with large matrix products.
        seconds: Time that the run had taken before it was interrupted.
    """

    def __init__(self, flops: float, ceiling: float, seconds: float = 0.0) -> None:
        self.flops, self.ceiling = flops, ceiling
        self.began = time.perf_counter() - seconds
        self.last = time.perf_counter()
        self.waited = 0.0

    def timed(self, items: Iterable[T]) -> Iterator[T]:
        """The items one by one, while the time that is spent waiting for them is measured."""
        iterator = iter(items)
        while True:
            before = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.waited = time.perf_counter() - before
            yield item

    def row(self, images: int) -> dict[str, float]:
        """The measures of the step that ends now.

        Args:
            images: Number of images in the step, over all processes.

        Returns:
            ``images_per_second``; ``utilisation``, the share of the ceiling that the FLOPs of the
            model make up; ``waiting``, the share of the time that this process waited for data;
            ``seconds`` since the run began.
        """
        now = time.perf_counter()
        taken, self.last = now - self.last, now
        speed = images / taken
        return {
            "images_per_second": round(speed, 2),
            "utilisation": round(speed * self.flops / self.ceiling, 4),
            "waiting": round(self.waited / taken, 3),
            "seconds": round(now - self.began, 2),
        }


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that is set when the process is asked to stop, in place of being ended at once.

    A second Ctrl-C ends it. Outside the main thread nothing is caught.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in STOP_SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
