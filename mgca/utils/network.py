"""Downloads that cannot be had are a clear error."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def from_hub(what: str, kind: type[Exception]) -> Iterator[None]:
    """A context in which a hub out of reach is an error that says what is missing and what to do.

    Args:
        what: Name of what the block loads, such as "the weights of vit-b-16".
        kind: The class of the error.

    Raises:
        Exception: Of the class ``kind``, if the network cannot be used and the file is not in the
            cache.
    """
    from huggingface_hub import constants

    try:
        yield
    except Exception as error:
        if not _is_unreachable(error):
            raise
        raise kind(
            f"{what}: not in the cache ({constants.HF_HUB_CACHE}) and not to be downloaded: "
            f"{error}\nConnect to the network once, or copy the cache folder from a machine that "
            'has it. mgca.load("lite") works offline.'
        ) from error


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is about the network or a file that is not cached."""
    while error is not None:
        module = type(error).__module__.split(".")[0]
        if isinstance(error, OSError) or module in ("httpx", "httpcore", "huggingface_hub"):
            return True
        error = error.__cause__ or error.__context__
    return False
