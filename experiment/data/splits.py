"""The splits of a configuration's data: samples chopped and packed into rows, or a corpus cut into windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...data.base import Dataset
from ...data.corpus.prepare import prepare, prepared_folder
from ...data.corpus.split import StreamSplit
from ...data.split import Split
from ...tasks.base import Task
from ...tokenizers.base import Chopper
from ...tokenizers.files.reading import DataError
from ..settings.config import Config
from .samples import open_samples


def open_split(
    config: Config, dataset: Dataset, split: str, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task], *,
    progress: bool = True, say: Callable[[str], None] = print,
) -> Split:  # fmt: skip
    """One split: of samples (`say` gets a line for each bad one), or of a text corpus, tokenized once into the cache
    folder and cut into windows of the longest number of tokens that a task reads, of which `tokens_per_step` makes
    `tokens_per_step // window` rows. Raises DataError for data that cannot be read, and for a text corpus where the
    configuration has any input besides one text."""
    if dataset.holds_samples:
        return open_samples(config, dataset, split, choppers, tasks, say)
    read = {name: chopper for name, chopper in choppers.items() if name not in config.wiring.made}
    if len(read) != 1 or next(iter(read.values())).vocabulary is None:
        raise DataError(
            f"data set {dataset.name!r} is a text corpus: it feeds one input of text, not {', '.join(read)}"
        )
    ((name, chopper),) = read.items()
    if chopper.axes:
        raise DataError(
            f"data set {dataset.name!r} is a text corpus, whose windows would cut what stands on the axis "
            f"{chopper.axes[0]!r} of input {name!r}: it feeds `use: text`"
        )
    file = prepare(dataset, split, chopper.vocabulary, prepared_folder(dataset, chopper.vocabulary), progress=progress)
    encoder, context = config.model.options["encoder"], config.model.options["context"]
    window = max(task.needs.window(context, encoder.context if encoder else 0) for task in tasks.values())
    return StreamSplit(
        file=file, name=split, context=window, input=name, separate=config.data.documents == "separate", tasks=tasks,
        rows=config.training.samples_per_step or config.training.tokens_per_step // window,
    )  # fmt: skip
