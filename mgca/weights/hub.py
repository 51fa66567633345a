"""Models on the Hugging Face hub: ``mgca.load("hf://owner/name")``, ``model.push_to_hub(...)``.

A repository is a folder of :mod:`mgca.weights.saved`, that is what was trained and nothing else.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mgca.config import SegmentConfig
from mgca.model import Model
from mgca.utils.files import write_text
from mgca.weights import WeightsError
from mgca.weights.saved import CONFIG, load_folder, model_card, read_config, save_folder

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


def load(name: str, *, decoder: bool = True, config: SegmentConfig | None = None) -> Model:
    """The model of a repository, downloaded once.

    All files are taken from the commit that the first one came from. A private repository opens
    with the token of ``hf auth login`` or of ``$HF_TOKEN``.

    Args:
        name: ``hf://owner/name``, or with ``@`` and a branch, tag or commit. Only a whole commit
            names the same files for ever.
        decoder: Without it the backbone's dense features are used as they are.
        config: Sliding window and units; by default those of the repository.

    Raises:
        ValueError: If the name is not of that form.
        HubError: If the files cannot be had.
        WeightsError: If they are damaged, or not those of a model that can be loaded here.
        BackboneUnavailable: If the backbone's own weights cannot be had.
    """
    repo, revision = parse_name(name)
    path = _download(repo, CONFIG, revision)
    # The cache keeps a commit's files in a folder of its name.
    commit = path.parent.name
    for file in read_config(path)["files"]:
        _download(repo, file, commit)
    return load_folder(path.parent, decoder=decoder, config=config)


def push(
    model: Model,
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    data: str = "",
    metrics: Mapping[str, float] | None = None,
    license: str | None = None,
    run: str = "",
    message: str = "Upload a model of mgca",
) -> str:
    """Upload what is trained of a model, with a model card; makes the repository if need be.

    The files are written to a temporary folder and loaded again from there first: what cannot be
    loaded, or is not the same model, is not uploaded.

    Args:
        repo: ``"owner/name"``.
        private: Of a new repository; None for the owner's default.
        token: With the right to write; by default that of ``hf auth login`` or of ``$HF_TOKEN``.
        data: What it was trained on, for the card.
        metrics: Numbers by name, for the card.
        license: Of the weights, as the hub abbreviates it ("apache-2.0"); the card says so where
            none is given.
        run: Hash of the configuration that trained it.
        message: Of the commit.

    Returns:
        The ``hf://`` name of the new commit, which :func:`load` takes.

    Raises:
        ValueError: If nothing of the model is trained, or the name is not of that form.
        WeightsError: If the model could not be loaded again, such as one on other weights of the
            backbone than ``model.pretrained`` says.
        HubError: If it cannot be uploaded.
    """
    from huggingface_hub import HfApi

    if parse_name(f"{PREFIX}{repo}") != (repo, None):
        raise ValueError(f"a repository to upload to is owner/name, without a revision: {repo!r}")
    with tempfile.TemporaryDirectory(prefix="mgca-") as folder:
        save_folder(model, folder, run=run)
        again = load_folder(folder)
        if again.trained != model.trained or again.config != model.config:
            raise WeightsError("what was written is not the model: it was not uploaded")
        card = model_card(repo, folder, data=data, metrics=metrics or {}, license=license, run=run)
        write_text(Path(folder) / "README.md", card)
        api = HfApi(token=token, library_name="mgca")
        with _explained(repo, "upload to"):
            api.create_repo(repo, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    return f"{PREFIX}{repo}@{commit.oid}"


def _download(repo: str, file: str, revision: str | None) -> Path:
    """Path in the cache of a repository's file, downloaded where it is not there."""
    from huggingface_hub import HfApi

    with _explained(repo, f"get {file} of"):
        return Path(HfApi(library_name="mgca").hf_hub_download(repo, file, revision=revision))


@contextmanager
def _explained(repo: str, what: str) -> Iterator[None]:
    """Errors of the hub in one sentence that says what to do."""
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
    """What led to an error that says only that a file is neither in the cache nor to be had."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error
