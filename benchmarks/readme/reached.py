"""What every configuration reaches."""

from __future__ import annotations

import statistics
import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from readme.figures import MISSING, SINCE, Row, figure, joined, measured, newest, seconds, seeds, told
from results import read_results


@dataclass(frozen=True)
class Figure:
    """A metric of a line's measurement, or of another (`of`)."""

    metric: str
    words: str = ""
    of: str = ""
    digits: int = 3


@dataclass(frozen=True)
class Reached:
    """A line of the table of what can be trained. Its measurement is called as its YAML is, with `_` for `/`."""

    config: str
    what: str
    figures: Sequence[Figure] = ()
    more: Callable[[], list[tuple[str, str]]] = field(default=list)
    """What no metric of one row tells."""

    @property
    def name(self) -> str:
        return self.config.replace("/", "_")

    def told(self) -> str:
        """What was reached, in words and figures."""
        each = [figure(one.of or self.name, one.metric, one.digits, one.words) for one in self.figures]
        return joined([*each, *self.more()]) or MISSING

    def line(self) -> str:
        return f"| `configs/{self.config}.yaml` | {self.what} | {seconds(self.name)} | {self.told()} |"

    def comment(self) -> str:
        """The same for the head of the YAML."""
        took = seconds(self.name).replace(" (", " s (")
        text = f"Reached after {took}: {self.told()}." if took else f"Reached: {self.told()}."
        wrapped = textwrap.wrap(text.replace("±", "+-"), 120, initial_indent="# ", subsequent_indent="#   ")
        return "\n".join(wrapped)


def best_of(what: str, who: str, metric: str, digits: int) -> str:
    """What one of the models at equal steps reaches at its best rate, and that rate; nothing before all of its rates
    are there: the best of fewer would be no fair comparison. It is said where a still larger or smaller rate might
    be better."""
    rows = [row for row in read_results(f"equal_steps_{what}") if row.get("who") == who and not row.get("overrides")]
    rates = {row["rate"] for row in rows}
    if len(rates) < SWEPT:
        return MISSING
    best = min(rows, key=lambda row: row["val/loss"])
    same = newest([row for row in rows if row["rate"] == best["rate"]])
    edge = {min(rates): ", the smallest", max(rates): ", the largest"}.get(best["rate"], "")
    return f"{metric} {told([row[metric] for row in same], digits)} (rate {best['rate']:g}{edge} of {len(rates)})"


SWEPT = 4
"""How many rates `benchmarks/equal_steps.py` tries of each model at least."""


BOTH = (Figure("val/accuracy"), Figure("test/accuracy"))
BLEU = (Figure("test/bleu", digits=1), Figure("val/bleu", digits=1))


