"""Files in the published layouts, written small: what the loaders must read."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from tests.conftest import png


def image(number: int) -> dict[str, Any]:
    return {"bytes": png(number, side=24), "path": f"{number}.png"}


def write_parquet(folder: Path, rows: list[dict[str, Any]], shards: int = 1, name: str = "train") -> None:
    """Rows in as many shards, as hub data sets have them."""
    folder.mkdir(parents=True, exist_ok=True)
    size, whole = -(-len(rows) // shards), pa.Table.from_pylist(rows)
    for shard in range(shards):
        table = whole.slice(shard * size, size)
        parquet.write_table(table, folder / f"{name}-{shard:05d}-of-{shards:05d}.parquet", row_group_size=2)


def choice(question: str, right: str = "B") -> dict[str, Any]:
    return {"Question": question, "Options": {"A": "Rome", "B": "Oslo", "C": "Lima", "D": "Cork"}, "Correct_Answer": right}


def profile(number: int) -> dict[str, Any]:
    return {
        "ID": f"p{number}",
        "image": image(number),
        "biography": "Lives in Oslo.",
        "question": "Who is this?",
        "answer": f"Person {number}.",
        "Classification_Task": {
            "Image_Textual_Questions": [choice("Where does this person live?")],
            "Pure_Text_Questions": [choice(f"Where does person {number} live?"), choice("And where else?", "C")],
        },
        "Generation_Task": [
            {"Type": "Image_Textual", "Question": "Where is home?", "Ground_Truth": "The person lives in Oslo."},
            {"Type": "Pure_Text", "Question": f"Where is person {number}?", "Ground_Truth": "In Oslo."},
        ],
        "Mask_Task": [
            {"Type": "Image_Textual", "Question": "This person lives in __.", "Ground_Truth": "Oslo"},
            {"Type": "Pure_Text", "Question": f"Person {number} lives in __.", "Ground_Truth": "Oslo"},
        ],
    }


def write_mllmu(root: Path, people: int = 6, forget: int = 2, *, numbered: bool = False) -> Path:
    """The benchmark's layout: forget_5, retain_95, Test_Set in shards, Full_Set, and celebrities."""
    rows = [profile(number) | ({"ID": number} if numbered else {}) for number in range(people)]
    write_parquet(root / "Full_Set", rows, shards=2)
    write_parquet(root / "forget_5", rows[:forget])
    write_parquet(root / "retain_95", rows[forget:], shards=2)
    tests = []
    for number, row in enumerate(rows):
        tests.append({key: value for key, value in row.items() if key not in ("image", "biography")})
        tests[-1]["images"] = [image(100 + number), image(200 + number)]
    write_parquet(root / "Test_Set", tests, shards=3, name="test")
    celebrity = profile(50) | ({"ID": 50} if numbered else {})
    # Lists of objects may come as one list a field, and missing optional columns must do no harm.
    celebrity["Mask_Task"] = {key: [each[key] for each in celebrity["Mask_Task"]] for key in ("Type", "Question", "Ground_Truth")}
    del celebrity["biography"]
    write_parquet(root / "Retain_Set", [celebrity])
    return root


def write_mllmu_training(root: Path, people: int = 6, forget: int = 2) -> Path:
    """The training splits' layout: questions as JSON text."""
    rows = []
    for number in range(people):
        pairs = [{"Question": "Who is this?", "Answer": f"Person {number}."}, {"Question": "Where?", "Answer": "Oslo."}]
        rows.append({"image": image(number), "ID": f"p{number}", "metadata": json.dumps(pairs)})
    write_parquet(root / "forget_5", rows[:forget])
    write_parquet(root / "retain_95", rows[forget:])
    return root


def write_clear(root: Path, people: int = 6, forget: int = 2) -> Path:
    """Captions, text rows, perturbed sets, and the real world."""
    captions = [{"image": image(n), "caption": f"Author {n} reads a book.", "name": f"Author {n}"} for n in range(people)]
    texts = [
        {"image": None, "caption": None, "name": None, "question": f"What did author {n} write?", "answer": f"Author {n} wrote a book."}
        for n in range(people)
    ]
    both = [row | {"question": None, "answer": None} for row in captions]
    perturbed = [
        row
        | {
            "paraphrased_caption": f"A book is read by author {n}.",
            "perturbed_captions": [f"Author {n} paints.", f"Author {n} sleeps on a sofa."],
            "perturbed_names": ["Nobody", "Somebody Else"],
        }
        for n, row in enumerate(captions)
    ]
    write_parquet(root / "forget10", captions[:forget])
    write_parquet(root / "retain90", captions[forget:], shards=2)
    write_parquet(root / "forget10+tofu", both[:forget] + texts[:forget])
    write_parquet(root / "retain90+tofu", both[forget:] + texts[forget:], shards=2)
    write_parquet(root / "forget10_perturbed", perturbed[:forget])
    write_parquet(root / "retain_perturbed", perturbed[forget:], shards=2)
    real = [{"image": image(30 + n), "answer": f"Star {n}", "options": ["Star 8", "Star 9"]} for n in range(2)]
    write_parquet(root / "real_faces", real)
    write_parquet(root / "real_world", [row | {"question": "What stands here?"} for row in real])
    return root


