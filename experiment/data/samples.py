"""Splits of samples, chopped and packed as a configuration says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ...data.samples.collate import Collator
from ...data.samples.dataset import SampleDataset, Samples
from ...data.samples.inputs import Inputs
from ...data.samples.split import SampleSplit, sample_split
from ...tasks.base import Task
from ...tokenizers.base import Chopper
from ...tokenizers.files.reading import DataError
from ..settings.config import Config
from .columns import check_columns


def open_samples(
    config: Config, dataset: SampleDataset, split: str, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task],
    say: Callable[[str], None],
) -> SampleSplit:  # fmt: skip
    """One split of a data set. Samples known to be damaged are noted as bad, and outside the training split also those
    whose value in a task's column the task refuses. Raises DataError for a column that the data set lacks, and for more
    bad samples than `data.bad_share` allows."""
    check_columns(config, dataset)
    samples, dropout = dataset.opened(split), config.training.input_dropout
    each = dropout if isinstance(dropout, dict | str) else dict.fromkeys(config.inputs, dropout)
    labels = dict.fromkeys(name for task in tasks.values() for name in (*task.needs.columns, *task.needs.compared))
    opened = sample_split(
        samples, split, collator_of(config, choppers, config.wiring.columns, labels, each), tasks=tasks, say=say,
        rows=config.training.samples_per_step, budget=config.training.tokens_per_step, bad_share=config.data.bad_share,
    )  # fmt: skip
    for number, why in samples.damaged():
        opened.unread.bad.note(number, DataError(why), training=split == "train")
    for task in tasks.values() if split != "train" else ():  # training ones are checked by `fit` and when read
        for column, check in task.needs.columns.items():
            for number, value in samples.numbered(column):
                try:
                    check(value)
                except DataError as error:
                    opened.unread.bad.note(number, error)
    return opened


def read_samples(
    config: Config, samples: Samples, name: str, choppers: Mapping[str, Chopper], say: Callable[[str], None],
    columns: Mapping[str, str] | None = None, labels: Sequence[str] = (),
) -> SampleSplit:  # fmt: skip
    """Samples as a split without tasks, for reading alone. `columns` maps each input to its column (None: as the
    configuration has it), `labels` are the columns handed on undecoded; bad samples are reported through `say` and left
    out, however many."""
    collator = collator_of(config, choppers, columns or config.wiring.columns, labels, {})
    return sample_split(samples, name, collator, bad_share=1.0, say=say)


def collator_of(
    config: Config, choppers: Mapping[str, Chopper], columns: Mapping[str, str], labels: Iterable[str],
    dropout: Mapping[str, float] | str,
) -> Collator:  # fmt: skip
    """The collator that chops this configuration's samples and packs them into rows of `model.context` slots. `columns`
    maps each input to its column, `labels` are the columns handed on undecoded, `dropout` says how often each input is
    withheld in training, or `any_number`."""
    encoder, every = config.model.options["encoder"], config.wiring.needs.values()
    inputs = Inputs(
        columns=columns, labels=tuple(labels), encoded=config.wiring.encoded, too_long=config.data.too_long,
        targets={name for each in every if not each.refines for name in (*each.inputs, *each.judged_at)},
        dropout={} if isinstance(dropout, str) else dropout, any_number=dropout == "any_number",
    )  # fmt: skip
    return Collator(
        choppers=choppers, inputs=inputs, context=config.model.options["context"], axes=config.wiring.axes,
        encoder_context=encoder.context if encoder else 0, core=config.model.options["core_tokens"],
        in_time=config.data.order == "seconds",
    )  # fmt: skip
