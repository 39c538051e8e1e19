"""`chopmix inspect RUN --animate FILE.svg`: the sample of the picture, and the text that is generated for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..files.errors import RunError
from ..files.writing import write_text
from ..inference.animation import PROMPT, animated
from ..inference.shown_answers import short_text
from ..tokenizers.base import Chopper
from .inspection import explorer_of
from .shown_sample import Choice, Shown, predictions, trained

CONTINUED = 24
"""The number of tokens with which a text is continued."""


def write_animation(shown: Shown, file: Path, choice: Choice = Choice()) -> str:
    """Write an animated picture of the sample (`inference/animation.py`). A text that the sample of the user does not
    have is generated first. A model of one text continues the text of the user, or the first tokens of the window.
    Returns a sentence about the file. Raises RunError for blocks without attention, if there is nothing to predict or
    no room for it, OSError if the file cannot be written."""
    name = choice.task or next(iter(shown.trace.batch.targets))
    task, run, trace, prompt = shown.tasks[name], shown.run, shown.trace, PROMPT
    answers = predictions(run, shown.split, shown.index) if shown.split.answerable else {}
    answer = short_text(answers[name]) if name in answers else trace.text_of(name, trace.outputs[name])
    others = {each for planned in trace.batch.sets.values() for each in planned.chunks} - {task.target}
    if task.needs.generates and not others and shown.choppers[task.target].kind == "text":
        text, context = (choice.inputs or shown.inputs).get(task.target), run.model.context
        chopper = shown.choppers[task.target]
        if text is None:
            first = trace.batch.main.chunks[task.target].values.flatten()[:PROMPT].tolist()
            text = shortened(chopper.vocabulary.decode(first), chopper, min(PROMPT, context // 2))
        prompt = chopper.count(text)
        if prompt >= context:
            raise RunError(f"{task.target}: {prompt} tokens leave no room in the context of {context} for an answer")
        continued = text + run.generate(text, max_tokens=CONTINUED, temperature=0)
        answer = shortened(continued, chopper, context).removeprefix(text)
        shown = trained(run, replace(choice, inputs={task.target: text + answer}))
    if not any(map(len, trace.main.cross if "encoder" in trace.cores else trace.main.attention)):
        raise RunError("--animate draws attention, and the blocks of this run have none")
    if not answer:
        raise RunError(f"the model predicts nothing for {task.target!r}: --animate has nothing to show")
    picture = animated(explorer_of(shown), shown.trace, name, answer, prompt)
    write_text(file, picture)
    return f"{file}: {len(picture.encode()) / 1000:,.0f} kB"


def shortened(text: str, chopper: Chopper, most: int) -> str:
    """Returns the beginning of a text that has at most `most` tokens. A byte that is not UTF-8 becomes three."""
    while chopper.count(text) > most:
        text = text[:-1]
    return text
