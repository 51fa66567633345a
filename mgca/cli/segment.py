"""``mgca segment``: photographs of one's own into the classes asked for."""

import errno
import json
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from mgca.cli.declare import argument, flag, option
from mgca.cli.loading import (
    MODEL,
    RESULTS,
    Affinity,
    Decoder,
    Device,
    ModelName,
    Pretrained,
    Refine,
    RuleName,
    Words,
    examples,
    load_for_photographs,
    thresholds,
)
from mgca.cli.verbosity import is_verbose, notice
from mgca.config import BACKGROUND

# In a word: a number before it, several in one.
_ODD = re.compile(r"^\d+\s*:|[;\t]")
_SHOWN = 8  # classes in the summary
WORDS = "Which classes"  # panel of the help
EXAMPLES = examples(
    'mgca segment photo.jpg --classes "cat, wooden table" --out segmented',
    "mgca segment photos/ --classes-file words.txt --background 0.3 --out maps",
    'mgca segment "photos/*.jpg" --classes "cat, sofa|couch" --out maps --json',
)


def segment(
    images: Annotated[
        list[str],
        argument("IMAGES...", "Files, folders with all below them, or patterns ('a/*.jpg')."),
    ],
    *,
    classes: Annotated[
        str | None,
        option(
            "NAMES",
            "Words or phrases, commas between them; sofa|couch|settee are words of one class, "
            "and those of background|sky|wall are background.",
            WORDS,
        ),
    ] = None,
    classes_file: Annotated[
        Path | None,
        option(
            "FILE",
            "One class a line, commas between its words; lines with # first are comments.",
            WORDS,
        ),
    ] = None,
    background: Annotated[
        str | None,
        option(
            "P",
            "Pixels whose largest probability is not above this are background, label 0; "
            "0.5,cat=0.3 has another for cat. One class alone is held against words for the rest.",
            WORDS,
            show_default="every pixel gets a class",
        ),
    ] = None,
    words: Words = "largest",
    model: ModelName = "lite",
    decoder: Decoder = "mgca",
    pretrained: Pretrained = None,
    meta_points: Annotated[
        str,
        option("UNIT", "A square number of meta-points per window, or pixels: no units.", MODEL),
    ] = "36",
    affinity: Affinity = "",
    refine: Refine = False,
    rule: RuleName = "softmax",
    device: Device = "auto",
    workers: Annotated[int, option("N", "Threads that read images ahead.", MODEL, min=0)] = 1,
    out: Annotated[
        Path,
        option(
            "DIR",
            "Folder of results. An image's are named after its path below the folder that all "
            "IMAGES share: a/x.jpg.labels.png, a/x.jpg.overlay.jpg, a/x.jpg.json ...",
            RESULTS,
        ),
    ],
    overlay: Annotated[str, option("FORMAT", "Of the picture: jpg, png or none.", RESULTS)] = "jpg",
    rle: Annotated[bool, flag("--rle", "Also COCO annotations as run lengths.", RESULTS)] = False,
    polygons: Annotated[
        bool, flag("--polygons", "Also COCO annotations as polygons.", RESULTS)
    ] = False,
    probabilities: Annotated[
        bool,
        flag(
            "--probabilities",
            "Also the probability of each class as float16, an npz archive.",
            RESULTS,
        ),
    ] = False,
    confidence: Annotated[
        bool,
        flag(
            "--confidence",
            "Also a picture of the largest probability, white where it is 1.",
            RESULTS,
        ),
    ] = False,
    force: Annotated[
        bool,
        flag(
            "--force",
            "Replace results of other settings, or of another image of the name.",
            RESULTS,
        ),
    ] = False,
    as_json: Annotated[
        bool, flag("--json", "Print a line of JSON per image, and a last one.", RESULTS)
    ] = False,
) -> None:
    """Name every pixel of your photographs with one of your words.

    Images that have their results are left out, so that an interrupted call goes on. One that
    fails does not stop the others; the exit code is 1 then. --verbose prints a line per image.

    Windows that overlap are weighted towards their middle, so that no label changes along a
    window's edge; numbers on benchmarks are of windows that count equally.
    """
    if out.exists() and not out.is_dir():
        raise typer.BadParameter(f"--out {out} is a file, and results need a folder")
    from mgca.cli.outputs import Outputs, named_images, settings_of

    names, threshold = _class_words(classes, classes_file, background)
    points = _points(meta_points)
    kinds = _kinds(overlay, rle, polygons, probabilities, confidence)
    found, others = named_images(images)
    loaded, shown = load_for_photographs(
        device,
        model,
        decoder,
        pretrained,
        words=words,
        affinity=affinity,
        refine="pamr" if refine else "",
    )
    settings = settings_of(loaded, shown, names, points, threshold, rule)
    every = [Outputs(out, name, path, settings, kinds) for name, path in found.items()]
    conflicts = [outputs.conflict() for outputs in every]
    if not force:
        _refuse(conflicts)
    waiting = []
    report = _Report(len(every), list(names), others, as_json=as_json)
    for outputs, conflict in zip(every, conflicts, strict=True):
        if conflict is None and outputs.complete():
            report.add(outputs, "there")
        else:
            waiting.append(outputs)
    asked = {"meta_points": points, "background": threshold, "rule": rule}
    _segment(loaded, waiting, names, asked, workers, report)
    report.finish(out)
    if report.counts["failed"]:
        raise typer.Exit(1)


