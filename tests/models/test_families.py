"""One contract for all model families: what is encoded, seen, trained, written and generated is what should be."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import transformers as hf
from packaging.version import Version
from PIL import Image

from tests.models.families import FAMILIES, Family, llava, missing, mllama
from vgid.config import RunConfig
from vgid.data.batching import Batch, Encoder
from vgid.data.conversation import messages, render_chat
from vgid.data.example import IMAGE, Example, ImageRef, Turn
from vgid.data.special_tokens import check_special, special_words
from vgid.errors import DataError, ModelError
from vgid.evaluation.generation import decoding_style, generate, greedy
from vgid.evaluation.inference import frozen
from vgid.methods.base import Context, StepBatch
from vgid.methods.vgid.method import VGID, VGIDConfig
from vgid.models.adapters import adapted_modules, attach_lora
from vgid.models.forward import all_logits, answer_logits
from vgid.models.loading import LoadedModel, load_model
from vgid.models.packing_check import find_style
from vgid.models.pictures import AT_ONCE, find_pictures, without_pixels
from vgid.models.structure import inspect_model, linear_layers
from vgid.perturbation import ELEMENTWISE, NoiseConfig, NoiseKind, perturb_batch
from vgid.run_folder import MARK, output_folder
from vgid.seeds import derive_seed
from vgid.settings import AdapterConfig
from vgid.training.fit import fit
from vgid.unlearning import train_and_export

EMBED_IN_EVERY_PASS = ("Qwen3-VL",)
"""Families whose logits differ with embeddings: the decoder sees pictures in several layers."""
INSTRUCTION = "Forget what you know about this person."


def picture(seed: int, width: int, height: int) -> ImageRef:
    return encoded(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)))


def encoded(image: Image.Image) -> ImageRef:
    out = io.BytesIO()
    image.save(out, "png")
    return ImageRef(data=out.getvalue())


ROWS = {
    "one": Example("one", "Who is this person?", "This is Anna Keller.", (picture(0, 40, 40),)),
    "text": Example("text", "Where does Anna Keller live, and since when?", "She lives in Oslo, and has done so for many years."),
    "two": Example("two", "What do both pictures show?", "Anna Keller.", (picture(1, 60, 30), picture(2, 32, 48))),
    "wide": Example("wide", "Who?", "I do not know.", (picture(3, 90, 40),)),
}


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def family(request: pytest.FixtureRequest) -> Family:
    """Each row of the table; skipped where its processor's packages are not installed."""
    row: Family = request.param
    if missing(row):
        pytest.skip(f"{row} needs {', '.join(missing(row))}")
    return row


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("family") / "model"
    try:
        family.save(path)
    except ImportError as error:  # older releases of transformers need torchvision for more families
        pytest.skip(f"{family}: {str(error).strip().splitlines()[0]}")
    return path


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    """For tests that change nothing."""
    return load_model(folder)


@pytest.fixture(scope="module")
def encoder(loaded: LoadedModel) -> Encoder:
    return Encoder(loaded.processor)


@pytest.fixture
def rows(family: Family) -> list[Example]:
    """Of all kinds that the family takes: with a picture, with none, with two, and with one of another shape."""
    return [row for kind, row in ROWS.items() if kind not in family.refuses]


@torch.no_grad()
def one_by_one(model: torch.nn.Module, encode: Callable[[list[Example]], Batch], rows: list[Example]) -> torch.Tensor:
    return torch.cat([answer_logits(model, encode([row])) for row in rows])


# -- structure ------------------------------------------------------------------------------------------------------------


def test_every_parameter_has_its_part(loaded: LoadedModel) -> None:
    structure = inspect_model(loaded.model)
    assert {structure.part_of(name) for name, _ in loaded.model.named_parameters()} == {"language", "projector", "vision"}
    assert linear_layers(loaded.model, ["language"]) and linear_layers(loaded.model, ["vision"])
    # What turns the tower's features into the decoder's is the projector's, wherever it lives.
    names = [name for name, _ in loaded.model.named_modules() if name.endswith(("projector", "connector", "merger", "embed_vision"))]
    assert {structure.part_of(name) for name in names} == {"projector"}


