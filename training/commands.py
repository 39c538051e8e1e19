"""What each command of the command line does."""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from ..data.card import Card, read_text
from ..data.samples import SampleCard
from ..data.whole_file import WholeFile
from ..models.generation import Sampling
from . import checkpoint
from .catalogue import catalogue_of
from .config import Config, json_schema, load_config
from .distribution import Processes, leave
from .loop import Trainer
from .progress import Progress, duration
from .run import Run, RunError, load_run, read_config
from .worth import tables


def train_command(options: argparse.Namespace) -> int:
    """Train, resume, or show what a finished run reached."""
    config = load_config(options.config, options.overrides)
    if options.dry_run:
        from .dry_run import dry_run

        dry_run(config)
        return 0
    status = train_seeds(options) if options.seeds else train(config)[1]
    Processes.stop()
    return leave(status)


def train(config: Config) -> tuple[dict[str, float], int]:
    """One run; gives its summary's metrics and the exit status (130 or 143 when it was asked to stop)."""
    processes = Processes.start(config.training.device)
    progress = Progress(config.training.steps)
    folder = Path(config.out)
    if processes.is_first:
        claim(config, folder)
    processes.wait()
    finished = folder / "summary.json"
    if checkpoint.read_step(folder, "last") == config.training.steps and finished.exists():
        summary = checkpoint.read_json(finished)
        if processes.is_first:
            progress.say(f"{folder} is finished: {json.dumps(summary)}")
        return summary, 0
    trainer = Trainer(config, processes, progress)
    metrics = trainer.fit()
    summary = {"step": trainer.step, "seconds": round(trainer.seconds, 2), **metrics}
    stopped = trainer.stop.signal
    if processes.is_first and stopped:
        progress.say(f"{stopped.name}: saved {folder} at step {trainer.step:,}; the same command goes on from there")
    elif processes.is_first:
        checkpoint.write_json(folder / "summary.json", summary)
        progress.say(f"done: {folder}, {trainer.step:,} steps in {duration(trainer.seconds)}")
    return summary, 128 + stopped if stopped else 0


def claim(config: Config, folder: Path) -> None:
    """Make the run's folder, or check that it belongs to this configuration. Raises RunError showing the difference."""
    file = folder / "config.yaml"
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; out= must name a folder")
    if (step := max(checkpoint.steps(folder), default=0)) > config.training.steps:
        raise RunError(f"{folder} has come to step {step:,}; training.steps={config.training.steps} is less than that")
    if file.exists() and not checkpoint.steps(folder):  # an attempt that never came to a checkpoint binds nobody
        shutil.rmtree(folder / "assets", ignore_errors=True)
        (folder / "choices.json").unlink(missing_ok=True)
    elif file.exists():
        differences = list(compare(strict(read_config(folder).tree), strict(config.tree)))
        if differences:
            shown = "\n".join(f"  {path}: {old!r} there, {new!r} here" for path, old, new in differences)
            raise RunError(f"{folder} is a run of another configuration; choose another out=\n{shown}")
    elif folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty and not a run; choose another out=")
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(".config.yaml")
    partial.write_text(yaml.safe_dump(config.tree, sort_keys=False))
    partial.replace(file)


def strict(tree: dict) -> dict:
    """The part of a configuration that may not change when a run goes on."""
    kept = {key: value for key, value in tree.items() if key not in ("logging", "evaluation", "checkpoints", "out")}
    free = ("steps", "device", "rows_per_micro_batch", "bad_share")
    return kept | {part: {k: v for k, v in tree[part].items() if k not in free} for part in ("training", "data")}