def write_fiubench(root: Path, people: int = 5, forget: int = 2, *, zipped: bool = True) -> Path:
    """JSON lines named `.json`, the list of splits, and pictures in a zip archive or unpacked."""
    import zipfile

    root.mkdir(parents=True, exist_ok=True)
    lines = []
    for n in range(people):
        pair = {
            "question": f"What is the Phone of person {n}?",
            "answer": f"It is 555-{n}.",
            "keywords": [f"555-{n}", "It"],
            "paraphrased_question": ["Which number?", "What does one dial?", "Phone?"],
            "paraphrased_answer": f"One dials 555-{n}.",
            "perturbed_answer": ["It is 777.", "it is 888."],
        }
        lines.append(
            {"unique_id": f"id{n}", "image_path": f"./dataset/faces/{n}.png", "name": f"N{n}", "raw_data": {}, "qa_list": [pair, pair]}
        )
    (root / "full.json").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    (root / "split.json").write_text(json.dumps({"forget5": [f"id{n}" for n in range(forget)], "forget1": ["id0"], "forget10": ["id0"]}))
    if zipped:
        with zipfile.ZipFile(root / "faces.zip", "w") as archive:
            for n in range(people):
                archive.writestr(f"faces/{n}.png", png(n, side=24))
                archive.writestr(f"__MACOSX/faces/._{n}.png", b"rubbish")
    else:
        for n in range(people):
            (root / "faces").mkdir(exist_ok=True)
            (root / "faces" / f"{n}.png").write_bytes(png(n, side=24))
    return root


def umu_row(n: int, *, as_json: bool = False) -> dict[str, Any]:
    def write(value: Any) -> str:
        return json.dumps(value) if as_json else str(value)

    def both(fact: dict[str, Any]) -> str:
        return write({"unimodal": {"home": fact}, "multimodal": {"home": fact}})

    qa = {"question": {"home": "Where's home?"}, "answer": {"home": "Oslo"}}
    by_name = {"question": {"home": f"Where's the home of {n}?"}, "answer": {"home": "Oslo"}}
    options = {"A": "Rome", "B": "Oslo", "C": "Lima", "D": "Cork"}
    return {
        "ID": f"p{n}",
        "image": image(n),
        "Biography": "Lives in Oslo.",
        "MM_QA": write([{"question": "Where's home?", "answer": "Oslo"}] if as_json else qa),
        "UM_QA": write(by_name),
        "Classify": both({"question": "Where's home?", "options": options, "answer": "B. Oslo"}),
        "Cloze": both({"question": "Home is ___.", "answer": "Oslo."}),
        "Generation": both({"question": "Where's home?", "answer": "Home is in Oslo."}),
    }


def write_umu(root: Path, people: int = 4, forget: int = 1) -> Path:
    """Python literals in one split, JSON in the others."""
    write_parquet(root / "forget_5", [umu_row(n) for n in range(forget)])
    write_parquet(root / "retain_95", [umu_row(n, as_json=True) for n in range(forget, people)])
    write_parquet(root / "real_person", [umu_row(50, as_json=True)])
    return root


def write_safeeraser(root: Path, entries: int = 2) -> Path:
    """A JSON list, and images in the same folder."""
    (root / "img" / "Weapon").mkdir(parents=True, exist_ok=True)
    (root / "sd").mkdir(exist_ok=True)
    rows = []
    for n in range(entries):
        (root / "img" / "Weapon" / f"{n}.png").write_bytes(png(n, side=24))
        (root / "sd" / f"{n}.png").write_bytes(png(40 + n, side=24))
        pair = {"question": "How is it used?", "model_response": "With force.", "sd_response": "It is a toy."}
        harmless = {"Question": "Which colour is it?", "Answer": "It is grey."}
        names = ("UnharmPair_text1", "UnharmPair_text2", "UnharmPair_image1", "UnharmPair_image2")
        row = {"image_id": f"img/Weapon/{n}.png", "SDImage_path": f"sd/{n}.png", "unsafe_pairs": [pair, pair]}
        rows.append(row | dict.fromkeys(names, harmless))
    (root / "all_train.json").write_text(json.dumps(rows, indent=1))
    return root


def write_covubench(root: Path) -> Path:
    """Shards in `data/`, nested keywords as JSON text."""

    def row(concept: str, kind: str, n: int) -> dict[str, Any]:
        return {
            "image": image(n) if kind != "text" else None,
            "question": f"Who is {concept}?" if kind == "text" else "Who is this hero?",
            "answer": f"This is {concept} of Mars.",
            "name": concept,
            "type": "cartoon",
            "keywords": json.dumps({"name": [concept], "home": ["Mars"]}),
            "question_type": kind,
        }

    for split, concepts in (
        ("forget5", ["Zork"]),
        ("test", ["Zork", "Blip"]),
        ("retain", ["Zork", "Blip"]),
        ("finetune", ["Zork", "Blip"]),
    ):
        rows = [row(concept, kind, n) for n, concept in enumerate(concepts) for kind in ("multi_modal", "caption", "text")]
        write_parquet(root / "data", rows, shards=2, name=split)
    return root


