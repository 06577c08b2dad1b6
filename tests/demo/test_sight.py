"""Learning to see: a projector that writes captions, and questions that a language model learns to read them by."""

from collections import Counter

import torch
from torch.nn import functional as F

from vgid.demo.sight import caption, keywords, questions, train_captions
from vgid.models.loading import load_model
from vgid.synthetic.base_training import Shot, draw_pictures, see_all, take_shots
from vgid.synthetic.people import World
from vgid.synthetic.phrases import PERCEPTION
from vgid.synthetic.tiny import tiny_path


def shots(count: int) -> list[Shot]:
    return take_shots(World().base_training_people[:1], count)[1][:count]


def test_a_caption_has_a_word_for_each_token_of_a_picture() -> None:
    tower = load_model(tiny_path()).model.config.vision_config
    shot = shots(1)[0]
    words = caption(shot)
    assert len(words) == (tower.image_size // tower.patch_size) ** 2
    assert {shot.view.background, shot.view.eyewear, shot.view.mood, shot.view.clothes, shot.person.look.hair, *keywords(shot)} <= {*words}


def test_the_projector_learns_to_write_words() -> None:
    loaded, seen = load_model(tiny_path()), shots(24)
    train_captions(loaded, seen, steps=500)
    model, tokenizer = loaded.model, loaded.processor.tokenizer
    with torch.no_grad():
        words = sorted({word for shot in seen for word in caption(shot)})
        spelled = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
        meant = torch.stack([model.get_input_embeddings().weight[ids].mean(0) for ids in spelled])
        pictures = draw_pictures([Shot(shot.person, shot.view, 0) for shot in seen])
        written = model.model.multi_modal_projector(see_all(model, [pictures]))
        # Only directions count: the language model begins with a norm.
        nearest = (F.normalize(written, dim=-1) @ F.normalize(meant, dim=-1).T).argmax(-1)
    right = [
        words[k] == word for line, shot in zip(nearest.tolist(), seen, strict=True) for k, word in zip(line, caption(shot), strict=True)
    ]
    assert sum(right) / len(right) > 0.9


def test_questions_ask_for_everything_there_is_to_see() -> None:
    seen = shots(5)
    rows = list(questions(seen))
    assert Counter(row.images for row in rows).most_common()[-1][1] == len(PERCEPTION) + 1
    assert len({row.id for row in rows}) == len(rows) == 5 * (len(PERCEPTION) + 1)
    for k, shot in enumerate(seen):
        *asked, described = rows[7 * k : 7 * k + 7]
        assert shot.view.background in asked[0].answer and described.answer == ", ".join(keywords(shot))