def compare(old, new, path: str = ""):
    """(path, old, new) of every leaf in which two trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from compare(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new


def train_seeds(options: argparse.Namespace) -> int:
    """The same experiment once per seed, in `RUN/seed-N`, then mean and spread of every metric."""
    try:
        seeds = [int(seed) for seed in options.seeds.split(",")]
    except ValueError:
        raise RunError(f"--seeds {options.seeds!r}: give whole numbers with commas between, such as 0,1,2") from None
    base = load_config(options.config, options.overrides).out
    summaries = []
    for seed in seeds:
        own = [*options.overrides, f"training.seed={seed}", f"out={base}/seed-{seed}"]
        summary, status = train(load_config(options.config, own))
        if status:
            return status
        summaries.append(summary)
    told = [name for name in summaries[0] if name != "step" and all(name in each for each in summaries)]
    for name in told if os.environ.get("RANK", "0") == "0" else ():  # under torchrun the first process speaks for all
        values = [summary[name] for summary in summaries]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name}: {statistics.mean(values):.4f} +- {spread:.4f} (seeds {options.seeds}: "
              f"{', '.join(f'{value:.4f}' for value in values)})")  # fmt: skip
    return 0


def generate_command(options: argparse.Namespace) -> None:
    """Stream one text to the terminal, or continue a file of prompts together."""
    sampling = Sampling(
        temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
    )  # fmt: skip
    if options.max_tokens < 1:
        raise RunError(f"--max-tokens is {options.max_tokens}; it must be at least 1")
    run = load_run(options.run, options.checkpoint, options.device)
    settings = {"max_tokens": options.max_tokens, "sampling": sampling, "stop": options.stop, "seed": options.seed,
                "cached": not options.no_cache, "say": lambda text: print(text, file=sys.stderr)}  # fmt: skip
    if options.input:
        for flag, asked in {"--prompts": options.prompts, "--no-cache": options.no_cache}.items():
            if asked:
                raise RunError(f"{flag} is for texts alone, not beside --input")
        given = {"sampling": sampling, "prompt": options.prompt or "", "max_tokens": options.max_tokens}
        samples, (task, _) = given_samples(options.input, run), run.text_task()
        for answer in run.predict(samples, seed=options.seed, stop=options.stop, **given):
            if "error" in answer:
                raise RunError(answer["error"])
            print((options.prompt or "") + answer[task]["text"])
        return
    if options.prompts:
        prompts = [line for line in read_text(Path(options.prompts)).splitlines() if line]
        if not prompts:
            raise RunError(f"{options.prompts} holds no prompt; it should have one a line")
        for prompt, text in zip(prompts, run.generate(prompts, **settings)):
            print(json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False), flush=True)
        return
    begun = False
    for (piece,) in run.stream([options.prompt], **settings):
        print(piece if begun else (options.prompt or "") + piece, end="", flush=True)
        begun = True
    print()


def given_samples(pairs: Sequence[str], run: Run) -> list[dict[str, str]]:
    """Samples from `NAME=VALUE` pairs: several values of one name are several samples; one value goes with all of them.

    A value with `*` in it stands for the files it matches, but for a text. Raises RunError where the numbers of values do not
    agree, and for what the run is to write itself.
    """
    written = [task.target for task in run.tasks.values() if task.writes]
    values: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise RunError(f"--input {pair!r}: write NAME=VALUE, such as image=cat.jpg")
        is_text = hasattr(run.choppers.get(name), "text")
        if name in written and len(written) == len(run.tasks):
            raise RunError(f"--input {name}: this is what the run writes; generate's --prompt says how it begins")
        matched = sorted(glob.glob(value)) if "*" in value and not is_text else []
        values.setdefault(name, []).extend(matched or [value])
    count = max(map(len, values.values()))
    if wrong := [name for name, given in values.items() if len(given) not in (1, count)]:
        raise RunError(
            f"--input {wrong[0]}: {len(values[wrong[0]])} values beside {count} of another input; give 1 or {count}"
        )
    return [{name: given[n % len(given)] for name, given in values.items()} for n in range(count)]


def predict_command(options: argparse.Namespace) -> int:
    """Print the answers to the given inputs, one JSON object a line; 1 where none of them could be read."""
    run = load_run(options.run, options.checkpoint, options.device)
    samples, failed = given_samples(options.input, run), 0
    run = run.searching(**search_of(options))
    for sample, answer in zip(samples, run.predict(samples)):
        print(json.dumps({**sample, **answer}, ensure_ascii=False), flush=True)
        failed += "error" in answer
    return 1 if failed == len(samples) else 0


SEARCHED = ("beams", "length_penalty", "no_repeat")


def search_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line asks of the search for texts, to be put into each task's own."""
    return {name: getattr(options, name) for name in SEARCHED if getattr(options, name) is not None}


