"""The page's controls, and what each of them changes."""

from pathlib import Path
from typing import Any

import gradio as gr

from mgca.cli.app.view import LONGEST, View, paragraph
from mgca.config import grid_side
from mgca.model import Model

TITLE = "Name what is in a photograph"
_LARGEST_SIDE = 20  # of the grid of meta-points
_HOUR = 3600
# Fonts that the machine has: others would be fetched. What explains a control is grey,
# but not so light that it is hard to read; nor does a map vanish while the next is on its way.
THEME = gr.themes.Default(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
)
CSS = """
button[role=tab][aria-selected=true] { color: var(--body-text-color) !important; }
.pending { opacity: 0.75 !important; }
.answer table { border-collapse: collapse; margin: 0; }
.answer :is(table, tr, td) { border: 0 !important; }
.answer td { padding: 0.15rem 0.75rem 0.15rem 0; white-space: nowrap; }
.answer td:first-child { white-space: normal; overflow-wrap: anywhere; }
.answer p { margin: 0.75rem 0 0; }
"""


def _path(upload: Any) -> str | None:
    return None if upload is None else upload.path


def build_page(model: Model, name: str, folder: Path) -> gr.Blocks:
    """The page of a model.

    Args:
        model: The model.
        name: Name of the model, for people.
        folder: Folder in which files of labels are written.
    """
    view = View(model)
    points = model.config.meta_points
    begin = grid_side(points) if points is not None else 6

    with gr.Blocks(title="mgca", analytics_enabled=False, delete_cache=(_HOUR, 24 * _HOUR)) as page:
        gr.Markdown(f"# {TITLE}")
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                photo = gr.Image(
                    label="Photograph",
                    image_mode=None,
                    type="filepath",
                    sources=["upload", "clipboard"],
                    buttons=[],
                    height=260,
                )
                # gradio's own looks into the file first, and one that is no picture ends there. Not
                # a method of a class of ours: gradio writes a file beside the source of each.
                photo.preprocess = _path
                words = gr.Textbox(
                    "",
                    label="Words",
                    info="Words or short phrases, commas between them; then Enter.",
                    placeholder="cat, sofa, a wooden table",
                    max_length=LONGEST,
                )
                side = gr.Slider(
                    1,
                    _LARGEST_SIDE,
                    begin,
                    step=1,
                    precision=0,
                    label="Side of the grid of meta-points",
                    info="6 gives 6 × 6 = 36 meta-points in each window, and as many units.",
                )
                pixels = gr.Checkbox(points is None, label="Every pixel on its own: no units")
                threshold = gr.Slider(
                    0,
                    1,
                    0,
                    step=0.01,
                    label="Threshold of the background",
                    info="Pixels with no word above this probability are background. 0: none are.",
                )
            with gr.Column(scale=3, min_width=280):
                with gr.Tab("All words"):
                    shown = gr.HTML(
                        view.segmentation(None, "", begin, False, 0), elem_classes="answer"
                    )
                    ask = gr.Button("Labels as a PNG file")
                    said = gr.HTML(elem_classes="answer")
                    file = gr.File(label="Labels", interactive=False, visible=False)
                with gr.Tab("One word"):
                    word = gr.Textbox(
                        "",
                        label="Word",
                        info="Any word, to see where the photograph is like it; then Enter.",
                        max_length=LONGEST,
                    )
                    similar = gr.HTML(
                        view.similarity(None, "", begin, False), elem_classes="answer"
                    )
        gr.HTML(paragraph(f"Model: {name}. Photographs and words stay on this machine."))

        settings = [photo, words, side, pixels, threshold]
        labelled = gr.State(None)  # the settings of the labels shown

        def segmentation(labelled, *values):
            shown = view.segmentation(*values)
            # An event may come twice, or late: to click on the button leaves the words, too.
            if labelled == values:
                return shown, gr.skip(), gr.skip(), gr.skip()
            # Labels of other settings would be mistaken for these.
            return shown, "", gr.File(value=None, visible=False), None

        def labels(*values):
            path, text = view.labels(*values, folder)
            return text, gr.File(value=path and str(path), visible=path is not None), values

        # Of many positions of a slider the last one counts, and one answer is computed at a time.
        common = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
        latest = common | {"trigger_mode": "always_last", "show_progress": "minimal"}
        turned = [photo.change, side.change, pixels.change]
        gr.on(
            [words.submit, words.blur, threshold.change, *turned],
            segmentation,
            [labelled, *settings],
            [shown, said, file, labelled],
            **latest,
        )
        gr.on(
            [word.submit, word.blur, *turned],
            view.similarity,
            [photo, word, side, pixels],
            similar,
            **latest,
        )
        # gradio refuses a click while an answer is awaited; if one got lost, none would count.
        ask.click(labels, settings, [said, file, labelled], trigger_mode="multiple", **common)
    return page.queue(max_size=64)
