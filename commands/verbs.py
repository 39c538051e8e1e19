"""What each command of the command line does."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ..data.processes import Processes, leave
from ..data.samples import SampleDataset
from ..experiment.folder.reading import RunError, read_config, say_aside
from ..experiment.own_data import whole_data
from ..experiment.run import Run, load_run
from ..experiment.settings.config import Config, json_schema, load_config
from ..experiment.train import train
from ..inference.attribution import tables
from ..models.generation.sampling import Sampling
from ..tokenizers.files.printing import as_written, json_line, printable
from ..tokenizers.files.reading import matching, read_text
from ..tokenizers.files.writing import write_json


def train_command(options: argparse.Namespace) -> int:
    """Train, resume, or show what a finished run reached."""
    from ..experiment.sweep import train_several

    config = load_config(options.config, options.overrides)
    if options.dry_run:
        from ..experiment.views.dry_run import dry_run

        dry_run(config)
        return 0
    status = train_several(options, train) if options.seeds or options.sweep else train(config)[1]
    Processes.stop()
    return leave(status)


def generate_command(options: argparse.Namespace) -> None:
    """Stream one text to the terminal, or write several together: behind each line of a file, or from each sample."""
    sampling = sampling_of(options)
    if options.max_tokens < 1:
        raise RunError(f"--max-tokens is {options.max_tokens}; it must be at least 1")
    if options.input and options.prompts:
        raise RunError("--prompts is for texts alone, not beside --input")
    run = loaded(options).searching(**search_of(options))
    (task, _), samples = run.text_task(), given_samples(options.input, run) if options.input else []
    settings = {"max_tokens": options.max_tokens, "stop": options.stop, "seed": options.seed, "sampling": sampling,
                "search": run.tasks[task].search, "cached": not options.no_cache, **({} if samples else {"say": say_aside})}  # fmt: skip
    if options.prompts:
        prompts = [line for line in read_text(options.prompts).splitlines() if line]
        if not prompts:
            raise RunError(f"{options.prompts} holds no prompt; it should have one a line")
        for prompt, text in zip(prompts, run.generate(prompts, **settings)):
            print(json_line({"prompt": prompt, "text": text}), flush=True)
        return
    begun = options.prompt or ""
    if len(samples) > 1:
        for text in run.generate(options.prompt, inputs=samples, **settings):
            print(as_written(begun + text))
        return
    for (piece,) in run.stream([options.prompt], samples, **settings):
        print(as_written(begun + piece), end="", flush=True)
        begun = ""
    print()


def sampling_of(options: argparse.Namespace) -> Sampling | None:
    """How ids are drawn at random; None where a text is searched for. Raises RunError where both are asked for."""
    asked = {name: getattr(options, name) for name in SAMPLED if getattr(options, name) is not None}
    if not (searched := search_of(options)):
        return Sampling(**asked)
    if asked:
        flags = [f"--{next(iter(each)).replace('_', '-')}" for each in (searched, asked)]
        raise RunError(
            f"{flags[0]} searches for the likeliest text, {flags[1]} draws one at random: give one of the two"
        )
    return None


def loaded(options: argparse.Namespace) -> Run:
    """The run that a command names, with the code that its user trusts."""
    return load_run(options.run, options.checkpoint, options.device, options.trust)


def given_samples(pairs: Sequence[str], run: Run, reading: bool = False) -> list[dict[str, str]]:
    """Samples from `NAME=VALUE` pairs: several values of one name are several samples; one value goes with all of them.

    A value with `*` in it stands for the files it matches, but for a text. Raises RunError where the numbers of values do not
    agree, and, but for mere `reading`, for what the run is to write itself.
    """
    written = [task.target for task in run.tasks.values() if task.generates]
    values: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise RunError(f"--input {pair!r}: write NAME=VALUE, such as image=cat.jpg")
        is_text = hasattr(run.choppers.get(name), "text")
        if not reading and name in written and len(written) == len(run.tasks):
            raise RunError(f"--input {name}: this is what the run writes; generate's --prompt says how it begins")
        matched = matching(value) if "*" in value and not is_text else []
        values.setdefault(name, []).extend(matched or [value])
    count = max(map(len, values.values()))
    if wrong := [name for name, given in values.items() if len(given) not in (1, count)]:
        raise RunError(
            f"--input {wrong[0]}: {len(values[wrong[0]])} values beside {count} of another input; give 1 or {count}"
        )
    return [{name: given[n % len(given)] for name, given in values.items()} for n in range(count)]


def predict_command(options: argparse.Namespace) -> int:
    """Print the answers to the given inputs, one JSON object a line; 1 where none of them could be read."""
    run = loaded(options)
    samples, failed = given_samples(options.input, run), 0
    run = run.searching(**search_of(options))
    say_aside(run.name)
    for sample, answer in zip(samples, run.predict(samples)):
        print(json_line({**sample, **answer}), flush=True)
        failed += "error" in answer
    return 1 if failed == len(samples) else 0


def embed_command(options: argparse.Namespace) -> int:
    """Write what a model makes of samples, as vectors; 1 where none of them could be read."""
    from ..experiment.views.embed import split_of, write_embeddings

    run = loaded(options)
    if bool(options.input) == bool(options.data):
        raise RunError("name either samples (--input NAME=VALUE) or a data set (--data), and one of the two")
    if options.data:
        split = split_of(run, options.data, options.split)
    else:
        split = run.given(given_samples(options.input, run, reading=True), asked=False)
    say_aside(run.name)
    output = Path(options.output) if options.output else None
    return int(write_embeddings(run, split, options.pool, output) == len(split))


SAMPLED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
SEARCHED = ("beams", "length_penalty", "no_repeat")


def search_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line asks of the search for texts, to be put into each task's own."""
    return {name: getattr(options, name) for name in SEARCHED if getattr(options, name) is not None}