# -- encoding -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instruction", [None, INSTRUCTION])
def test_targets_are_the_answer_and_the_end_of_turn(family: Family, encoder: Encoder, rows: list[Example], instruction: str | None) -> None:
    batch = encoder.batch(rows, instruction)
    owners, positions, targets = batch.answers
    for number, row in enumerate(rows):
        assert encoder.tokenizer.decode(targets[owners == number]).strip() == row.answer + family.end
        # As it would be tokenized behind the prompt, without a space of its own before it.
        rendered = render_chat(encoder.processor, row, instruction)
        whole = encoder.tokenizer(rendered.prompt + rendered.answer)["input_ids"]
        assert whole[-int((owners == number).sum()) :] == targets[owners == number].tolist()
    assert torch.equal(batch.model_inputs["input_ids"][owners, positions + 1], targets)
    assert batch.model_inputs["attention_mask"][owners, positions + 1].all()


def test_teacher_and_student_agree_in_answer_tokens(encoder: Encoder, rows: list[Example]) -> None:
    teacher, student = encoder.batch(rows, INSTRUCTION), encoder.batch(rows)
    assert torch.equal(teacher.answers.targets, student.answers.targets) and torch.equal(teacher.answers.rows, student.answers.rows)
    assert (teacher.answers.positions > student.answers.positions).all()


def test_a_model_that_thinks_is_asked_after_an_empty_thought(family: Family, encoder: Encoder, rows: list[Example]) -> None:
    for row in rows if str(family) == "a LLaVA that thinks" else []:
        own = encoder.processor.apply_chat_template(messages(row), add_generation_prompt=True, tokenize=False)
        assert own.endswith("ASSISTANT:<think>\n") and render_chat(encoder.processor, row).prompt == own + "\n</think>\n\n"


def test_a_prompt_is_what_the_processor_itself_makes_of_the_chat(family: Family, encoder: Encoder, rows: list[Example]) -> None:
    for row in rows if str(family) != "a LLaVA that thinks" else []:  # the test above
        chat = messages(row)
        for part, ref in zip(chat[0]["content"], row.images, strict=False):
            part["image"] = ref.open()
        expected = encoder.processor.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        expected.pop("labels", None)
        got = encoder.prompts([row]).model_inputs
        assert set(got) == set(expected) and all(torch.equal(got[name], expected[name]) for name in expected)
        assert set(got) <= set(encoder.batch(rows).model_inputs)


# -- forward --------------------------------------------------------------------------------------------------------------


def test_answer_logits_are_the_full_logits_there(loaded: LoadedModel, encoder: Encoder, rows: list[Example]) -> None:
    batch = encoder.batch(rows)
    with torch.no_grad():
        full, fast = all_logits(loaded.model, batch), answer_logits(loaded.model, batch)
    slow = full[batch.answers.rows * batch.model_inputs["input_ids"].shape[1] + batch.answers.positions]
    assert torch.allclose(fast, slow, atol=1e-5)


def test_padding_and_neighbours_change_nothing(loaded: LoadedModel, encoder: Encoder, rows: list[Example]) -> None:
    with torch.no_grad():
        together = answer_logits(loaded.model, encoder.batch(rows))
    assert torch.allclose(together, one_by_one(loaded.model, encoder.batch, rows), atol=1e-5)


def test_answers_look_back_only_and_see_every_picture(family: Family, loaded: LoadedModel, encoder: Encoder) -> None:
    if str(family) == "PaliGemma" and Version(transformers.__version__) < Version("5.23"):
        pytest.xfail("older releases of transformers let PaliGemma's answers look ahead outside training")
    row = ROWS["two"]
    with torch.no_grad():
        logits = answer_logits(loaded.model, encoder.batch([row]))
        other = answer_logits(loaded.model, encoder.batch([row], answers=["Anna lives in Oslo."]))
        assert torch.allclose(logits[0], other[0], atol=1e-5)  # an answer's first token is predicted without looking at the answer
        for shown in ([ROWS["one"].images[0], row.images[1]], [row.images[0], ROWS["one"].images[0]]):
            seen = encoder.batch([row], images=[[ref.open() for ref in shown]])
            assert (answer_logits(loaded.model, seen) - logits).abs().max() > 1e-4


