"""Generated samples at every evaluation: a text, and a page of pictures, sounds or scores."""

from __future__ import annotations

from ..evaluator import Evaluator, Result
from ..generate import Generating, joined, stream_prompts
from ..items import generate_items, generate_unprompted
from ..pages import Samples, draws, generated_rows, samples_with


class GeneratedSamples(Evaluator):
    """Generates texts of at most `tokens` tokens. For a corpus, one text continues `prompt`. For a data set of samples,
    up to three texts are printed, each on one line with the true text: `'7+5=12' ('7+5=12' is true)`. Items of other
    modalities are shown on a page. Nothing is generated if no task generates items, or if `tokens` is 0."""

    def __init__(self, *, tokens: int = 120, prompt: str = ""):
        self.tokens, self.prompt = tokens, prompt

    def check(self, trained, say):
        """Raises ValueError if there is a prompt and a tokenizer cannot encode it, or if there is a prompt and no task
        generates a text."""
        if self.prompt:
            self.check_prompt(trained)

    def check_prompt(self, trained) -> None:
        """Raises ValueError if no task can continue the prompt."""
        generating = [task for task in trained.tasks.values() if task.needs.generates]
        if generating and not any(trained.choppers[task.target].kind == "text" for task in generating):
            raise ValueError(f"evaluation.prompt: {generating[0].target!r} is not a text; prompts are only for texts")
        for task in generating:
            if trained.choppers[task.target].kind == "text":
                try:
                    trained.choppers[task.target].vocabulary.encode(self.prompt)
                except ValueError as error:
                    raise ValueError(f"evaluation.prompt: {error}") from None

    def run(self, trained, say):
        generating = [(name, task) for name, task in trained.tasks.items() if task.needs.makes_items]
        if not generating or not self.tokens or not trained.processes.is_first:
            return Result()
        split, texts = trained.open("val"), [(name, task) for name, task in generating if not draws(task)]
        rows = []
        if split.answerable:
            rows = generated_rows(trained, split, seed=trained.step, most=self.tokens)
        return Result(samples=Samples(self.text(trained, split, *texts[0]) if texts else "", rows))

    def text(self, trained, split, name, task) -> str:
        """Returns the texts that a task generates, joined by newlines. Returns an empty text if the split has no sample
        for which the task can generate, or if the task needs an encoder and the split is a corpus."""
        if split.answerable:
            return self.texts(trained, split, name, task)
        if task.needs.encoder:
            return ""
        if task.needs.refines:
            how = Generating(max_tokens=min(self.tokens, trained.model.context), seed=trained.step)
            return task.restore(generate_unprompted(trained, name, 1, how)[0])
        how = Generating.of({"max_tokens": self.tokens, "temperature": 0.8, "top_k": 200, "seed": trained.step})
        pieces = stream_prompts(trained, name, [self.prompt or None], how, lambda line: None)
        return self.prompt + joined(pieces, 1)[0]

    def texts(self, trained, split, name, task) -> str:
        """Returns up to three texts, each on a line with the true text."""
        how = Generating(max_tokens=None if task.needs.refines else self.tokens)
        indices = samples_with(split, task, 3)
        items = generate_items(trained, name, split, indices, how) if indices else {}
        true = {number: split.item(number)[0].get(task.target, "") for number in items}
        return "\n".join(f"{task.restore(ids)!r} ({true[number]!r} is true)" for number, ids in items.items())