def write_ppu(root: Path) -> Path:
    """PPU-Bench's three tasks, with a picture and by name, and its split files."""

    def row(task: str, person: int, modality: str, n: int) -> dict[str, Any]:
        options = {f"option_{letter}": word for letter, word in zip("abcd", ("Rome", "Oslo", "Lima", "Cork"), strict=True)}
        who = "this person" if modality == "vqa" else f"Person {person}"
        rest = {"classification": {**options, "answer_label": "B"}}.get(task, {"answer_text": "Oslo" if task == "cloze" else "In Oslo."})
        return {
            "sample_id": f"Person_{person}_{n}",
            "subject_id": f"00{person}",
            "task_type": task,
            "modality": modality,
            "question": f"{who[0].upper()}{who[1:]} lives in ___." if task == "cloze" else f"Where does {who} live?",
            "image": image(person) if modality == "vqa" else None,
            **rest,
        }

    for task in ("generation", "classification", "cloze"):
        rows = [row(task, person, modality, n) for person in range(3) for n, modality in enumerate(("vqa", "qa"))]
        write_parquet(root / f"ppu_eval_{task}", rows)
    chosen = [{"subject_id": "000", "id": "Person_0_0"}, {"subject_id": "000", "id": "Person_0_1"}]
    kept = [{"subject_id": "001", "id": "Person_1_0"}, {"subject_id": "001", "id": "Person_1_1"}]
    splits = {"complete": {"forget5": ["000"]}, "selective": chosen, "persona": {"delete_ids": chosen, "keep_ids": kept}}
    (root / "split").mkdir()
    for name, content in splits.items():
        (root / "split" / f"{name}_split.json").write_text(json.dumps(content), "utf-8")
    return root


def write_remem(root: Path) -> Path:
    """Shards in `data/`: two people with two pictures each; the first is in `forget1`."""

    def row(person: int, kind: str, n: int) -> dict[str, Any]:
        home = ("Oslo", "Rome", "Lima")[person]
        return {
            "image": image(10 * person + n) if kind != "text" else None,
            "question": "Where does this person live?" if kind != "multi_hop" else "Of which country is the town of this person?",
            "answer": f"In {home}.",
            "keywords": [json.dumps([home]), home, f"['{home}']"][person],
            "question_type": kind,
            "qa_category": "image",
            "attribute": "home",
            "cloze_prompt": "This person lives in" if kind == "single_hop" else None,
            "image_path": f"images/person_{person}/{n}.png",
        }

    for split, people, kinds in (
        ("forget1", [0], ("single_hop", "multi_hop")),
        ("retain", [1, 2], ("single_hop", "text")),
        ("test", [0, 1], ("multi_hop",)),
    ):
        write_parquet(root / "data", [row(person, kind, n) for person in people for n, kind in enumerate(kinds)], name=split)
    return root


def write_unlok_vqa(root: Path) -> Path:
    """UnLOK-VQA's list, and pictures under COCO's names."""
    root.mkdir(exist_ok=True)
    rows = []
    for n in range(1, 12):
        (root / f"COCO_{'train' if n % 2 else 'val'}2014_{n:012d}.jpg").write_bytes(png(n, side=24))
        near = ["nq question: Who makes it?", "Is it old?"] if n != 2 else []
        row = {"id": n, "src": "What is it for?", "pred": "Ice cream", "image_id": n}
        rows.append(row | {"loc": near, "loc_ans": ["Smith", "yes"][: len(near)]})
    (root / "unlok.json").write_text(json.dumps(rows), "utf-8")
    return root


def write_mlubench(root: Path) -> Path:
    """MLUBench's tasks A and B, in LLaVA's form, and pictures by the folders of their things."""
    for task, part, things in (("A", "forget", ["Dog"]), ("A", "retain", ["Fern"]), ("B", "forget", ["Tower"]), ("B", "retain", ["Film"])):
        rows = []
        for n, thing in enumerate(things * 2):
            path = f"downloaded_images/Things/{thing}/{n}.jpg"
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(png(10 * ord(thing[0]) + n, side=24))
            turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": f"It is a {thing}."}]
            rows.append({"id": str(n), "image": path, "conversations": turns})
        folder = root / "Tasks" / f"Task{task}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"task{task}_{part}.json").write_text(json.dumps(rows), "utf-8")
    return root


def write_prepared(root: Path) -> Path:
    """Open-MMunlearning's prepared rows."""
    for split, people in (("forget_5", [0]), ("retain_95", [1, 2])):
        rows = []
        for n in people:
            pairs = [
                {"ID": f"p{n}:0", "Question": "Who is this?", "Answer": f"Person {n}."},
                {"ID": f"p{n}:1", "Question": f"Where is person {n}?", "Answer": "In Oslo.", "has_image": False},
            ]
            rows.append({"image": image(n), "ID": f"p{n}", "metadata": json.dumps(pairs), "source_split": split, "qa_count": 2})
        write_parquet(root / split, rows)
    return root