def _segment(model, waiting, classes, asked, workers, report) -> None:
    from mgca.inference.batches import ImageFailure, segment_all
    from mgca.utils.progress import progress

    photographs = [outputs.image for outputs in waiting]
    results = segment_all(model, photographs, classes, **asked, workers=workers)
    with progress(total=len(waiting), unit="image") as bar:
        for outputs, result in zip(waiting, results, strict=True):
            if isinstance(result, ImageFailure):
                report.add(outputs, "failed", error=result.error)
            else:
                try:
                    record = outputs.write(result)
                except Exception as error:  # of this image, such as a name too long for its results
                    if _is_full(error):
                        raise
                    report.add(outputs, "failed", error=error)
                else:
                    report.add(outputs, "written", record=record)
            bar.update()


def _is_full(error: BaseException | None) -> bool:
    """Whether no further image could be written either."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return True
        error = error.__cause__
    return False


class _Report:
    """Printer of the command's progress: a line per image if wanted, failures, and a summary."""

    def __init__(
        self, images: int, classes: list[str], others: Counter[str], *, as_json: bool
    ) -> None:
        self.counts = {"written": 0, "there": 0, "failed": 0}
        self._classes, self._others = classes, others
        self._images, self._begin, self._json = images, time.perf_counter(), as_json

    def add(self, outputs, status: str, *, record=None, error=None) -> None:
        self.counts[status] += 1
        if self._json:
            line = {"image": str(outputs.image), "name": outputs.name, "status": status}
            if error is None:
                line["files"] = [str(path) for path in outputs.files]
            else:
                line["error"] = self._reason(outputs, error)
            if record is not None:
                line["areas"] = {c["name"]: c["area"] for c in record["classes"]}
            self._echo(json.dumps(line, ensure_ascii=False))
            return
        if error is not None:
            typer.echo(f"mgca: {self._reason(outputs, error)}", err=True)
        elif is_verbose():
            self._echo(f"{outputs.name}: {_largest(record) if record else 'was there already'}")

    @staticmethod
    def _echo(text: str) -> None:
        """Print a text with the name of a file, which need not be UTF-8."""
        typer.echo(text.encode("utf-8", "backslashreplace").decode())

    @staticmethod
    def _reason(outputs, error: Exception) -> str:
        """The message of an error, in one line that names the image."""
        reason = " ".join(str(error).split()) or type(error).__name__
        return reason if str(outputs.image) in reason else f"{outputs.image}: {reason}"

    def finish(self, out: Path) -> None:
        seconds = time.perf_counter() - self._begin
        if self._json:
            summary = {"images": self._images, **self.counts, "seconds": round(seconds, 3)}
            summary |= {"classes": self._classes, "left_out": self._others}
            typer.echo(json.dumps({"summary": summary}, ensure_ascii=False))
        else:
            count, more = len(self._classes), len(self._classes) - _SHOWN
            notice(
                f"{count} class{'es' * (count != 1)}: {', '.join(self._classes[:_SHOWN])}"
                + f" and {more} more" * (more > 0)
            )
            written, there, failed = self.counts.values()
            notice(
                f"{self._images} image{'s' * (self._images != 1)}: {written} segmented in "
                f"{seconds:.1f} s, {there} there already, {failed} failed; results in {out}"
            )
            if self._others:
                from mgca.cli.outputs import left_out

                _warn(f"left out: {left_out(self._others)}")


