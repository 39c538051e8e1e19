"""Tables that compare chopmix with other libraries: speed, quality after equal steps, imported architectures."""

from __future__ import annotations

from readme.reached import best_of
from results import read_results

SPEED = {
    "nanogpt": ("training step of nanoGPT's CPU model", "no biases on either side"),
    "gpt2": ("the same model with biases (GPT-2)", "biases on both sides"),
    "vit": ("training step of a ViT-S/16, 4 images", "ours starts from bytes (uint8)"),
    "ast": (
        "training step of an AST of the same size, 4 sounds",
        "ours computes the spectrogram, the peer receives it",
    ),
    "bert": ("training step of a BERT", "both apply the head to the masked tokens only"),
    "t5": ("training step of a T5", "ours starts from texts, which it chops and packs in every step"),
    "whisper": ("training step of a Whisper", "both start from the spectrogram"),
    "beams": ("beam search, T5, 4 beams", "ours starts from texts"),
    "transcription": ("transcription, Whisper, greedy, 30 seconds", "both start from the spectrogram"),
    "generation_char_4x128": ("generation, 4 x 128 character model, batch 1", "greedy"),
    "generation_gpt2_small": (
        "generation, GPT-2 small's shape, batch 1",
        "greedy; both are limited by memory bandwidth",
    ),
}


FLOAT32_ONLY = ("beams", "transcription")
"""Measurements of imported models, which use float32 by default on both sides."""


ARITHMETIC = {
    "float32": "float32 on both sides",
    "bfloat16": "bfloat16 on both sides",
    "defaults": "defaults: ours bfloat16, the peer float32",
}


def speed() -> str:
    """The table of speed-ups over other libraries, with the processor of each row."""
    columns = (
        "| what | peer | arithmetic | speed-up | 10th to 90th percentile; ours first, second | what differs | on |"
    )
    lines = [columns, "| --- | --- | --- | --- | --- | --- | --- |"]
    rows = read_results("peer")
    for what, (words, differs) in SPEED.items():
        for precision, arithmetic in ARITHMETIC.items():
            matches = [row for row in rows if (row["what"], row["precision"]) == (what, precision)]
            if not matches or (precision != "float32" and what in FLOAT32_ONLY):
                continue
            row = max(matches, key=lambda row: (row["threads"], row["measured"]))
            orders = f"{row['ratio_ours_first']:.2f}, {row['ratio_theirs_first']:.2f}"
            spread = f"{row['ratio_p10']:.2f} to {row['ratio_p90']:.2f}; {orders}"
            more = f"; {row['share_of_floor']:.0%} of the memory-bandwidth floor" if "share_of_floor" in row else ""
            lines.append(
                f"| {words} | {row['peer']} | {arithmetic} | {row['ratio']:.2f} | {spread} | {differs}{more} "
                f"| {row['processor']} |"
            )
    return "\n".join(lines)


WHO = {
    "ours": "ours, with its own recipe (Muon)",
    "ours_adamw": "ours, with the peers' recipe (AdamW)",
    "first": "transformers, model of the original paper: {first}",
    "modern": "transformers, modern variant: {modern}",
}


EQUAL = {
    "bert_books": (
        "BERT on novels",
        ("val/accuracy", 3),
        {"first": "BERT (2018)", "modern": "ModernBERT architecture"},
    ),
    "t5_books": ("T5 on novels", ("val/loss", 3), {"first": "T5 1.1 (2020)", "modern": "T5Gemma architecture"}),
}


def equal_steps() -> str:
    """The table of metrics at equal model size, batches and number of steps."""
    lines = ["| task | model | result at the best learning rate |", "| --- | --- | --- |"]
    for name, (task, (metric, digits), names) in EQUAL.items():
        for who, words in WHO.items():
            lines.append(f"| {task} | {words.format(**names)} | {best_of(name, who, metric, digits)} |")
    return "\n".join(lines)


def architectures() -> str:
    """The table of imported architectures with the largest relative difference of their outputs."""
    lines = ["| architecture | what it is | reference | largest difference |", "| --- | --- | --- | --- |"]
    rows = {row["architecture"]: row for row in read_results("architectures")}
    for row in rows.values():
        difference = f"{row['difference']:.0e}" if row["difference"] else "0: bit-identical"
        lines.append(f"| {row['architecture']} | {row['what']} | {row['reference']} | {difference} |")
    return "\n".join(lines)
