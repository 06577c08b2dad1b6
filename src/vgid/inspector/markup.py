"""What the inspector found, as HTML; everything in it is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup
from PIL import Image

from vgid.errors import VgidError
from vgid.inspector.look import Lesson, Said, Step, Tried

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
.vi .vi-told { color: #b3402e; font-weight: 600; }
.dark .vi .vi-told { color: #f08c7a; }
.vi-note { font-size: .9rem; }
.vi-problem { padding: 1rem; border-left: .3rem solid #b3402e; background: var(--block-background-fill); white-space: pre-wrap; }
.vi img { max-width: 100%; border-radius: .4rem; image-rendering: pixelated; }
"""


def problem(error: VgidError) -> str:
    """An error, where the answer would stand."""
    return str(Markup('<div class="vi"><p class="vi-problem" role="alert">{}</p></div>').format(str(error)))


def answers(said: Mapping[str, Said], beginning: str = "") -> str:
    """Answers side by side, each with its tokens."""
    note = (
        Markup('<p class="vi-note">Both answers were made to begin with “{}”.</p>').format(beginning.strip())
        if beginning.strip()
        else Markup()
    )
    return _page(note + _columns(card(name, each) for name, each in said.items()))


def card(name: str, said: Said) -> Markup:
    """One answer: the text, its tokens underlined by how sure the model was, and what else might have come."""
    tokens = Markup("").join(_token(step) for step in said.steps)
    rows = Markup("").join(_alternatives(step) for step in said.steps)
    head = Markup("<thead><tr><th>Token</th><th>Likely</th><th>Likeliest</th></tr></thead>")
    table = Markup("<details><summary>What else might have come</summary><table>{}<tbody>{}</tbody></table></details>").format(head, rows)
    return Markup('<section class="vi-card"><h3>{}</h3><p class="vi-answer">{}</p><p class="vi-tokens">{}</p>{}</section>').format(
        name, said.text or "(nothing)", tokens, table
    )


def lesson(found: Lesson) -> str:
    """What the teacher says with part of what it is given, and the picture it sees."""
    cards = [card(f"Teacher: {name}", said) for name, said in found.said.items()]
    if found.picture is not None:
        cards.append(
            Markup(
                '<section class="vi-card"><h3>The picture with noise</h3><img alt="The picture as the teacher sees it" src="{}"></section>'
            ).format(_data_uri(found.picture))
        )
    return _page(_columns(cards))


def attacks(tried: Sequence[Tried]) -> str:
    """A table of all ways of asking."""
    names = list(tried[0].answers)
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in ("Attack", "How", *names))
    rows = Markup("").join(_tried(each) for each in tried)
    if tried[0].told is None:
        note = "No answer is on record, so nothing is judged: take a row of --data, or read for yourself."
    else:
        counts = ", ".join(f"{name} {sum(each.told[name] for each in tried if each.told)}" for name in names)
        note = f"Ways, of {len(tried)}, that bring the recorded fact: {counts}. A few ways are no audit; see vgid audit."
    return _page(Markup('<p class="vi-note">{}</p><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>').format(note, head, rows))


def _tried(each: Tried) -> Markup:
    cells = Markup("").join(
        Markup('<td class="{}">{}{}</td>').format("vi-told" if told else "", text or "(nothing)", " (tells it)" if told else "")
        for name, text in each.answers.items()
        for told in [each.told is not None and each.told[name]]
    )
    return Markup('<tr><th scope="row">{}</th><td>{}</td>{}</tr>').format(each.way.attack, each.way.name, cells)


def _token(step: Step) -> Markup:
    p = step.chosen.probability
    unsure = "vi-unsure" if p < 0.5 else ""
    return Markup('<span class="{}" style="--p: {:.3f}" title="{:.1f} %">{}</span>').format(unsure, p, 100 * p, step.chosen.text)


def _alternatives(step: Step) -> Markup:
    others = " · ".join(f"{each.text.strip() or repr(each.text)} {100 * each.probability:.1f} %" for each in step.likeliest)
    return Markup("<tr><td>{}</td><td>{:.1f}&nbsp;%</td><td>{}</td></tr>").format(step.chosen.text, 100 * step.chosen.probability, others)


def _columns(cards: Iterable[Markup]) -> Markup:
    return Markup('<div class="vi-columns">{}</div>').format(Markup("").join(cards))


def _page(content: Markup) -> str:
    return str(Markup('<div class="vi" aria-live="polite">{}</div>').format(content))


def _data_uri(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "png")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
