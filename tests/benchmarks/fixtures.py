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
    size = -(-len(rows) // shards)
    for shard in range(shards):
        table = pa.Table.from_pylist(rows[shard * size : (shard + 1) * size])
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


def write_mllmu(root: Path, people: int = 6, forget: int = 2) -> Path:
    """The benchmark's layout: forget_5, retain_95, Test_Set in shards, Full_Set, and celebrities."""
    rows = [profile(number) for number in range(people)]
    write_parquet(root / "Full_Set", rows, shards=2)
    write_parquet(root / "forget_5", rows[:forget])
    write_parquet(root / "retain_95", rows[forget:], shards=2)
    tests = []
    for number, row in enumerate(rows):
        tests.append({key: value for key, value in row.items() if key not in ("image", "biography")})
        tests[-1]["images"] = [image(100 + number), image(200 + number)]
    write_parquet(root / "Test_Set", tests, shards=3, name="test")
    celebrity = profile(50)
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