REACHED = (
    Reached(
        "quickstart",
        "cross-modal arithmetic: image, text, sound to text",
        (
            Figure("val/exact_match"),
            Figure("test/exact_match"),
            Figure("val/exact_match", "without the scratchpad ", "quickstart_no_scratchpad"),
        ),
    ),
    Reached(
        "mix/arithmetic_speech",
        "the same with MNIST and spoken digits",
        (Figure("val/exact_match"), Figure("test/exact_match")),
    ),
    Reached(
        "mix/audiovisual_digits",
        "a digit seen and heard, both in heavy noise",
        (
            Figure("val/accuracy"),
            Figure("val/without_sound/accuracy", "with the image alone "),
            Figure("val/without_image/accuracy", "with the sound alone "),
            Figure("val/accuracy", "trained on the image alone ", "mix_audiovisual_image_alone"),
            Figure("val/accuracy", "on the sound alone ", "mix_audiovisual_sound_alone"),
        ),
    ),
    Reached(
        "mix/stamps_caption",
        "a picture and its French caption spoken, to the English caption",
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
    Reached("speech/digits", "spoken digits (FSDD), known speakers", BOTH),
    Reached(
        "speech/digits_left_out",
        "spoken digits by a new speaker, transductively: his recordings are heard without labels; "
        "tuned on two speakers, these are the others",
        more=lambda: held_out(),
    ),
    Reached("sensor/motions", "six-axis recordings, four activities", more=lambda: folds()),
    Reached(
        "mix/driving_camera",
        "steering and braking, of which camera and state tell little",
        (Figure("val/mae_steering"), Figure("val/mae_braking")),
    ),
    Reached(
        "mix/driving",
        "the same model trained on, with a radar added",
        (
            Figure("val/mae_steering"),
            Figure("val/mae_braking", digits=4),
            Figure("val/without_radar/mae_steering"),
            Figure("val/without_radar/mae_braking"),
        ),
    ),
    Reached("translation/multi30k", "English to German from 29,000 captions, from scratch", BLEU),
    Reached(
        "translation/multi30k_2017",
        "the same by the recipe of 2017: post-norm, sines, Adam, averaged checkpoints",
        BLEU,
    ),
    Reached(
        "speech/digit_strings_ctc",
        "strings of 3 to 7 spoken digits, CTC",
        (Figure("val/wer", digits=4), Figure("test/wer", digits=4)),
    ),
    Reached(
        "speech/digit_strings_seq2seq",
        "the same by a decoder, with CTC beside it",
        (Figure("val/text/wer", digits=4), Figure("test/text/wer", digits=4)),
    ),
    Reached("bert/books", "BERT on classic novels", (Figure("val/accuracy"), Figure("val/loss"))),
    Reached(
        "bert/passages",
        "from it: which of seven novels 40 words are from, 25 passages of each",
        (
            *BOTH,
            Figure("val/accuracy", "from an untrained model ", "bert_passages_without"),
            Figure("test/accuracy", of="bert_passages_without"),
            Figure("val/accuracy", "from nothing, with a vocabulary of its own ", "bert_passages_own_vocabulary"),
            Figure("test/accuracy", of="bert_passages_own_vocabulary"),
        ),
    ),
    Reached(
        "lm/books",
        "GPT on classic novels: BERT's YAML with another attention and another task",
        (Figure("val/bits_per_byte"), Figure("val/loss")),
    ),
    Reached("t5/books", "T5 on classic novels: span corruption", (Figure("val/loss"),)),
    Reached(
        "lm/python_stdlib",
        "GPT, 4 layers, 192 wide, on Python's standard library",
        (Figure("val/bits_per_byte"), Figure("test/bits_per_byte")),
    ),
    Reached(
        "lm/notes",
        "a number noted down, and said again ten windows later",
        (
            Figure("val/exact_match"),
            Figure("test/exact_match"),
            Figure("test/exact_match", "without notes that last ", "lm_notes_without"),
        ),
    ),
    Reached(
        "generate/emoji",
        "emoji in colour from their names",
        (
            Figure("val/bits_per_code"),
            Figure("val/without_name/bits_per_code"),
            Figure("test/bits_per_code"),
        ),
    ),
    Reached(
        "generate/spoken_digits",
        "a spoken digit from its word, judged by our recogniser",
        (
            Figure("test/heard", "wer "),
            Figure("test/heard_decoded", "of true ones, encoded and decoded again "),
            Figure("val/heard"),
            Figure("val/heard_decoded"),
        ),
    ),
    Reached(
        "generate/molecules",
        "molecules as SMILES (MOSES), judged by RDKit",
        (
            Figure("val/molecules_valid"),
            Figure("val/molecules_unique"),
            Figure("val/molecules_novel"),
        ),
    ),
    Reached(
        "lm/shakespeare_char_nanogpt", "nanoGPT's character model, its CPU hyper-parameters", (Figure("val/loss"),)
    ),
    Reached("lm/shakespeare_char", "our recipe at the same size: Muon, rotary, squared ReLU", (Figure("val/loss"),)),
)


def by_seed(rows: Sequence[Row], which: str) -> tuple[list[float], list[Row]]:
    """The mean test accuracy of each seed over all that was held out (`which`: the column that names it: a fold, a
    speaker), and the rows that it is of, the newest of each; seeds of which one is missing are left out."""
    rows = list({(row["seed"], row[which]): row for row in sorted(rows, key=lambda row: row["measured"])}.values())
    of = {seed: [row for row in rows if row["seed"] == seed] for seed in sorted({row["seed"] for row in rows})}
    whole = [each for each in of.values() if len(each) == len({row[which] for row in rows})]
    return [statistics.mean(row["test/accuracy"] for row in each) for each in whole], [*chain(*whole)]


def folds() -> list[tuple[str, str]]:
    """The mean of the folds, each judged by a model that has learned from the others."""
    means, rows = by_seed([row for row in measured("sensor_motions") if "fold" in row], "fold")
    if not rows:
        return []
    return [(f"test/accuracy {told(means, 3)}", f"{len({row['fold'] for row in rows})} folds, {seeds(rows)}")]


def held_out() -> list[tuple[str, str]]:
    """The speakers that nothing was tuned on, each as the new one; beside them what the same model reaches
    without his recordings."""
    found = []
    for heard, words in ((True, "test/accuracy"), (False, "without his recordings in training")):
        own = [row for row in measured("speech_digits_left_out") if bool(row.get("heard", True)) is heard]
        means, rows = by_seed(own, "held_out")
        if rows:
            of = defaultdict(list)
            for row in sorted(rows, key=lambda row: row["held_out"]):
                of[row["held_out"]].append(row["test/accuracy"])
            each = ", ".join(f"{name} {statistics.mean(values):.3f}" for name, values in of.items())
            found.append((f"{words} {told(means, 3)}: {each}", seeds(rows)))
    return found


def stamps() -> list[tuple[str, str]]:
    """The captions that train lacks, by models that were trained on fewer inputs (`benchmarks/stamps_caption.py`)."""
    rows = {row["what"]: row for row in read_results("stamps_caption") if row["measured"] >= SINCE}
    if not rows:
        return []
    names = {"image": "the picture alone", "sound": "the sound alone", "nothing": "neither"}
    each = [f"{names[name]} {rows[name]['bits_per_byte']:.3f}" for name in names]
    against = [
        f"{row['bits_per_byte']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}) beside {names[name]}"
        for name in ("image", "sound")
        for row in [rows[f"fused - {name}"]]
    ]
    fused = rows["fused"]
    words = f"val/bits_per_byte {fused['bits_per_byte']:.3f} ± {fused['spread_over_seeds']:.3f}, {', '.join(against)}"
    known = f"{fused['seeds']} seeds; intervals of 95 % over captions"
    return [(f"at the last step {words}; trained on {', '.join(each)}", known)]


def reached() -> str:
    """What can be trained."""
    return "\n".join(
        ["| config | what | seconds | result |", "| --- | --- | --- | --- |", *(row.line() for row in REACHED)]
    )


def quickstart() -> str:
    """What the quickstart says at its end, in short."""
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
    for (name, (metric, best)), one in zip(shown.items(), inputs):
        left = f" {name:22} | {row[metric]:.3f}       | {best:.3f}"
        lines.append(f"{left}             {one:8} | {row[f'val/bits/{one}']:.2f} of {bits[one]:.2f}")
    return "\n".join(["```text", *lines, "```"])
