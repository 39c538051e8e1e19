"""Ours beside peers: speed, quality after as many steps, architectures."""

from __future__ import annotations

from readme.reached import best_of
from results import read_results

SPEED = {
    "nanogpt": ("training step of nanoGPT's CPU model", "no biases on either side"),
    "gpt2": ("the same shape as GPT-2 has it", "biases on both sides"),
    "vit": ("training step of a ViT-S/16, 4 images", "ours from bytes on"),
    "ast": (
        "training step of an AST of that size, 4 sounds",
        "ours from the raw sound on, the peer's spectrogram is ready",
    ),
    "bert": ("training step of a BERT", "the head on the judged tokens alone on both sides"),
    "t5": ("training step of a T5", "ours from texts on, chopped and packed every time"),
    "whisper": ("training step of a Whisper", "both from the spectrogram on"),
    "beams": ("beam search, T5, 4 beams", "ours from texts on"),
    "transcription": ("transcription, Whisper, greedy, 30 seconds", "the spectrogram is ready"),
    "generation_char_4x128": ("generation, 4 x 128 character model, batch 1", "greedy"),
    "generation_gpt2_small": ("generation, GPT-2 small's shape, batch 1", "greedy; both near the speed of memory"),
}


READY = ("beams", "transcription")
"""What is imported and asked: float32 by default on both sides."""


ALIKE = {"float32": "float32 on both sides", "defaults": "defaults: ours bfloat16"}


def speed() -> str:
    """How many times faster ours is."""
    lines = ["| what | peer | arithmetic | times faster | 10th to 90th percentile; ours first, second | what differs |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    rows = read_results("peer")
    for what, (words, differs) in SPEED.items():
        for precision, arithmetic in ALIKE.items():
            found = [row for row in rows if (row["what"], row["precision"]) == (what, precision)]
            if not found or (precision == "defaults" and what in READY):
                continue
            row = max(found, key=lambda row: (row["threads"], row["measured"]))
            orders = f"{row['ratio_ours_first']:.2f}, {row['ratio_theirs_first']:.2f}"
            spread = f"{row['ratio_p10']:.2f} to {row['ratio_p90']:.2f}; {orders}"
            more = f"; {row['share_of_floor']:.0%} of the memory-bandwidth floor" if "share_of_floor" in row else ""
            lines.append(
                f"| {words} | {row['peer']} | {arithmetic} | {row['ratio']:.2f} | {spread} | {differs}{more} |"
            )
    return "\n".join(lines)


WHO = {
    "ours": "ours, with its own recipe (Muon)",
    "ours_adamw": "ours, with the peers' recipe (AdamW)",
    "first": "transformers' of the first paper: {first}",
    "modern": "transformers' modern one: {modern}",
}


EQUAL = {
    "bert_books": ("BERT on novels", ("val/accuracy", 3), {"first": "BERT, 2018", "modern": "ModernBERT's shape"}),
    "t5_books": ("T5 on novels", ("val/loss", 3), {"first": "T5 1.1, 2020", "modern": "T5Gemma's shape"}),
}


def equal_steps() -> str:
    """Quality at equal size, batches and steps."""
    lines = ["| task | model | reached, at the best rate |", "| --- | --- | --- |"]
    for name, (task, (metric, digits), names) in EQUAL.items():
        for who, words in WHO.items():
            lines.append(f"| {task} | {words.format(**names)} | {best_of(name, who, metric, digits)} |")
    return "\n".join(lines)


def architectures() -> str:
    """Published architectures, and the largest difference of outputs."""
    lines = ["| architecture | what it is | reference | largest difference |", "| --- | --- | --- | --- |"]
    rows = {row["architecture"]: row for row in read_results("architectures")}
    for row in rows.values():
        difference = f"{row['difference']:.0e}" if row["difference"] else "0: equal to the bit"
        lines.append(f"| {row['architecture']} | {row['what']} | {row['reference']} | {difference} |")
    return "\n".join(lines)