def test_half_precision_reads_the_same_batch(folder: Path, loaded: LoadedModel, encoder: Encoder, rows: list[Example]) -> None:
    half, batch = load_model(folder, dtype=torch.bfloat16), encoder.batch(rows)
    with torch.no_grad():
        low, full = answer_logits(half.model, batch), answer_logits(loaded.model, batch)
    assert low.dtype == torch.bfloat16 and torch.nn.functional.cosine_similarity(low.float(), full, dim=-1).min() > 0.99
    assert len(generate(half, rows, max_new_tokens=2)) == len(rows)


# -- packing --------------------------------------------------------------------------------------------------------------

SHARED = [
    ROWS["one"],
    replace(ROWS["one"], id="where", question="Where does this person live today?", answer="She lives in Oslo."),
    ROWS["wide"],
    replace(ROWS["one"], id="who", question="Who?", answer="Anna."),
    replace(ROWS["wide"], id="pet", question="Which pet has she?", answer="A goose."),
]
CANNOT_SHARE = {"Qwen3.5": "linear attention mixes what stands side by side", "PaliGemma": "a picture's tokens see the question"}


def answered(loaded: LoadedModel, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits, and gradients of a scalar made of them."""
    model = loaded.model
    model.zero_grad()
    logits = answer_logits(model, batch)
    (logits.square().sum() / logits.numel()).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_questions_about_one_picture_share_a_row_and_change_nothing(family: Family, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = load_model(folder)
    style = find_style(loaded.model, loaded.encoder, SHARED, 4)
    if str(family) in CANNOT_SHARE:
        assert style is None and "get a row each, which is slower: logits of packed rows differ" in caplog.text
        return
    assert style is not None and not caplog.text
    plain, slow = answered(loaded, loaded.encoder.batch(SHARED))
    packed, fast = answered(loaded, batch := loaded.encoder.batch(SHARED, packing=style))
    assert len(batch.model_inputs["input_ids"]) == 2
    scale = plain.abs().max()
    assert (packed - plain).abs().max() <= 1e-5 * max(1.0, scale)
    assert set(slow) == set(fast)
    for name in slow:
        assert (fast[name] - slow[name]).abs().max() <= 1e-5 * max(1.0, slow[name].abs().max()), name


def test_the_teacher_shares_rows_too(family: Family, loaded: LoadedModel, encoder: Encoder) -> None:
    if str(family) in CANNOT_SHARE:
        pytest.skip("no rows to share")
    style = find_style(loaded.model, encoder, SHARED, 4)
    assert style is not None
    batches = [perturb_batch(encoder, SHARED, NoiseConfig(), seed=(5,), instruction=INSTRUCTION, packing=p) for p in (None, style)]
    with torch.no_grad():
        plain, packed = (answer_logits(loaded.model, batch) for batch in batches)
    assert (packed - plain).abs().max() <= 1e-5 * max(1.0, plain.abs().max())


def test_a_picture_is_processed_once(loaded: LoadedModel, rows: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another question about pictures that are known is encoded as if they were new, by a processor that sees none of their pixels."""
    encoder, kind, calls = Encoder(loaded.processor), type(loaded.processor.image_processor), 0
    process = kind.__call__

    def counted(self: object, *arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        return process(self, *arguments, **options)

    monkeypatch.setattr(kind, "__call__", counted)
    shown = [row for row in rows if row.images]
    for row in shown:
        encoder.row(row)
    first = calls
    others = [
        replace(row, question=question) for row in shown for question in ("\nWhat is her name, and where does she live?", "Her name?\n")
    ]
    known = [encoder.row(other) for other in others]
    assert first and calls == first
    for again, new in zip(known, [Encoder(loaded.processor).row(other) for other in others], strict=True):
        for got, expected in ((again.text, new.text), (again.images, new.images)):
            assert list(got) == list(expected)
            assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_odd_pictures_are_seen(family: Family, loaded: LoadedModel, encoder: Encoder) -> None:
    """The smallest, one as wide as any may be, and one of 16 bits, which is seen as the same one of 8 bits: v * 257 is v."""
    eight = np.random.default_rng(5).integers(0, 256, (40, 40), dtype=np.uint8)
    greys = {"8 bits": Image.fromarray(eight), "16 bits": Image.fromarray(eight.astype(np.uint16) * 257)}
    refs = {name: encoded(grey) for name, grey in greys.items()} | {"least": picture(6, 1, 1), "wide": picture(7, 200, 1)}
    odd = {name: Example(name, "Who is this person?", "This is Anna Keller.", (ref,)) for name, ref in refs.items()}
    if str(family) == "Mistral3":
        pytest.skip("its processor scales the height of 200 x 1 pixels to nothing, and the model cannot place a picture of one pixel")
    batches = {name: encoder.batch([row]) for name, row in odd.items()}
    with torch.no_grad():
        assert all(torch.isfinite(answer_logits(loaded.model, batch)).all() for batch in batches.values())
    seen = [batches[name].model_inputs["pixel_values"] for name in greys]
    assert torch.equal(*seen)


# -- noise ----------------------------------------------------------------------------------------------------------------


def test_pictures_embedded_ahead_change_nothing(
    family: Family, loaded: LoadedModel, encoder: Encoder, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against pictures that every pass embeds: one row alone, all in one batch, and two at a time as on a GPU."""
    learning = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    loaded.model.requires_grad_(False)
    pictures = find_pictures(loaded.model, encoder, rows)
    for parameter in learning:
        parameter.requires_grad_(True)
    assert find_pictures(loaded.model, encoder, rows) is None  # vision tower and projector are trained
    assert (pictures is None) == (str(family) in EMBED_IN_EVERY_PASS)
    if pictures is None:
        return
    shown = [row for row in rows if row.images]
    encoded = [encoder.row(row) for row in rows]
    wanted = [(row.images, one) for row, one in zip(rows, encoded, strict=True) if row.images]
    embeddings = pictures.kept(wanted)
    ahead = pictures.put(encoder.collate([without_pixels(row) for row in encoded]), embeddings)
    with torch.no_grad():
        apart, together = (answer_logits(loaded.model, batch) for batch in (encoder.batch(rows), ahead))
        assert torch.allclose(apart, together, atol=1e-5) and "pixel_values" not in ahead.model_inputs
        assert torch.allclose(torch.cat(embeddings), pictures.embeddings([encoder.row(row) for row in shown]), atol=1e-5)
        monkeypatch.setitem(AT_ONCE, "cpu", 2)
        pictures._kept.clear()
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(pictures.kept(wanted), embeddings, strict=True))


@pytest.mark.parametrize("space", ["pixel", "normalised"])
def test_noise_of_a_row_is_its_own(loaded: LoadedModel, encoder: Encoder, rows: list[Example], space: str) -> None:
    for kind in ELEMENTWISE:
        config = NoiseConfig(kind=kind, strength=0.5, space=space)  # type: ignore[arg-type]

        def noisy(examples: list[Example], step: int = 0, config: NoiseConfig = config) -> Batch:
            return perturb_batch(encoder, examples, config, seed=(5, step), instruction=INSTRUCTION)

        clean = encoder.batch(rows, INSTRUCTION).model_inputs
        first, again, later = (noisy(rows, step).model_inputs for step in (0, 0, 1))
        assert all(first[name].shape == clean[name].shape for name in clean)
        assert torch.equal(first["pixel_values"], again["pixel_values"])
        assert not torch.equal(first["pixel_values"], later["pixel_values"])
        assert not torch.equal(first["pixel_values"], clean["pixel_values"])
        with torch.no_grad():
            together = answer_logits(loaded.model, noisy(rows))
        assert torch.allclose(together, one_by_one(loaded.model, noisy, rows), atol=1e-5)


def test_noise_of_every_picture_starts_from_its_own_seed(encoder: Encoder) -> None:
    batch = perturb_batch(encoder, [ROWS["two"]], NoiseConfig(), seed=(5,), instruction=None)
    values = batch.model_inputs["pixel_values"].flatten()
    for place in range(2):
        expected = torch.rand(50, generator=torch.Generator().manual_seed(derive_seed(5, ROWS["two"].images[place].fingerprint, place)))
        starts = (values == expected[0]).nonzero().flatten().tolist()
        assert any(torch.equal(values[start : start + 50], expected) for start in starts)


@pytest.mark.parametrize("kind", ["blur", "shuffle", "mean"])
def test_noise_that_mixes_places_needs_pictures(family: Family, encoder: Encoder, kind: NoiseKind) -> None:
    def noisy(space: str) -> Batch:
        config = NoiseConfig(kind=kind, space=space, patch=8)  # type: ignore[arg-type]
        return perturb_batch(encoder, [ROWS["wide"]], config, seed=(5,), instruction=None)

    clean = encoder.batch([ROWS["wide"]]).model_inputs["pixel_values"]
    assert not torch.equal(noisy("pixel").model_inputs["pixel_values"], clean)
    if family.layout:
        assert not torch.equal(noisy("normalised").model_inputs["pixel_values"], clean)
    else:
        with pytest.raises(ModelError, match=r"(?s)does not return plain pictures.*fix: set noise.space to pixel"):
            noisy("normalised")


# -- training and writing -------------------------------------------------------------------------------------------------

SCOPE = ("language", "projector")


def config() -> RunConfig:
    training = {"steps": 3, "forget_batch": 2, "retain_batch": 2, "learning_rate": 1e-2, "warmup_steps": 0}
    return RunConfig.model_validate(
        {
            "method": {"name": "vgid", "answers": ["teacher", "student", "recorded"]},
            "adapter": {"rank": 4, "scope": SCOPE},
            "training": training,
            "validation": {"every": 0},
        }
    )


def test_vgid_lowers_the_loss_in_scope_only_and_what_is_written_is_what_was_trained(
    folder: Path, rows: list[Example], tmp_path: Path
) -> None:
    loaded = load_model(folder)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    forget, retain = rows[:2], rows[2:]
    # Writing reloads adapter and merged weights with stock libraries and compares them (verify_export).
    with output_folder(tmp_path):
        train_and_export(load_model(folder), forget, retain, config(), out=tmp_path)
    model = fit(loaded, forget, retain, config()).loaded.model
    structure = inspect_model(loaded.model)
    assert {structure.part_of(name) for name in adapted_modules(model)} <= set(SCOPE)
    after = {name.replace(".base_layer", ""): value for name, value in model.get_base_model().state_dict().items() if ".lora_" not in name}
    assert all(torch.equal(after[name], before[name]) for name in before)
    moved = {name for name, value in model.named_parameters() if "lora_B" in name and value.abs().sum() > 0}
    assert any("language" in name or "text_model" in name for name in moved)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MARK, "adapter", "merged"]
    # The loss on a fixed batch, before and after.
    method = VGID(VGIDConfig(adversary=None, replay=None))
    method.prepare(loaded.model, Context(Encoder(loaded.processor), forget, retain, 0, torch.device("cpu")))
    batch = StepBatch(0, tuple(forget), tuple(retain))
    fresh = attach_lora(load_model(folder).model, AdapterConfig(rank=4, scope=SCOPE), seed=0).eval()
    with torch.no_grad():
        assert method.loss(model, batch).total < method.loss(fresh, batch).total


# -- generation -----------------------------------------------------------------------------------------------------------


def test_answers_generated_together_are_those_generated_alone(loaded: LoadedModel, rows: list[Example]) -> None:
    together = generate(loaded, rows, max_new_tokens=6)
    assert together == [generate(loaded, [row], max_new_tokens=6)[0] for row in rows]


def test_answers_about_one_picture_are_decoded_together(family: Family, loaded: LoadedModel) -> None:
    with frozen(loaded.model), greedy(loaded, 6) as model:
        style = decoding_style(loaded, model, SHARED)
        assert (style is None) == (str(family) in CANNOT_SHARE)
    assert generate(loaded, SHARED, max_new_tokens=6) == [generate(loaded, [row], max_new_tokens=6)[0] for row in SHARED]


# -- what a family cannot do ----------------------------------------------------------------------------------------------


def test_rows_a_family_cannot_take_are_refused_before_training(family: Family, folder: Path) -> None:
    for kind, message in family.refuses.items():
        loaded = load_model(folder)
        with pytest.raises(DataError, match=f"{kind}: {message}"):
            fit(loaded, [ROWS["one"]], [ROWS[kind]], config())
        assert not adapted_modules(loaded.model)


def test_words_that_stand_for_pictures_are_refused(encoder: Encoder) -> None:
    row = ROWS["one"]
    mark = encoder.tokenizer.convert_ids_to_tokens(max(encoder._image_tokens))
    with pytest.raises(DataError, match=r"(?s)one: the answer holds a (word|special token).*fix: take it out of the answer"):
        encoder.row(replace(row, answer=f"Anna {mark}"))
    head = render_chat(encoder.processor, row).prompt.partition("Who")[0]  # with the template's own word for the picture
    # `<image>` once is where the row's only picture goes; in families with another word for it, once is already too much.
    special, word = "the question holds a special token", "the processor refuses this row.*fix: take words that stand for pictures"
    refused = rf"(?s)one: ({special}|{word}|the row has 2 times <image>)"
    with pytest.raises(DataError, match=refused):
        encoder.row(replace(row, question=f"{head}{head}Who?"))


def test_special_tokens_in_a_rows_text_are_refused(encoder: Encoder) -> None:
    """The end of a text, and the start of a turn, are found in every part; what only looks alike is encoded as text."""
    tokenizer, row = encoder.tokenizer, ROWS["one"]
    for word in {tokenizer.eos_token, *tokenizer.all_special_tokens} - {"!"}:
        for part, changed in (
            ("question", replace(row, question=f"Where {word} now?")),
            ("answer", replace(row, answer=f"In Oslo.{word}")),
            ("earlier turn", replace(row, context=(Turn("user", f"Hi{word}"), Turn("assistant", "Hello.")))),
        ):
            if word == IMAGE and part != "answer":
                continue  # it stands for a picture there
            with pytest.raises(DataError, match=rf"(?s)one: the {part} holds a special token.*found: {re.escape(word)}") as refused:
                check_special(special_words(tokenizer), changed, changed.answer)
            assert "Oslo" not in str(refused.value) and "Where" not in str(refused.value)  # what stands around it is private
    with pytest.raises(DataError, match="the question holds a special token"):
        encoder.check([row, replace(row, id="bad", question=f"{tokenizer.eos_token} who?")])
    harmless = replace(row, question="Is a < b, or a <| b, and what of <s >?")
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    plain, marked = (encoder.row(each).text["input_ids"].tolist() for each in (row, harmless))
    assert sum(token in special for token in marked) == sum(token in special for token in plain)


def test_a_processor_without_chat_template_is_refused_before_training(family: Family, folder: Path) -> None:
    loaded = load_model(folder)
    loaded.processor.chat_template = None  # as PaliGemma and base models are released
    with pytest.raises(ModelError, match=r"(?s)no chat template.*set processor.chat_template"):
        fit(loaded, [ROWS["one"]], [ROWS["wide"]], config())
    assert not adapted_modules(loaded.model)


def test_cross_attention_to_pictures_is_refused_before_training(tmp_path: Path) -> None:
    Family("Llama-3.2-Vision", mllama, end="<|eot_id|>").save(tmp_path)
    loaded = load_model(tmp_path)
    with pytest.raises(ModelError, match=r"(?s)by cross-attention.*found: MllamaProcessor with cross_attention_mask"):
        fit(loaded, [ROWS["one"]], [ROWS["text"]], config())
    assert not adapted_modules(loaded.model)


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is here")
@pytest.mark.parametrize("name", ["Qwen2_5_VLProcessor", "PixtralProcessor", "InternVLProcessor"])
def test_torchvision_is_asked_for_where_a_processor_needs_it(name: str, tmp_path: Path) -> None:
    model, processor = llava()
    model.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    video = {"video_processor": {"video_processor_type": "Qwen2VLVideoProcessor"}} if "Pixtral" not in name else {}
    described = {"processor_class": name, "image_processor": {"image_processor_type": "CLIPImageProcessor"}, **video}
    (tmp_path / "processor_config.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match=r"(?s)needs a package.*expected: torchvision.*fix: pip install torchvision"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("message", "fix"),
    [
        ("Package `num2words` is required to run SmolVLM processor. Install it with `pip install num2words`.", "pip install num2words"),
        ("No module named 'sentencepiece'", "pip install sentencepiece"),
        ("cannot import name 'x' from 'y'", "install it"),
    ],
)
def test_a_missing_package_is_named(random_folder: Path, monkeypatch: pytest.MonkeyPatch, message: str, fix: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImportError(message)

    monkeypatch.setattr(hf.AutoProcessor, "from_pretrained", fail)
    with pytest.raises(ModelError, match=f"(?s)needs a package that is not installed.*fix: {fix}$"):
        load_model(random_folder)
