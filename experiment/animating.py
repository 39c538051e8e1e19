"""`chopmix inspect RUN --animate FILE.svg`: the sample of the picture, and the text that is generated for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..data.split import SampleSplit
from ..files.writing import write_text
from ..inference.animation import PROMPT, animated
from ..inference.tracing import short_text
from ..tasks.language_modeling import LanguageModeling
from .inspection import explorer_of
from .run_folder import RunError
from .shown import Choice, Shown, predictions, trained

CONTINUED = 24
"""The number of tokens with which a text is continued."""


def write_animation(shown: Shown, file: Path, choice: Choice = Choice()) -> str:
    """Write an animated picture of the sample (`inference/animation.py`). A text that the sample of the user does not
    have is generated first. A model of one text continues the text of the user, or the first tokens of the window.
    Returns a sentence about the file. Raises RunError if there is nothing to predict, OSError if the file cannot be
    written."""
    name = choice.task or next(iter(shown.trace.batch.targets))
    task, run, trace, prompt = shown.tasks[name], shown.run, shown.trace, PROMPT
    answers = predictions(run, shown.split, shown.index) if isinstance(shown.split, SampleSplit) else {}
    answer = short_text(answers[name]) if name in answers else trace.text_of(name, trace.outputs[name])
    others = {each for planned in trace.batch.sets.values() for each in planned.chunks} - {task.target}
    if isinstance(task, LanguageModeling) and not others and shown.choppers[task.target].kind == "text":
        text = (choice.inputs or shown.inputs).get(task.target)
        if text is None:
            vocabulary = shown.choppers[task.target].vocabulary
            text = vocabulary.decode(trace.batch.main.chunks[task.target].values.flatten()[:PROMPT].tolist())
        answer = run.generate(text, max_tokens=CONTINUED, temperature=0)
        prompt = shown.choppers[task.target].count(text)
        shown = trained(run, replace(choice, inputs={task.target: text + answer}))
    if not answer:
        raise RunError(f"the model predicts nothing for {task.target!r}: --animate has nothing to show")
    picture = animated(explorer_of(shown), shown.trace, name, answer, prompt)
    write_text(file, picture)
    return f"{file}: {len(picture.encode()) / 1000:,.0f} kB"
