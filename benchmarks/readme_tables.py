"""The README's tables, made of `benchmarks/results/` alone:

    python benchmarks/readme_tables.py            # says which tables differ; exit status 1 where one does
    python benchmarks/readme_tables.py --write    # puts them into README.md

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`. What is said here in words holds no figures: these come
from the rows that `measure.py`, `peers.py`, `generation.py`, `equal_steps.py` and `architectures.py` have written.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import read_results

README = Path(__file__).parent.parent / "README.md"
SINCE = "2026-11-26"
"""Figures of this day and later are of the code as it stands; earlier ones are of the code before, which is said
beside them."""
MISSING = "not measured on this code yet"
Row = dict[str, Any]


# ----------------------------------------------------------------------------------------------------- what runs reach


def newest(rows: Sequence[Row], key: str = "seed") -> list[Row]:
    """Of each seed the newest row."""
    return list({row[key]: row for row in sorted(rows, key=lambda row: row["measured"])}.values())


def told(values: Sequence[float], digits: int) -> str:
    """One value, or the mean of several and their standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def seeds(rows: Sequence[Row]) -> str:
    """Which seeds rows are of."""
    numbers = sorted({int(row["seed"]) for row in rows})
    return f"seed {numbers[0]}" if len(numbers) == 1 else f"seeds {', '.join(map(str, numbers))}"


def earlier(name: str) -> list[Row]:
    """Rows of the code before."""
    equal = [row for row in read_results(f"equal_steps_{name}") if row.get("what") == "chopmix"]
    return read_results(f"seeds_{name}") + equal


SOME = {
    ("quickstart", "val/exact_match"): 256,
    ("quickstart_no_scratchpad", "val/exact_match"): 256,
    ("arithmetic_speech", "val/exact_match"): 256,
    ("multi30k", "val/bleu"): 300,
    ("multi30k_2017", "val/bleu"): 300,
}
"""Metrics that rows of the code before have of so many samples instead of all."""


def figure(name: str, metric: str, digits: int = 3, before: str | None = None, words: str = "") -> str:
    """A metric of a measurement, `reached_NAME`; behind it what the code before reached, where not all seeds are
    measured again (`before`: under which name its rows are kept). Nothing where neither is there."""
    before = before or name
    now = [row for row in newest(read_results(f"reached_{name}")) if metric in row and row["measured"] >= SINCE]
    then = newest([row for row in earlier(before) if metric in row])
    then = [row for row in then if row["seed"] not in {each["seed"] for each in now}]
    some = f"{SOME[before, metric]} samples, " if (before, metric) in SOME else ""
    parts = []
    if now:
        parts.append(f"{told([row[metric] for row in now], digits)} ({seeds(now)})")
    if then:
        parts.append(f"{told([row[metric] for row in then], digits)} ({some}{seeds(then)} of the code before)")
    return f"{words}{metric} {'; '.join(parts)}" if parts else ""


def seconds(name: str, before: str | None = None) -> str:
    """How long a run took: training alone."""
    rows = [row for row in newest(read_results(f"reached_{name}")) if row["measured"] >= SINCE]
    rows = rows or newest(earlier(before or name))
    if not rows:
        return ""
    values = [row["seconds"] for row in rows]
    threads = {row.get("threads") for row in rows} - {None, 0}
    lowest, highest = f"{min(values):,.0f}", f"{max(values):,.0f}"
    span = lowest if lowest == highest else f"{lowest} to {highest}"
    return span + (f" ({'one thread' if threads == {1} else f'{max(threads)} threads'})" if threads else "")


@dataclass(frozen=True)
class Reached:
    """A line of the table of what can be trained."""

    config: str
    what: str
    name: str
    """Its measurement: `reached_NAME`."""
    figures: Callable[[], Sequence[str]]
    before: str | None = None

    def line(self) -> str:
        told = "; ".join(filter(None, self.figures())) or MISSING
        return f"| `configs/{self.config}.yaml` | {self.what} | {seconds(self.name, self.before)} | {told} |"


def plain(name: str, *metrics: str, digits: int = 3, before: str | None = None) -> Callable[[], Sequence[str]]:
    """Some metrics of a measurement."""
    return lambda: [figure(name, metric, digits, before) for metric in metrics]


def best_of(what: str, who: str, metric: str, digits: int) -> str:
    """What one of the models at equal steps reaches at its best rate, and that rate."""
    rows = [row for row in read_results(f"equal_steps_{what}") if row.get("who") == who and not row.get("overrides")]
    if not rows:
        return MISSING
    best = min(rows, key=lambda row: row["val/loss"])
    same = newest([row for row in rows if row["rate"] == best["rate"]])
    return f"{metric} {told([row[metric] for row in same], digits)} (rate {best['rate']:g})"


