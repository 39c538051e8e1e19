"""What every configuration reaches."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from readme.figures import MISSING, Row, figure, measured, newest, seconds, seeds, told
from results import read_results


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
    Reached(
        "lm/books",
        "GPT on classic novels: BERT's YAML with another attention and another task",
        "lm_books",
        plain("lm_books", "val/bits_per_byte", "val/loss"),
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


def by_seed(rows: Sequence[Row], which: str) -> tuple[list[float], list[Row]]:
    """The mean test accuracy of each seed over all that was held out (`which`: the column that names it: a fold, a
    speaker), and the rows that it is of, the newest of each; seeds of which one is missing are left out."""
    rows = list({(row["seed"], row[which]): row for row in sorted(rows, key=lambda row: row["measured"])}.values())
    of = {seed: [row for row in rows if row["seed"] == seed] for seed in sorted({row["seed"] for row in rows})}
    whole = [each for each in of.values() if len(each) == len({row[which] for row in rows})]
    return [statistics.mean(row["test/accuracy"] for row in each) for each in whole], [*chain(*whole)]


def folds() -> list[str]:
    """The mean of the folds, each judged by a model that has learned from the others."""
    means, rows = by_seed([row for row in measured("sensor_motions") if "fold" in row], "fold")
    if not rows:
        return []
    return [f"test/accuracy {told(means, 3)} ({len({row['fold'] for row in rows})} folds, {seeds(rows)})"]


def held_out() -> list[str]:
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
            found.append(f"{words} {told(means, 3)} ({each}; {seeds(rows)})")
    return found


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
