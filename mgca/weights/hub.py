"""Models on the Hugging Face hub: ``mgca.load("hf://owner/name")``, ``model.push_to_hub(...)``.

A repository is a folder of :mod:`mgca.weights.saved`, that is what was trained and nothing else.
Folders go up and come down here; :mod:`mgca.model` makes models of them.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mgca.weights.saved import CONFIG, read_config

PREFIX = "hf://"
_NAME = re.compile(rf"{PREFIX}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


class HubError(OSError):
    """A repository cannot be reached, read or written; the message says what to do."""


def parse_name(name: str) -> tuple[str, str | None]:
    """Repository ``"owner/name"`` and revision, if any, of ``hf://owner/name[@revision]``.

    Raises:
        ValueError: If the name is not of that form.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"a model on the hub is hf://owner/name or hf://owner/name@revision: {name!r}"
        )
    return match[1], match[2]


def download(name: str) -> Path:
    """The folder of the cache with the files of a repository, downloaded once.

    All files are taken from the commit that the first one came from. A private repository opens
    with the token of ``hf auth login`` or of ``$HF_TOKEN``.

    Args:
        name: Name of the repository, ``hf://owner/name``, or with ``@`` and a branch, tag or
            commit. Only a whole commit names the same files for ever.

    Raises:
        ValueError: If the name is not of that form.
        HubError: If the files cannot be had.
        WeightsError: If it is no model of this library.
    """
    repo, revision = parse_name(name)
    path = _download(repo, CONFIG, revision)
    # The cache keeps a commit's files in a folder of its name.
    commit = path.parent.name
    for file in read_config(path).files:
        _download(repo, file, commit)
    return path.parent


def upload(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Upload a model of mgca",
) -> str:
    """Upload a folder to a repository, which is made if need be.

    Args:
        folder: Folder with the files of the model and its card.
        repo: Name of the repository, ``"owner/name"``, as :func:`check_repo` wants it.
        private: Whether a new repository is private; None for the owner's default.
        token: Token with the right to write; by default that of ``hf auth login`` or of
            ``$HF_TOKEN``.
        message: Message of the commit.

    Returns:
        The ``hf://`` name of the new commit, which :func:`download` takes.

    Raises:
        HubError: If it cannot be uploaded.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="mgca")
    with _explained(repo, "upload to"):
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    return f"{PREFIX}{repo}@{commit.oid}"


def check_repo(repo: str) -> None:
    """Refuse a name that is not one of a repository to upload to.

    Raises:
        ValueError: If it is not ``"owner/name"``.
    """
    if parse_name(f"{PREFIX}{repo}") != (repo, None):
        raise ValueError(f"a repository to upload to is owner/name, without a revision: {repo!r}")


def _download(repo: str, file: str, revision: str | None) -> Path:
    """Path in the cache of a repository's file, downloaded where it is not there."""
    from huggingface_hub import HfApi

    with _explained(repo, f"get {file} of"):
        return Path(HfApi(library_name="mgca").hf_hub_download(repo, file, revision=revision))


@contextmanager
def _explained(repo: str, what: str) -> Iterator[None]:
    """A context whose errors of the hub become one sentence that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except Exception as error:
        cause = _cause(error)
        status = getattr(getattr(cause, "response", None), "status_code", None)
        login = "log in with `hf auth login`, or set HF_TOKEN"
        if isinstance(cause, errors.GatedRepoError):
            reason = f"its owner grants access: ask for it on the page of {repo}, then {login}"
        elif isinstance(cause, errors.RevisionNotFoundError):
            reason = "it has no such revision"
        elif isinstance(cause, errors.RemoteEntryNotFoundError):
            reason = "it has no such file: it was not written by push_to_hub of mgca"
        elif isinstance(cause, errors.RepositoryNotFoundError):
            reason = f"there is no such repository, or it is private: check the name, or {login}"
        elif isinstance(cause, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
            reason = "it is not in the cache, and HF_HUB_OFFLINE forbids the network"
        elif status in (401, 403) or isinstance(cause, errors.LocalTokenNotFoundError):
            reason = f"no token, or one without the right to do so: {login}"
        elif status is not None:
            reason = f"the hub answers with status {status}: try again later"
        elif isinstance(cause, OSError) or type(cause).__module__.startswith("http"):
            reason = f"{' '.join(str(cause).split())}: check the network and try again"
        else:
            raise
        raise HubError(f"cannot {what} {PREFIX}{repo}: {reason}") from error


def _cause(error: BaseException) -> BaseException:
    """The cause of an error that says only that a file is neither in the cache nor to be had."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error
