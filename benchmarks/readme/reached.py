"""The results of every configuration: the README's main table and the comments at the top of the YAML files."""

from __future__ import annotations

import statistics
import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from readme.figures import MISSING, SINCE, Row, figure, joined, mean_and_std, measured, newest, seconds, seeds
from results import read_results


@dataclass(frozen=True)
class Figure:
    """A metric of a line's own measurement or, if `of` is set, of another one. `words` precede its name."""

    metric: str
    words: str = ""
    of: str = ""
    digits: int = 3


@dataclass(frozen=True)
class Reached:
    """A line of the table of results. The name of its measurement is that of its YAML, with `_` instead of `/`."""

    config: str
    what: str
    figures: Sequence[Figure] = ()
    more: Callable[[], list[tuple[str, str]]] = field(default=list)
    """Computes results that combine several rows: pairs of (text, seeds)."""

    @property
    def name(self) -> str:
        return self.config.replace("/", "_")

    def result(self) -> str:
        """The metrics with the seeds they are measured on."""
        metrics = [figure(entry.of or self.name, entry.metric, entry.digits, entry.words) for entry in self.figures]
        return joined([*metrics, *self.more()]) or MISSING

    def line(self) -> str:
        return f"| `configs/{self.config}.yaml` | {self.what} | {seconds(self.name)} | {self.result()} |"

    def comment(self) -> str:
        """The same results as a comment for the header of the YAML."""
        took = seconds(self.name).replace(" (", " s (")
        text = f"Reached after {took}: {self.result()}." if took else f"Reached: {self.result()}."
        wrapped = textwrap.wrap(text.replace("±", "+-"), 120, initial_indent="# ", subsequent_indent="#   ")
        return "\n".join(wrapped)


def best_of(what: str, who: str, metric: str, digits: int) -> str:
    """Formats the metric of one model at its best learning rate, and that rate, with a note if it is the smallest or
    largest rate that was tried. Returns MISSING if fewer than SWEPT rates were measured, because a comparison of the
    best of fewer rates would be unfair."""
    rows = [row for row in read_results(f"equal_steps_{what}") if row.get("who") == who and not row.get("overrides")]
    rates = {row["rate"] for row in rows}
    if len(rates) < SWEPT:
        return MISSING
    best = min(rows, key=lambda row: row["val/loss"])
    same = newest([row for row in rows if row["rate"] == best["rate"]])
    edge = {min(rates): ", the smallest", max(rates): ", the largest"}.get(best["rate"], "")
    return (
        f"{metric} {mean_and_std([row[metric] for row in same], digits)} (rate {best['rate']:g}{edge} of {len(rates)})"
    )


SWEPT = 4
"""The least number of learning rates that `benchmarks/equal_steps.py` tries for each model."""


BOTH = (Figure("val/accuracy"), Figure("test/accuracy"))
BLEU = (Figure("test/bleu", digits=1), Figure("val/bleu", digits=1))