REACHED = (
    Reached(
        "quickstart",
        "cross-modal arithmetic: image, text, sound to text",
        "quickstart",
        lambda: [
            figure("quickstart", "val/exact_match"),
            figure("quickstart", "test/exact_match"),
            figure("quickstart_no_scratchpad", "val/exact_match", words="without the scratchpad "),
        ],
    ),
    Reached(
        "mix/arithmetic_speech",
        "the same with MNIST and spoken digits",
        "mix_arithmetic_speech",
        plain("mix_arithmetic_speech", "val/exact_match", "test/exact_match", before="arithmetic_speech"),
        "arithmetic_speech",
    ),
    Reached(
        "mix/audiovisual_digits",
        "a digit seen and heard, both in heavy noise",
        "mix_audiovisual_digits",
        lambda: [
            figure("mix_audiovisual_digits", "val/accuracy", before="audiovisual_digits"),
            figure(
                "mix_audiovisual_digits",
                "val/without_sound/accuracy",
                before="audiovisual_digits",
                words="with the image alone ",
            ),
            figure(
                "mix_audiovisual_digits",
                "val/without_image/accuracy",
                before="audiovisual_digits",
                words="with the sound alone ",
            ),
            figure(
                "mix_audiovisual_image_alone",
                "val/accuracy",
                before="audiovisual_image_alone",
                words="trained on the image alone ",
            ),
            figure(
                "mix_audiovisual_sound_alone",
                "val/accuracy",
                before="audiovisual_sound_alone",
                words="on the sound alone ",
            ),
        ],
        "audiovisual_digits",
    ),
    Reached(
        "mix/stamps_caption",
        "a picture and its French caption spoken, to the English caption",
        "mix_stamps_caption",
        plain(
            "mix_stamps_caption",
            "val/bits_per_byte",
            "val/without_sound/bits_per_byte",
            "val/without_image/bits_per_byte",
            "val/without_image_sound/bits_per_byte",
            before="stamps_caption",
        ),
        "stamps_caption",
    ),
    Reached(
        "vision/cifar10",
        "ViT on 10,000 photographs, from scratch",
        "vision_cifar10",
        plain("vision_cifar10", "val/accuracy", "test/accuracy", before="cifar10"),
        "cifar10",
    ),
    Reached(
        "vision/mnist",
        "ViT on 8,000 handwritten digits",
        "vision_mnist",
        plain("vision_mnist", "val/accuracy", "test/accuracy", before="mnist"),
        "mnist",
    ),
    Reached(
        "speech/digits",
        "spoken digits (FSDD), known speakers",
        "speech_digits",
        plain("speech_digits", "val/accuracy", "test/accuracy", before="digits"),
        "digits",
    ),
    Reached(
        "speech/digits_left_out",
        "spoken digits by a new speaker, transductively: his recordings are heard without labels; "
        "tuned on two speakers, these are the others",
        "speech_digits_left_out",
        lambda: held_out(),
    ),
    Reached("sensor/motions", "six-axis recordings, four activities", "sensor_motions", lambda: folds()),
    Reached(
        "mix/driving",
        "steering and braking, of which a radar added to a trained model tells",
        "mix_driving",
        lambda: [
            figure("mix_driving_camera", "val/mae_braking", before="driving_camera", words="before the radar "),
            figure("mix_driving", "val/mae_braking", 4, before="driving", words="with it "),
            figure("mix_driving", "val/without_radar/mae_braking", before="driving", words="with it withheld "),
        ],
        "driving",
    ),
    Reached(
        "translation/multi30k",
        "English to German from 29,000 captions, from scratch",
        "translation_multi30k",
        plain("translation_multi30k", "test/bleu", "val/bleu", digits=1, before="multi30k"),
        "multi30k",
    ),
    Reached(
        "translation/multi30k_2017",
        "the same by the recipe of 2017: post-norm, sines, Adam, averaged checkpoints",
        "translation_multi30k_2017",
        plain("translation_multi30k_2017", "test/bleu", "val/bleu", digits=1, before="multi30k_2017"),
        "multi30k_2017",
    ),
    Reached(
        "speech/digit_strings_ctc",
        "strings of 3 to 7 spoken digits, CTC",
        "speech_digit_strings_ctc",
        plain("speech_digit_strings_ctc", "val/wer", "test/wer", digits=4, before="digit_strings_ctc"),
        "digit_strings_ctc",
    ),
    Reached(
        "speech/digit_strings_seq2seq",
        "the same by a decoder, with CTC beside it",
        "speech_digit_strings_seq2seq",
        plain(
            "speech_digit_strings_seq2seq", "val/text/wer", "test/text/wer", digits=4, before="digit_strings_seq2seq"
        ),
        "digit_strings_seq2seq",
    ),
    Reached("bert/books", "BERT on classic novels", "bert_books", plain("bert_books", "val/accuracy", "val/loss")),
    Reached(
        "bert/passages",
        "from it: which of seven novels 40 words are from, 25 passages of each",
        "bert_passages",
        lambda: [
            *plain("bert_passages", "val/accuracy", "test/accuracy", before="passages_with")(),
            figure(
                "bert_passages_without", "val/accuracy", before="passages_without", words="from an untrained model "
            ),
            figure("bert_passages_without", "test/accuracy", before="passages_without"),
        ],
        "passages_with",
    ),
    Reached("t5/books", "T5 on classic novels: span corruption", "t5_books", plain("t5_books", "val/loss")),
    Reached(
        "lm/python_stdlib",
        "GPT, 4 layers, 192 wide, on Python's standard library",
        "lm_python_stdlib",
        plain("lm_python_stdlib", "val/bits_per_byte", "test/bits_per_byte", before="python_stdlib"),
        "python_stdlib",
    ),
    Reached(
        "lm/shakespeare_char_nanogpt",
        "nanoGPT's character model, its CPU hyper-parameters",
        "lm_shakespeare_char_nanogpt",
        plain("lm_shakespeare_char_nanogpt", "val/loss", before="shakespeare_char_nanogpt"),
        "shakespeare_char_nanogpt",
    ),
    Reached(
        "lm/shakespeare_char",
        "our recipe at the same size: Muon, rotary, squared ReLU",
        "lm_shakespeare_char",
        plain("lm_shakespeare_char", "val/loss", before="shakespeare_char"),
        "shakespeare_char",
    ),
)