def evaluate_command(options: argparse.Namespace) -> None:
    """Print the metrics of a split, append them to the run's `evaluations.jsonl`, perhaps write them as JSON."""
    run = loaded(options).searching(**search_of(options))
    dataset = whole_data(options.data, options.split, *run.reads()) if options.data else None
    if options.json and not os.path.isdir(Path(options.json).absolute().parent):
        raise RunError(f"--json {options.json}: there is no folder {Path(options.json).parent}")
    say_aside(run.name)
    result = run.evaluate(options.split, dataset)
    record = {"data": options.data or run.config.tree["data"]["dataset"], **result}
    for name, value in result.items():
        print(printable(f"{name} {value:.6g}"))
    run.record(record)
    if options.subsets:
        for name, worth in run.attribution(options.split, dataset).items():
            truth = (dataset or run.dataset()).truth(options.split)
            wide_console().print(*tables(name, worth, truth), sep="\n")
            record |= worth.figures(options.split if len(run.tasks) == 1 else f"{options.split}/{name}")
    if options.json:
        write_json(Path(options.json), {"step": run.step, "checkpoint": run.which, **record})


def examples_command(options: argparse.Namespace) -> None:
    """Write some samples as files, and print the commands that ask a run about them."""
    from ..experiment.views.examples import write_examples

    config = given_config(options)
    if options.number < 1:
        raise RunError(f"--number is {options.number}; it must be at least 1")
    for command in write_examples(config, options.split, options.number, Path(options.output)):
        print(printable(command))


def given_config(options: argparse.Namespace) -> Config:
    """The configuration that a command names by its YAML file, or by a run's folder."""
    folder = Path(options.config)
    is_run = os.path.isfile(folder / "config.yaml") and not options.overrides
    config = read_config(folder, options.trust) if is_run else load_config(options.config, options.overrides)
    if config.data.dataset is None:
        raise RunError(f"{folder} was imported and has no data of its own: there is nothing to see")
    return config


def inspect_command(options: argparse.Namespace) -> None:
    """Show what the model sees: on the terminal for a text corpus, and as one HTML page."""
    from ..experiment.views.inspection import inspect_text
    from ..experiment.views.page import write_page

    config = given_config(options)
    if not isinstance(config.data.dataset(), SampleDataset):
        inspect_text(config)
    print(printable(str(write_page(config, Path(options.html or f"{config.out}.html")))))


def compare_command(options: argparse.Namespace) -> None:
    """Print a table of runs and draw their curves."""
    from ..experiment.views.compare import comparison_table, draw_curves, read_group

    groups = [read_group(Path(folder)) for folder in options.runs]
    wide_console().print(comparison_table(groups))
    draw_curves(groups, Path(options.picture))
    print(printable(f"curves: {options.picture}"))


def wide_console() -> Console:
    """Standard output; as wide as a table wants it where nobody looks at a terminal."""
    return Console(width=None if sys.stdout.isatty() else 240)


def transcribe_command(options: argparse.Namespace) -> int:
    """Print what is said in sound files, and write it in the formats asked for; 1 where a file could not be read."""
    from ..experiment.views.transcribe import write_transcripts
    from ..inference.transcription import Transcribing

    run = loaded(options)
    given = {"temperatures": tuple(options.temperature)} if options.temperature else {}
    how = Transcribing(language=options.language, translate=options.translate, timestamps=not options.no_timestamps,
                       beams=options.beams, follow=not options.independent, **given)  # fmt: skip
    folder = Path(options.output) if options.output else None
    return 1 if write_transcripts(run, options.files, how, options.format, folder) else 0


def import_command(options: argparse.Namespace) -> None:
    """Turn a Hugging Face directory into a run."""
    from ..experiment.importing.directory import import_directory

    print(printable(import_directory(Path(options.directory), Path(options.run), options.partly)))


def schema_command(options: argparse.Namespace) -> None:
    """Print the JSON Schema."""
    print(json.dumps(json_schema(), indent=2))
