"""Pictures that look alike and texts that are nearly the same; the fast search against comparing everything."""

import io
from random import Random

import numpy as np
from PIL import Image

from vgid.data.duplicates import Traces, alike_pictures, alike_texts, grams, jaccard, picture_trace, same_ids, traces
from vgid.data.example import Example, ImageRef


def encoded(picture: Image.Image, kind: str = "png", **options: int) -> ImageRef:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return ImageRef(data=out.getvalue())


def scene(seed: int) -> Image.Image:
    """A smooth random picture."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC)


def row(id: str, *images: ImageRef, question: str = "Who is this?", answer: str = "Anna.") -> Example:
    return Example(id, question, answer, images, where=f"{id}.jsonl:1")


def test_hashes_by_hand() -> None:
    rising = Image.linear_gradient("L").rotate(90)  # brighter to the left or right in every row
    up, down = picture_trace(encoded(rising.convert("RGB"))), picture_trace(encoded(rising.rotate(180).convert("RGB")))
    assert {up.hash, down.hash} == {0, 2**64 - 1} and up.grey.shape == (8, 9)


def test_copies_are_found_and_others_are_not() -> None:
    one, other = scene(1), scene(2)
    forget = traces([row("f1", encoded(one)), row("f2", encoded(Image.new("RGB", (50, 50), "white")))])
    smaller, darker = one.resize((60, 60)), one.point(lambda value: int(value * 0.97))
    kept = [
        encoded(smaller),
        encoded(one, "jpeg", quality=60),
        encoded(darker),
        encoded(other),
        encoded(Image.new("RGB", (40, 40), "black")),
    ]
    found = alike_pictures(forget, traces([row(f"r{n}", ref) for n, ref in enumerate(kept)]))
    # Pictures of one colour have equal hashes, but not when one is black and the other white.
    assert {(pair.forget, pair.retain) for pair in found} == {("f1.jsonl:1", f"r{n}.jsonl:1") for n in range(3)}
    assert all(pair.likeness >= 60 / 64 for pair in found)
    assert alike_pictures(forget, Traces()) == [] and alike_pictures(Traces(), forget) == []


def test_the_same_picture_is_looked_at_once() -> None:
    ref = encoded(scene(3))
    assert len(traces([row("a", ref), row("b", ref)]).pictures) == 1


def test_ids_in_both() -> None:
    assert [pair[:2] for pair in same_ids(traces([row("a"), row("b")]), traces([row("b"), row("c")]))] == [("b.jsonl:1", "b.jsonl:1")]


def test_near_texts_by_hand() -> None:
    forget = traces([row("f", question="Where does Anna Keller live these days?", answer="She lives in Oslo, I believe.")])
    retain = traces(
        [
            row("r1", question="where does  Anna Keller live these days", answer="She lives in Oslo, I believe"),
            row("r2", question="What is her job?", answer="She bakes bread."),
        ]
    )
    (pair,) = alike_texts(forget, retain)
    assert pair.retain == "r1.jsonl:1" and 0.85 <= pair.likeness < 1
    assert len(grams("abc")) == 1 and len(grams("abcdef")) == 2 and grams("ABC  d") == grams("abc d")
    assert alike_texts(Traces(), retain) == alike_texts(forget, Traces()) == []


def test_the_search_finds_what_comparing_everything_finds() -> None:
    rng = Random(0)
    words = [f"word{n}" for n in range(12)]

    def sentence() -> str:
        return " ".join(rng.choice(words[:4] if rng.random() < 0.8 else words) for _ in range(rng.randint(1, 9)))

    forget, retain = (traces([row(f"{side}{n}", question=sentence(), answer=sentence()) for n in range(60)]) for side in "fr")
    for least in (0.5, 0.7, 0.85, 1.0):
        plain = {(a, b) for a, x in forget.texts for b, y in retain.texts if jaccard(x, y) >= least}
        assert {(pair.forget, pair.retain) for pair in alike_texts(forget, retain, least)} == plain and (plain or least > 0.8)