def _largest(record) -> str:
    """The three largest classes of an image."""
    from mgca.inference.overlay import percent

    classes = sorted(record["classes"], key=lambda c: -c["area"])[:3]
    return ", ".join(f"{c['name']} {percent(c['area'])}" for c in classes if c["pixels"])


def _refuse(conflicts: list[str | None]) -> None:
    """Stop at the start where results of something else would be replaced."""
    reasons = [reason for reason in conflicts if reason is not None]
    if reasons:
        more = f" (and {len(reasons) - 1} more images)" if len(reasons) > 1 else ""
        raise FileExistsError(
            f"{reasons[0]}{more}: choose another --out, or replace them with --force; nothing was "
            "written"
        )


def _class_words(
    classes: str | None, file: Path | None, background: str | None
) -> tuple[dict[str, tuple[str, ...]], float | dict[str, float] | None]:
    """The words of each class, and the threshold."""
    from mgca.inference.segmenter import check_background
    from mgca.prompts import named, read_classes, split_classes

    if (classes is None) == (file is None):
        raise typer.BadParameter("give --classes or --classes-file, one of them")
    if classes is None:
        words = named(read_classes(file))
    elif os.path.isfile(classes):  # not Path.is_file, which refuses what is too long for a name
        raise typer.BadParameter(f"{classes} is a file: --classes-file {classes} reads it")
    elif not classes.strip(" ,|"):
        raise typer.BadParameter(f"--classes {classes!r} names no class")
    else:
        words = named(split_classes(classes))
    threshold = thresholds(background, [name for name in words if name != BACKGROUND])
    check_background(words, threshold)
    for word in (word for several in words.values() for word in several):
        if _ODD.search(word):
            _warn(f"{word!r} is taken as one phrase: between names stand commas, or they are lines")
    if len(words) == 1 and background is None:
        (name,) = words
        _warn(f"{name!r} is the only class, so that every pixel gets it: add --background 0.5")
    return words, threshold


def _warn(text: str) -> None:
    typer.echo(f"mgca: warning: {text}", err=True)


def _points(given: str) -> int | None:
    from mgca.config import grid_side

    if given == "pixels":
        return None
    try:
        grid_side(int(given))
    except ValueError:
        raise typer.BadParameter(
            f"--meta-points is pixels or a square number such as 36, not {given!r}"
        ) from None
    return int(given)


def _kinds(
    overlay: str, rle: bool, polygons: bool, probabilities: bool, confidence: bool
) -> list[str]:
    from mgca.cli import outputs

    pictures = {"jpg": [outputs.OVERLAY_JPG], "png": [outputs.OVERLAY_PNG], "none": []}
    if overlay not in pictures:
        raise typer.BadParameter(f"--overlay is jpg, png or none, not {overlay!r}")
    if rle:  # fails now, and not at the first image, where pycocotools is missing
        from mgca.inference.formats import run_length_encoder

        run_length_encoder()
    wanted = (
        (outputs.RLE, rle),
        (outputs.POLYGONS, polygons),
        (outputs.PROBABILITIES, probabilities),
        (outputs.CONFIDENCE, confidence),
    )
    return [outputs.LABELS, *pictures[overlay], *(kind for kind, asked in wanted if asked)]