def folds() -> list[str]:
    """The mean of the folds, each judged by a model that has learned from the others."""
    rows = newest([row for row in read_results("reached_sensor_motions") if "fold" in row], "fold")
    if not rows:
        return []
    return [f"test/accuracy {told([row['test/accuracy'] for row in rows], 3)} ({len(rows)} folds, {seeds(rows)})"]


def held_out() -> list[str]:
    """The speakers that nothing was tuned on, each as the new one; beside them what the same model reaches
    without his recordings."""
    rows = [row for row in read_results("reached_speech_digits_left_out") if row["measured"] >= SINCE]
    found = []
    for heard, words in ((True, "test/accuracy"), (False, "without his recordings in training")):
        of = {row["held_out"]: row for row in rows if bool(row.get("heard", True)) is heard}
        if of:
            each = ", ".join(f"{name} {row['test/accuracy']:.3f}" for name, row in sorted(of.items()))
            mean = statistics.mean(row["test/accuracy"] for row in of.values())
            found.append(f"{words} {mean:.3f} ({each}; {seeds(list(of.values()))})")
    return found


def reached() -> str:
    """What can be trained."""
    return "\n".join(
        ["| config | what | seconds | result |", "| --- | --- | --- | --- |", *(row.line() for row in REACHED)]
    )


def quickstart() -> str:
    """What the quickstart says at its end, in short."""
    rows = [row for row in newest(read_results("reached_quickstart")) if row["seed"] == 0 and row["measured"] >= SINCE]
    if not rows:
        return f"```text\n{MISSING}\n```"
    (row,), inputs, bits = rows, ("image", "operator", "sound"), {"image": 3.32, "operator": 1.0, "sound": 3.32}
    shown = {
        "image, sound": ("val/without_operator/exact_match", 0.5),
        "operator, sound": ("val/without_image/exact_match", 0.1),
        "image, operator, sound": ("val/exact_match", 1.0),
    }
    lines = [" inputs present         | exact_match | best guess        input    | bits"]
    for (name, (metric, best)), one in zip(shown.items(), inputs):
        left = f" {name:22} | {row[metric]:.3f}       | {best:.3f}"
        lines.append(f"{left}             {one:8} | {row[f'val/bits/{one}']:.2f} of {bits[one]:.2f}")
    return "\n".join(["```text", *lines, "```"])


# ------------------------------------------------------------------------------------------------------ beside peers

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
    lines = ["| task | model | reached, at the best of four rates |", "| --- | --- | --- |"]
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


TABLES: dict[str, Callable[[], str]] = {
    "quickstart": quickstart,
    "reached": reached,
    "speed": speed,
    "equal steps": equal_steps,
    "architectures": architectures,
}


def with_tables(text: str) -> str:
    """The README with its tables made anew. Raises ValueError for one that has no place in it."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"README.md must have {begin.strip()} and {end.strip()} once each")
        before, _, rest = text.partition(begin)
        text = before + begin + make() + end + rest.partition(end)[2]
    return text


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--write", action="store_true", help="put the tables into README.md")
    chosen = options.parse_args()
    text = README.read_text(encoding="utf-8")
    made = with_tables(text)
    if chosen.write:
        README.write_text(made, encoding="utf-8")
        return 0
    for old, new in zip(text.splitlines(), made.splitlines()):
        if old != new:
            print(f"- {old}\n+ {new}")
    return int(made != text)


if __name__ == "__main__":
    sys.exit(main())
