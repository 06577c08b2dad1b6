"""What the benchmarks share: models of known shapes with random weights, rows about pictures, time and memory of a stage."""

from __future__ import annotations

import ctypes
import gc
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import CLIPImageProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from vgid.data.example import Example
from vgid.models.loading import LoadedModel, load_model
from vgid.synthetic.people import Camera, World
from vgid.synthetic.splits import training_rows
from vgid.synthetic.tiny import CHAT_TEMPLATE, tiny_path

LANGUAGE = {
    "tiny": {"vocab_size": 2048, "hidden_size": 192, "intermediate_size": 640, "num_hidden_layers": 5, "num_attention_heads": 6},
    # SmolLM2-135M
    "smol": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    # LLaVA-1.5-7B's Vicuna
    "llava-7b": {
        "vocab_size": 32064,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
}
VISION = {
    "tiny": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4},
    "smol": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4},
    "llava-7b": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
}


def build(shape: str, image_tokens: int, device: str, dtype: torch.dtype) -> LoadedModel:
    """A stock LLaVA of a known shape, `image_tokens` a square, with random weights and the embedded model's tokenizer."""
    side, patch = round(image_tokens**0.5), 14
    tokenizer = load_model(tiny_path()).processor.tokenizer
    tokenizer.model_max_length = 4096
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    text = LlamaConfig(max_position_embeddings=4096, **LANGUAGE[shape], **ends)
    vision = CLIPVisionConfig(image_size=side * patch, patch_size=patch, **VISION[shape])
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=image_tokens,
        vision_feature_layer=-1,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = LlavaForConditionalGeneration._from_config(config, dtype=dtype)
    size = {"height": side * patch, "width": side * patch}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, do_center_crop=False, do_convert_rgb=True),
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return LoadedModel(model.eval(), processor, shape)


def rows_about(images: int, questions: int, seed: int) -> list[Example]:
    """`questions` questions about each of `images` pictures of fictional people."""
    rows: list[Example] = []
    world = World(seed, people=images + 1, forget=1)
    for person in world.retain:
        facts = [row for row in training_rows(Camera(96), [person], seed) if row.images]
        # Every eighth row asks for another fact; all of them about the first one's picture.
        asked = [facts[(10 * k) % len(facts) + k // 8] for k in range(questions)]
        rows += [Example(row.id, row.question, row.answer, facts[0].images, row.subject, row.keywords) for row in asked]
    return rows


class Stage(NamedTuple):
    """Seconds of each repetition, and the largest memory the process (or the GPU) held meanwhile, in MB."""

    seconds: list[float]
    peak_mb: float

    @property
    def median(self) -> float:
        """Of the repetitions."""
        return statistics.median(self.seconds)


def measure(work: Callable[[], Any], repetitions: int, device: str) -> Stage:
    """Run a stage some times."""
    forget_peak(device)
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        work()
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    return Stage(seconds, peak_mb(device))


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was told."""
    if device != "cpu":
        torch.cuda.synchronize()


def forget_peak(device: str) -> None:
    """Give free memory back, and start to look for the peak anew."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb(device: str) -> float:
    """Since `forget_peak`."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return kilobytes / 1024


def largest_mb() -> float:
    """Since the process started."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_flops(device: str, dtype: torch.dtype) -> float:
    """What a large matrix product reaches on this device: the peak that counts in practice."""
    side = 8192 if device != "cpu" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    a @ b
    synchronise(device)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        synchronise(device)
        times.append(time.perf_counter() - started)
    return 2 * side**3 / min(times)


def device_name(device: str) -> str:
    """For the record."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    cpu = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"