REACHED = (
    Reached(
        "quickstart",
        "cross-modal arithmetic: image, text and sound to text",
        (
            Figure("val/exact_match"),
            Figure("test/exact_match"),
            Figure("val/exact_match", "without the scratchpad ", "quickstart_no_scratchpad"),
        ),
    ),
    Reached(
        "mix/arithmetic_speech",
        "the same task with MNIST images and spoken digits",
        (Figure("val/exact_match"), Figure("test/exact_match")),
    ),
    Reached(
        "mix/audiovisual_digits",
        "a digit as an image and as speech, both with heavy noise",
        (
            Figure("val/accuracy"),
            Figure("val/without_sound/accuracy", "with only the image "),
            Figure("val/without_image/accuracy", "with only the sound "),
            Figure("val/accuracy", "trained on only the image ", "mix_audiovisual_image_alone"),
            Figure("val/accuracy", "on only the sound ", "mix_audiovisual_sound_alone"),
        ),
    ),
    Reached(
        "mix/stamps_caption",
        "English captions from pictures and spoken French captions",
        (
            Figure("val/bits_per_byte"),
            Figure("val/without_sound/bits_per_byte"),
            Figure("val/without_image/bits_per_byte"),
            Figure("val/without_image_sound/bits_per_byte"),
        ),
        lambda: stamps(),
    ),
    Reached("vision/cifar10", "ViT on 10,000 photographs, from scratch", BOTH),
    Reached("vision/mnist", "ViT on 8,000 handwritten digits", BOTH),
    Reached("speech/digits", "spoken digits (FSDD) by speakers of the training data", BOTH),
    Reached(
        "speech/digits_left_out",
        "spoken digits by a new speaker, transductive: training uses the speaker's recordings without their labels; "
        "hyper-parameters were tuned on two other speakers",
        more=lambda: held_out(),
    ),
    Reached("sensor/motions", "four activities from six-axis motion sensors", more=lambda: folds()),
    Reached("sensor/series", "GunPoint of the UCR archive, 40 series for training", BOTH),
    Reached(
        "sensor/temperatures",
        "the temperature (30-year normals) of the next 24 hours in Seattle, from the last 72",
        (
            Figure("test/mae"),
            Figure("test/mae_ridge"),
            Figure("test/mae_last_period"),
            Figure("test/coverage"),
            Figure("test/mae", words="in San Francisco ", of="sensor_temperatures_sf"),
            Figure("test/mae_ridge", words="in San Francisco ", of="sensor_temperatures_sf"),
            Figure("test/mae_last_period", words="in San Francisco ", of="sensor_temperatures_sf"),
            Figure("test/coverage", words="in San Francisco ", of="sensor_temperatures_sf"),
        ),
    ),
    Reached(
        "mix/driving_camera",
        "steering and braking from a camera and the vehicle's state, which are not sufficient",
        (Figure("val/mae_steering"), Figure("val/mae_braking")),
    ),
    Reached(
        "mix/driving",
        "the same model, trained further with a radar as an additional input",
        (
            Figure("val/mae_steering"),
            Figure("val/mae_braking", digits=4),
            Figure("val/without_radar/mae_steering"),
            Figure("val/without_radar/mae_braking"),
        ),
    ),
    Reached("translation/multi30k", "English to German, 29,000 captions, from scratch", BLEU),
    Reached(
        "translation/multi30k_2017",
        "the same task with the recipe of 2017: post-norm, sinusoidal positions, Adam, averaged checkpoints",
        BLEU,
    ),
    Reached(
        "speech/digit_strings_ctc",
        "strings of 3 to 7 spoken digits, CTC",
        (Figure("val/wer", digits=4), Figure("test/wer", digits=4)),
    ),
    Reached(
        "speech/digit_strings_seq2seq",
        "the same task with a decoder and an additional CTC loss",
        (Figure("val/text/wer", digits=4), Figure("test/text/wer", digits=4)),
    ),
    Reached("bert/books", "BERT on classic novels", (Figure("val/accuracy"), Figure("val/loss"))),
    Reached(
        "bert/passages",
        "`bert/books` fine-tuned: which of seven novels is a passage of 40 words from? 25 training passages each",
        (
            *BOTH,
            Figure("val/accuracy", "from random weights ", "bert_passages_without"),
            Figure("test/accuracy", of="bert_passages_without"),
            Figure(
                "val/accuracy", "from random weights with a vocabulary of the passages ", "bert_passages_own_vocabulary"
            ),
            Figure("test/accuracy", of="bert_passages_own_vocabulary"),
        ),
    ),
    Reached(
        "lm/books",
        "GPT on classic novels: the YAML of BERT with another attention graph and task",
        (Figure("val/bits_per_byte"), Figure("val/loss")),
    ),
    Reached("t5/books", "T5 on classic novels: span corruption", (Figure("val/loss"),)),
    Reached(
        "lm/python_stdlib",
        "GPT with 4 layers of width 192 on Python's standard library",
        (Figure("val/bits_per_byte"), Figure("test/bits_per_byte")),
    ),
    Reached(
        "lm/notes",
        "a number is written into a note and recalled ten context windows later",
        (
            Figure("val/exact_match"),
            Figure("test/exact_match"),
            Figure("test/exact_match", "without persistent notes ", "lm_notes_without"),
        ),
    ),
    Reached(
        "generate/emoji",
        "colour emoji from their names",
        (
            Figure("val/bits_per_code"),
            Figure("val/without_name/bits_per_code"),
            Figure("test/bits_per_code"),
        ),
    ),
    Reached(
        "generate/spoken_digits",
        "speech of a digit from its word, scored by our speech recogniser",
        (
            Figure("test/heard", "wer "),
            Figure("test/heard_decoded", "of real recordings after encoding and decoding "),
            Figure("val/heard"),
            Figure("val/heard_decoded"),
        ),
    ),
    Reached(
        "generate/molecules",
        "molecules as SMILES (MOSES), scored by RDKit",
        (
            Figure("val/molecules_valid"),
            Figure("val/molecules_unique"),
            Figure("val/molecules_novel"),
        ),
    ),
    Reached(
        "lm/shakespeare_char_nanogpt", "nanoGPT's character model with its CPU hyper-parameters", (Figure("val/loss"),)
    ),
    Reached(
        "lm/shakespeare_char",
        "the same size with our recipe: Muon, rotary positions, squared ReLU",
        (Figure("val/loss"),),
    ),
)


