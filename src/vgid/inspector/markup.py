"""The results of `vgid.inspector.analysis` as HTML; every text in it is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup
from PIL import Image

from vgid.errors import VgidError
from vgid.inspector.analysis import Answer, AnswerToken, AttackOutcome, TeacherAnswers

STYLE = """
.vi { color: var(--body-text-color); }
.vi-columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: 1rem; }
.vi-card { padding: 1rem; border: 1px solid var(--border-color-primary); border-radius: .6rem; background: var(--block-background-fill); }
.vi-card, .vi td { overflow-wrap: anywhere; }
.vi-card h3 { margin: 0 0 .5rem; font-size: .95rem; }
.vi-answer { margin: 0 0 .75rem; font-size: 1.15rem; font-weight: 600; }
.vi-tokens { margin: 0 0 .75rem; line-height: 2; }
.vi-tokens span { padding: .15rem .1rem; border-bottom: .25rem solid; white-space: pre-wrap; }
.vi-tokens span { border-color: color-mix(in srgb, #0a756f calc(var(--p) * 100%), #c0357c); }
.vi-tokens .vi-unsure { border-bottom-style: dashed; }
.vi table { width: 100%; border-collapse: collapse; border: 0; font-size: .85rem; }
.vi th, .vi td { padding: .35rem .75rem .35rem 0; text-align: left; vertical-align: top; border: solid var(--border-color-primary); }
.vi th, .vi td { border-width: 1px 0 0; }
.vi .vi-recovered { color: #b3402e; font-weight: 600; }
.dark .vi .vi-recovered { color: #f08c7a; }
.vi-note { font-size: .9rem; }
.vi-problem { padding: 1rem; border-left: .3rem solid #b3402e; background: var(--block-background-fill); white-space: pre-wrap; }
.vi img { max-width: 100%; border-radius: .4rem; image-rendering: pixelated; }
"""


def problem(error: VgidError) -> str:
    """Return an error as HTML, to be shown in place of an answer."""
    return str(Markup('<div class="vi"><p class="vi-problem" role="alert">{}</p></div>').format(str(error)))


def answer_columns(answers: Mapping[str, Answer], beginning: str = "") -> str:
    """Return the answers of all models side by side as HTML.

    Args:
        answers: answers by the model's name.
        beginning: the words that every answer had to begin with.
    """
    note = (
        Markup('<p class="vi-note">Both answers were made to begin with “{}”.</p>').format(beginning.strip())
        if beginning.strip()
        else Markup()
    )
    return _page(note + _columns(_card(name, each) for name, each in answers.items()))


def _card(name: str, answer: Answer) -> Markup:
    """Return one answer: the text, its tokens underlined by their probability, and a table of other likely tokens."""
    tokens = Markup("").join(_token(each) for each in answer.tokens)
    rows = Markup("").join(_alternatives(each) for each in answer.tokens)
    head = Markup("<thead><tr><th>Token</th><th>Probability</th><th>Likeliest tokens</th></tr></thead>")
    table = Markup("<details><summary>Other likely tokens</summary><table>{}<tbody>{}</tbody></table></details>").format(head, rows)
    return Markup('<section class="vi-card"><h3>{}</h3><p class="vi-answer">{}</p><p class="vi-tokens">{}</p>{}</section>').format(
        name, answer.text or "(nothing)", tokens, table
    )


def teacher_columns(found: TeacherAnswers) -> str:
    """Return the answers of the teacher side by side as HTML, and the picture with noise."""
    cards = [_card(f"Teacher: {name}", answer) for name, answer in found.answers.items()]
    if found.picture is not None:
        cards.append(
            Markup(
                '<section class="vi-card"><h3>The picture with noise</h3><img alt="The picture as the teacher sees it" src="{}"></section>'
            ).format(_data_uri(found.picture))
        )
    return _page(_columns(cards))


def attack_table(outcomes: Sequence[AttackOutcome]) -> str:
    """Return a table of all attack prompts and answers as HTML."""
    names = list(outcomes[0].answers)
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in ("Attack", "Prompt", *names))
    rows = Markup("").join(_outcome(each) for each in outcomes)
    if outcomes[0].recovered is None:
        note = "There is no recorded answer to compare with: choose a row of --data, or judge the answers yourself."
    else:
        counts = ", ".join(f"{name} {sum(each.recovered[name] for each in outcomes if each.recovered)}" for name in names)
        note = f"Prompts that recover the recorded fact, of {len(outcomes)}: {counts}. For an audit run vgid audit."
    return _page(Markup('<p class="vi-note">{}</p><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>').format(note, head, rows))


def _outcome(each: AttackOutcome) -> Markup:
    cells = Markup("").join(
        Markup('<td class="{}">{}{}</td>').format(
            "vi-recovered" if recovered else "", text or "(nothing)", " (gives the fact)" if recovered else ""
        )
        for name, text in each.answers.items()
        for recovered in [each.recovered is not None and each.recovered[name]]
    )
    return Markup('<tr><th scope="row">{}</th><td>{}</td>{}</tr>').format(each.prompt.attack, each.prompt.variant, cells)


def _token(token: AnswerToken) -> Markup:
    p = token.chosen.probability
    unsure = "vi-unsure" if p < 0.5 else ""
    return Markup('<span class="{}" style="--p: {:.3f}" title="{:.1f} %">{}</span>').format(unsure, p, 100 * p, token.chosen.text)


def _alternatives(token: AnswerToken) -> Markup:
    others = " · ".join(f"{each.text.strip() or repr(each.text)} {100 * each.probability:.1f} %" for each in token.likeliest)
    return Markup("<tr><td>{}</td><td>{:.1f}&nbsp;%</td><td>{}</td></tr>").format(token.chosen.text, 100 * token.chosen.probability, others)


def _columns(cards: Iterable[Markup]) -> Markup:
    return Markup('<div class="vi-columns">{}</div>').format(Markup("").join(cards))


def _page(content: Markup) -> str:
    return str(Markup('<div class="vi" aria-live="polite">{}</div>').format(content))


def _data_uri(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "png")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
