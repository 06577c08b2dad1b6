"""The inspector's page, by Gradio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, get_args

from vgid.data.example import Example
from vgid.errors import DataError, VgidError
from vgid.inspector import look, markup
from vgid.instructions import INSTRUCTIONS
from vgid.models.loading import LoadedModel
from vgid.perturbation import NoiseConfig, NoiseKind

INTRO = (
    "<h1>Before and after</h1><p>Ask both models the same. A token's underline is green where the model was sure, redder the less it was, "
    "and dashed below one half. A few answers are an impression, no measurement.</p>"
)


class Desk:
    """What the page's buttons do; one at a time, since the models are shared. Errors become readable text."""

    def __init__(self, before: LoadedModel, after: LoadedModel, rows: Sequence[Example] = ()) -> None:
        self.models: Mapping[str, LoadedModel] = {"Before": before, "After": after}
        self.rows = {row.id: row for row in rows}
        self._lock = Lock()

    def ask(self, row: str | None, picture: str | None, question: str, beginning: str) -> str:
        """Both answers."""

        def answers() -> str:
            example = self._example(row, picture, question)
            return markup.answers(
                {name: look.ask(loaded, example, beginning or "") for name, loaded in self.models.items()}, beginning or ""
            )

        return self._told(answers)

    def teach(
        self, row: str | None, picture: str | None, question: str, kind: NoiseKind, strength: float, space: Any, instruction: str
    ) -> str:
        """What the untouched model says as a teacher."""

        def taught() -> str:
            noise = NoiseConfig(kind=kind, strength=strength, space=space)
            text = INSTRUCTIONS.get(instruction, instruction).strip()
            if not text:
                raise DataError("there is no instruction", fix="choose one, or type your own")
            return markup.lesson(look.teach(self.models["Before"], self._example(row, picture, question), noise, text))

        return self._told(taught)

    def attack(self, row: str | None, picture: str | None, question: str) -> str:
        """Both answers to all ways of asking."""
        return self._told(lambda: markup.attacks(look.attack(self.models, self._example(row, picture, question))))

    def fill(self, row: str | None) -> tuple[Any, str]:
        """A row's picture and question."""
        example = self.rows.get(row or "")
        if example is None:
            return None, ""
        return example.images[0].open() if example.images else None, example.question

    def _example(self, row: str | None, picture: str | None, question: str) -> Example:
        """A row counts as such only while its own question is asked."""
        known = self.rows.get(row or "")
        known = known if known is not None and known.question.strip() == (question or "").strip() else None
        return look.example_of(question or "", Path(picture).read_bytes() if picture else None, known)

    def _told(self, work: Callable[[], str]) -> str:
        with self._lock:
            try:
                return work()
            except VgidError as error:
                return markup.problem(error)


def build(desk: Desk) -> Any:
    """The page."""
    import gradio as gr

    with gr.Blocks(title="vgid inspect", analytics_enabled=False) as page:
        gr.HTML(INTRO)
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                kept = {"type": "filepath", "format": "png", "image_mode": None}  # the very file that was given
                picture = gr.Image(label="Picture", sources=["upload", "clipboard"], height=260, buttons=[], **kept)
            with gr.Column(scale=2, min_width=300):
                row = gr.Dropdown([None, *desk.rows], value=None, label="Row of the data", visible=bool(desk.rows))
                question = gr.Textbox(label="Question", max_length=look.MOST_LETTERS, placeholder="Who is this person?")
                beginning = gr.Textbox(label="The answer begins with", placeholder="optional: puts words into the model's mouth")
        with gr.Tab("Answers"):
            button = gr.Button("Ask", variant="primary")
            answers = gr.HTML(elem_id="answers")
        with gr.Tab("Teacher"):
            with gr.Row():
                kind = gr.Dropdown(list(get_args(NoiseKind)), value="uniform", label="Noise")
                strength = gr.Slider(0, 1, value=1, step=0.05, label="Strength")
                space = gr.Dropdown(["normalised", "pixel"], value="normalised", label="Added to")
                instruction = gr.Dropdown(list(INSTRUCTIONS), value="forget", allow_custom_value=True, label="Instruction, or your own")
            teaching = gr.Button("Ask the teacher")
            lesson = gr.HTML(elem_id="lesson")
        with gr.Tab("Attacks"):
            attacking = gr.Button("Ask in other ways")
            attacks = gr.HTML(elem_id="attacks")
        asked = [row, picture, question]
        row.input(desk.fill, row, [picture, question], api_visibility="private")
        for start in (button.click, question.submit):
            start(desk.ask, [*asked, beginning], answers, api_visibility="private")
        teaching.click(desk.teach, [*asked, kind, strength, space, instruction], lesson, api_visibility="private")
        attacking.click(desk.attack, asked, attacks, api_visibility="private")
    return page