def by_seed(rows: Sequence[Row], which: str) -> tuple[list[float], list[Row]]:
    """Returns the mean test accuracy of each seed over all folds or speakers, and the rows used (the newest of each).
    `which` is the column that names the fold or speaker. Seeds for which one of them is missing are skipped."""
    rows = list({(row["seed"], row[which]): row for row in sorted(rows, key=lambda row: row["measured"])}.values())
    groups = [[row for row in rows if row["seed"] == seed] for seed in sorted({row["seed"] for row in rows})]
    complete = [group for group in groups if len(group) == len({row[which] for row in rows})]
    return [statistics.mean(row["test/accuracy"] for row in group) for group in complete], [*chain(*complete)]


def folds() -> list[tuple[str, str]]:
    """The mean accuracy of cross-validation: each fold is evaluated with a model trained on the other folds."""
    means, rows = by_seed([row for row in measured("sensor_motions") if "fold" in row], "fold")
    if not rows:
        return []
    return [(f"test/accuracy {mean_and_std(means, 3)}", f"{len({row['fold'] for row in rows})} folds, {seeds(rows)}")]


def held_out() -> list[tuple[str, str]]:
    """The accuracy on each held-out speaker that was not used for tuning, with and without the speaker's unlabelled
    recordings in training (column `heard`)."""
    results = []
    for unlabelled, words in ((True, "test/accuracy"), (False, "without the speaker's recordings in training")):
        matches = [row for row in measured("speech_digits_left_out") if bool(row.get("heard", True)) is unlabelled]
        means, rows = by_seed(matches, "held_out")
        if rows:
            accuracies = defaultdict(list)
            for row in sorted(rows, key=lambda row: row["held_out"]):
                accuracies[row["held_out"]].append(row["test/accuracy"])
            by_speaker = ", ".join(f"{name} {statistics.mean(values):.3f}" for name, values in accuracies.items())
            results.append((f"{words} {mean_and_std(means, 3)}: {by_speaker}", seeds(rows)))
    return results


def stamps() -> list[tuple[str, str]]:
    """Bits per byte on captions that are not in train, compared with models that were trained on fewer inputs
    (`benchmarks/stamps_caption.py`)."""
    rows = {row["what"]: row for row in read_results("stamps_caption") if row["measured"] >= SINCE}
    if not rows:
        return []
    names = {"image": "the picture only", "sound": "the sound only", "nothing": "neither"}
    levels = [f"{names[name]} {rows[name]['bits_per_byte']:.3f}" for name in names]
    differences = [
        f"{row['bits_per_byte']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}) compared with {names[name]}"
        for name in ("image", "sound")
        for row in [rows[f"fused - {name}"]]
    ]
    fused = rows["fused"]
    words = (
        f"val/bits_per_byte {fused['bits_per_byte']:.3f} ± {fused['spread_over_seeds']:.3f}, {', '.join(differences)}"
    )
    basis = f"{fused['seeds']} seeds; 95 % intervals over captions"
    return [(f"at the last step {words}; trained on {', '.join(levels)}", basis)]


def reached() -> str:
    """The table of the results of all configurations."""
    return "\n".join(
        ["| config | task | seconds | result |", "| --- | --- | --- | --- |", *(row.line() for row in REACHED)]
    )


def quickstart() -> str:
    """A short form of the tables that the quickstart prints at its end (seed 0)."""
    rows = [row for row in newest(measured("quickstart")) if row["seed"] == 0]
    if not rows:
        return f"```text\n{MISSING}\n```"
    (row,), inputs, bits = rows, ("image", "operator", "sound"), {"image": 3.32, "operator": 1.0, "sound": 3.32}
    shown = {
        "image, sound": ("val/without_operator/exact_match", 0.5),
        "operator, sound": ("val/without_image/exact_match", 0.1),
        "image, operator, sound": ("val/exact_match", 1.0),
    }
    lines = [" inputs present         | exact_match | best guess        input    | bits"]
    for (name, (metric, best)), input in zip(shown.items(), inputs):
        left = f" {name:22} | {row[metric]:.3f}       | {best:.3f}"
        lines.append(f"{left}             {input:8} | {row[f'val/bits/{input}']:.2f} of {bits[input]:.2f}")
    return "\n".join(["```text", *lines, "```"])