def evaluate_command(options: argparse.Namespace) -> None:
    """Print the metrics of a split, append them to the run's `evaluations.jsonl`, perhaps write them as JSON."""
    run = load_run(options.run, options.checkpoint, options.device)
    card = card_named(options.data, options.split) if options.data else None
    if options.json and not Path(options.json).absolute().parent.is_dir():
        raise RunError(f"--json {options.json}: there is no folder {Path(options.json).parent}")
    run = run.searching(**search_of(options))
    result = run.evaluate(options.split, card)
    record = {"data": options.data or run.config.tree["data"]["card"], "checkpoint": options.checkpoint, **result}
    run.record(record)
    for name, value in result.items():
        print(f"{name} {value:.6g}")
    if options.subsets:
        for name, worth in run.worth(options.split, card).items():
            truth = (card or run.config.data.card()).truth(options.split)
            wide_console().print(*tables(name, worth, truth), sep="\n")
            record |= worth.figures(options.split if len(run.tasks) == 1 else f"{options.split}/{name}")
    if options.json:
        checkpoint.write_json(Path(options.json), {"step": run.step, **record})


def card_named(name: str, split: str):
    """A data set by the name of its card, or a user's file as the split that is asked for."""
    if Path(name).is_file():
        return WholeFile(path=name)
    if Path(name).exists():
        raise RunError(f"--data {name!r} is a folder; name a text or JSONL file in it, or a card")
    try:
        found = catalogue_of((Card,)).find(name)[1]
    except LookupError as error:
        raise RunError(f"--data {name!r}: no such file, and {error.args[0]}") from None
    try:
        return found()
    except TypeError:
        raise RunError(f"--data {name!r}: this card has options of its own; name a file, or train with it") from None


def inspect_command(options: argparse.Namespace) -> None:
    """Show what the model sees: on the terminal for a text corpus, and as one HTML page."""
    from .inspection import inspect_text
    from .page import write_page

    config = load_config(options.config, options.overrides)
    if not isinstance(config.data.card(), SampleCard):
        inspect_text(config)
    print(write_page(config, Path(options.html or f"{config.out}.html")))


def compare_command(options: argparse.Namespace) -> None:
    """Print a table of runs and draw their curves."""
    from .compare import comparison_table, draw_curves, read_group

    groups = [read_group(Path(folder)) for folder in options.runs]
    wide_console().print(comparison_table(groups))
    draw_curves(groups, Path(options.picture))
    print(f"curves: {options.picture}")


def wide_console() -> Console:
    """Standard output; as wide as a table wants it where nobody looks at a terminal."""
    return Console(width=None if sys.stdout.isatty() else 240)


def transcribe_command(options: argparse.Namespace) -> int:
    """Print what is said in sound files, and write it in the formats asked for; 1 where a file could not be read."""
    from ..models.transcription import Transcribing
    from .transcribe import write_transcripts

    run = load_run(options.run, options.checkpoint, options.device)
    given = {"temperatures": tuple(options.temperature)} if options.temperature else {}
    how = Transcribing(language=options.language, translate=options.translate, timestamps=not options.no_timestamps,
                       beams=options.beams, follow=not options.independent, **given)  # fmt: skip
    folder = Path(options.output) if options.output else None
    return 1 if write_transcripts(run, options.files, how, options.format, folder) else 0


def import_command(options: argparse.Namespace) -> None:
    """Turn a Hugging Face directory into a run."""
    from .imports import import_directory

    print(import_directory(Path(options.directory), Path(options.run), options.partly))


def schema_command(options: argparse.Namespace) -> None:
    """Print the JSON Schema."""
    print(json.dumps(json_schema(), indent=2))
