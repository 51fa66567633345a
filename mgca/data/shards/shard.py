"""A shard that is open: its members are read where they lie."""

import os
from dataclasses import replace
from pathlib import Path

from mgca.data.shards.index import CAPTION_KEY, ShardError, Span, index_of, is_remote
from mgca.data.shards.remote import Evicted, fetch
from mgca.data.shards.sample import CorruptSample, caption_of

# Downloads, of a shard that other processes remove to make room for theirs.
_ATTEMPTS = 3


class OpenShard:
    """An open shard; a context manager that closes it.

    Args:
        place: Path or URL; what is behind a URL is downloaded first, unless it lies in the cache.
        count: Number of samples that it should have, or None for any number.
        download_limit: Bytes that all downloads may take, as in
            :func:`mgca.data.shards.remote.fetch`.
        caption_key: The key of the ``.json`` under which captions lie.

    Raises:
        ShardError: If it is missing, cannot be fetched, is truncated, or has another number of
            samples.
    """

    def __init__(
        self,
        place: str,
        count: int | None = None,
        download_limit: int | None = None,
        *,
        caption_key: str = CAPTION_KEY,
    ) -> None:
        self.place = place
        for attempt in reversed(range(_ATTEMPTS)):
            try:
                if is_remote(place):
                    path, index = fetch(place, download_limit)
                else:
                    path, index = Path(place), index_of(place, place)
                self.index = replace(index, caption_key=caption_key)
                self._file = path.open("rb", buffering=0)
                break
            except (Evicted, FileNotFoundError) as error:
                if attempt and is_remote(place):
                    continue
                if isinstance(error, ShardError):
                    raise
                raise ShardError(f"{place} cannot be opened: {error.strerror}") from error
            except OSError as error:
                raise ShardError(f"{place} cannot be opened: {error.strerror}") from error
        if count is not None and len(self.index) != count:
            self.close()
            raise ShardError(
                f"{place} has {len(self.index)} samples, and {count} were expected: it was "
                "changed, or what counts it is of another version"
            )

    def _read(self, span: Span | None) -> bytes | None:
        if span is None:
            return None
        offset, size = span
        try:
            return os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            raise ShardError(f"{self.place} cannot be read: {error.strerror}") from error

    def image(self, number: int) -> bytes | None:
        """The bytes of a sample's image; None if it has none."""
        return self._read(self.index.images[number])

    def caption(self, number: int) -> str:
        """The caption of a sample, from its ``.txt`` or else its ``.json``.

        Args:
            number: Position of the sample in the shard.

        Raises:
            CorruptSample: If it has none that can be read.
        """
        text = self._read(self.index.texts[number])
        try:
            return caption_of(text, None)
        except CorruptSample:
            # The .json is often longer than the caption, and seldom asked for.
            details = self._read(self.index.details[number])
            return caption_of(text, details, self.index.caption_key)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "OpenShard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
