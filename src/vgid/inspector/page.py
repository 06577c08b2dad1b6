"""The inspector's page, made with Gradio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, get_args

from vgid.data.example import Example
from vgid.errors import DataError, VgidError
from vgid.inspector import analysis, markup
from vgid.instructions import INSTRUCTIONS, OTHER_INSTRUCTIONS, instruction_text
from vgid.models.loading import LoadedModel
from vgid.perturbation import NoiseConfig, NoiseKind

INTRO = (
    "<h1>Before and after</h1><p>Ask both models the same question. A token's underline is green where the model was sure and red where it "
    "was not, and dashed where its probability is below one half. A few answers are an impression, not a measurement.</p>"
)


class PageHandlers:
    """What the page's buttons do, one at a time, since the models are shared. Errors become readable text on the page.

    Args:
        before: the model before unlearning, which is the teacher too.
        after: the unlearned model.
        rows: rows that can be chosen.
    """

    def __init__(self, before: LoadedModel, after: LoadedModel, rows: Sequence[Example] = ()) -> None:
        self.models: Mapping[str, LoadedModel] = {"Before": before, "After": after}
        self.rows = {row.id: row for row in rows}
        self._lock = Lock()

    def ask(self, row: str | None, picture: str | None, question: str, beginning: str) -> str:
        """Ask both models.

        Args:
            row: id of the row that was chosen.
            picture: path of the uploaded picture.
            question: the question as it was typed.
            beginning: first words that both answers must begin with.

        Returns:
            Both answers as HTML.
        """

        def answers() -> str:
            example = self._example(row, picture, question)
            found = {name: analysis.ask(loaded, example, beginning or "") for name, loaded in self.models.items()}
            return markup.answer_columns(found, beginning or "")

        return self._run(answers)

    def ask_teacher(
        self, row: str | None, picture: str | None, question: str, kind: NoiseKind, strength: float, space: Any, instruction: str
    ) -> str:
        """Ask the model before unlearning as VGID's teacher.

        Args:
            row: id of the row that was chosen.
            picture: path of the uploaded picture.
            question: the question as it was typed.
            kind: kind of noise.
            strength: strength of the noise, from 0 to 1.
            space: where it is added: `normalised` or `pixel`.
            instruction: name of an instruction, or its text.

        Returns:
            Four answers, and the picture with noise, as HTML.
        """

        def answers() -> str:
            noise = NoiseConfig(kind=kind, strength=strength, space=space)
            text = instruction_text(instruction).strip()
            if not text:
                raise DataError("there is no instruction", fix="choose one, or type your own")
            example = self._example(row, picture, question)
            return markup.teacher_columns(analysis.ask_teacher(self.models["Before"], example, noise, text))

        return self._run(answers)

    def attack(self, row: str | None, picture: str | None, question: str) -> str:
        """Give both models all attack prompts.

        Args:
            row: id of the row that was chosen.
            picture: path of the uploaded picture.
            question: the question as it was typed.

        Returns:
            A table of answers as HTML.
        """
        return self._run(lambda: markup.attack_table(analysis.run_attacks(self.models, self._example(row, picture, question))))

    def fill(self, row: str | None) -> tuple[Any, str]:
        """Return the picture and the question of a row that was chosen."""
        example = self.rows.get(row or "")
        if example is None:
            return None, ""
        return example.images[0].open() if example.images else None, example.question

    def _example(self, row: str | None, picture: str | None, question: str) -> Example:
        chosen = self.rows.get(row or "")
        if chosen is not None and chosen.question.strip() != (question or "").strip():
            chosen = None  # the recorded answer is not that of another question
        return analysis.make_example(question or "", Path(picture).read_bytes() if picture else None, chosen)

    def _run(self, work: Callable[[], str]) -> str:
        with self._lock:
            try:
                return work()
            except VgidError as error:
                return markup.problem(error)


def build_page(handlers: PageHandlers) -> Any:
    """Return the page as Gradio's `Blocks`."""
    import gradio as gr

    with gr.Blocks(title="vgid inspect", analytics_enabled=False) as page:
        gr.HTML(INTRO)
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                kept = {"type": "filepath", "format": "png", "image_mode": None}  # the very file that was given
                picture = gr.Image(label="Picture", sources=["upload", "clipboard"], height=260, buttons=[], **kept)
            with gr.Column(scale=2, min_width=300):
                row = gr.Dropdown([None, *handlers.rows], value=None, label="Row of the data", visible=bool(handlers.rows))
                question = gr.Textbox(label="Question", max_length=analysis.MAX_CHARACTERS, placeholder="Who is this person?")
                beginning = gr.Textbox(label="The answer begins with", placeholder="optional: first words of both answers")
        with gr.Tab("Answers"):
            button = gr.Button("Ask", variant="primary")
            answers = gr.HTML(elem_id="answers")
        with gr.Tab("Teacher"):
            with gr.Row():
                kind = gr.Dropdown(list(get_args(NoiseKind)), value="uniform", label="Noise")
                strength = gr.Slider(0, 1, value=1, step=0.05, label="Strength")
                space = gr.Dropdown(["normalised", "pixel"], value="normalised", label="Added to")
                instruction = gr.Dropdown(
                    [*INSTRUCTIONS, *OTHER_INSTRUCTIONS], value="forget", allow_custom_value=True, label="Instruction, or your own text"
                )
            teacher_button = gr.Button("Ask the teacher")
            teacher = gr.HTML(elem_id="teacher")
        with gr.Tab("Attacks"):
            attack_button = gr.Button("Ask in other ways")
            attacks = gr.HTML(elem_id="attacks")
        asked = [row, picture, question]
        row.input(handlers.fill, row, [picture, question], api_visibility="private")
        for start in (button.click, question.submit):
            start(handlers.ask, [*asked, beginning], answers, api_visibility="private")
        teacher_button.click(handlers.ask_teacher, [*asked, kind, strength, space, instruction], teacher, api_visibility="private")
        attack_button.click(handlers.attack, asked, attacks, api_visibility="private")
    return page
