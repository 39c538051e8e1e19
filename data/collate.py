"""Chops samples, packs them into the rows of a batch, and drops inputs. `Inputs` contains the settings of the inputs:
which are predicted, encoded, or dropped."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ..files.reading import DataError
from ..models.batch import Batch, SetPlan
from ..tokenizers.base import Chopper, Chunk, chopped
from ..tokenizers.chopping.packing import ordered_in_time, place
from .sampler import SampleIndex
from .skipped import HasNoRoom

SHARE_WITHOUT_INPUTS = 0.01
"""The share of training samples from which all inputs are dropped, if every input can be dropped. From these samples,
the model learns only the distribution of the answers, which is the baseline of attribution; a small share is enough."""


def dropped_shares(dropout: Mapping[str, float], one_stays: bool = True) -> dict[str, float]:
    """Returns, by input, the probability that the input is dropped from a sample that has all inputs. `dropout`
    contains the rate (0 to below 1) at which each input is drawn to be dropped. With `one_stays`, if all inputs are
    drawn, a random one of them is kept. If one of the rates is 0, the probabilities equal the rates.

    {"image": 0.75, "sound": 0.6} becomes {"image": 0.530, "sound": 0.381}: both inputs are drawn for 45 of 100 samples,
    and one of the two is then kept.
    """
    if not dropout or not all(dropout.values()):
        return dict(dropout)
    put_back = math.prod(dropout.values()) / len(dropout) if one_stays else 0.0
    return {
        name: SHARE_WITHOUT_INPUTS + (1 - SHARE_WITHOUT_INPUTS) * (share - put_back) for name, share in dropout.items()
    }


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The settings of the inputs of a model. With `Inputs(columns={"camera": "image", "text": "text"})`, the input
    `camera` reads the data column `image`."""

    columns: Mapping[str, str]
    """The data column of each input, by input name."""
    targets: Collection[str] = ()
    """Inputs that a task predicts. Predicted inputs are never dropped, even if a sample does not fit into the
    context."""
    encoded: Collection[str] = ()
    """Inputs that the encoder reads. Their tokens form a separate set; the tokens of all other inputs form the main
    set."""
    labels: Collection[str] = ()
    """Data columns that tasks read without a chopper, such as the class of a sample."""
    dropout: Mapping[str, float] = field(default_factory=dict)
    """The rate, from 0 to below 1, at which each input is dropped from a sample in training, by input; 0 for inputs
    that are missing here. If all inputs of a sample would be dropped, a random one of them is kept (modality dropout of
    AV-HuBERT, Shi et al. 2022), except in the share `SHARE_WITHOUT_INPUTS` of the samples. If tasks predict all inputs
    except one, this one can also be dropped: classifier-free guidance needs a model that was also trained without
    it."""
    any_number: bool = False
    """If true, `dropout` is ignored, and the number of inputs that are dropped from a training sample is uniformly
    random. One input is kept, as for `dropout`. The model then learns all subsets of the inputs about equally well.
    Attribution requires this, because it averages over all orders in which inputs can be added (Shapley 1953; Covert et
    al. 2023, arXiv:2206.05282)."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """What happens to a sample with more tokens than the context: `refuse` makes it a bad sample; `drop` drops its last
    inputs until the sample fits."""

    @property
    def optional(self) -> tuple[str, ...]:
        """The inputs that can be dropped from a sample: those that no task predicts."""
        return tuple(name for name in self.columns if name not in self.targets)

    @property
    def one_stays(self) -> bool:
        """Whether one input is kept if all inputs of a sample would be dropped: not if the model has only one input
        that no task predicts, next to predicted ones."""
        return len(self.optional) > 1 or not self.targets

    @property
    def dropped(self) -> dict[str, float]:
        """By input, the probability that the input is dropped from a sample that has all inputs. Inputs with the
        probability 0 are absent."""
        if self.any_number and self.optional:
            share = (len(self.optional) - self.one_stays) / 2 / len(self.optional)
            return dict.fromkeys(self.optional, SHARE_WITHOUT_INPUTS + (1 - SHARE_WITHOUT_INPUTS) * share)
        shares = dropped_shares({name: self.dropout.get(name, 0.0) for name in self.optional}, self.one_stays)
        return {name: share for name, share in shares.items() if share}

    def drop(self, present: Sequence[str], names: Sequence[str], random: np.random.Generator) -> list[str]:
        """Returns the inputs that are dropped from a sample, drawn at random. `present` contains the inputs of the
        sample that can be dropped. One random number is drawn for each input in `names`, even if the input is not
        present; therefore a missing input does not change the random numbers of the other inputs."""
        chances = dict(zip(names, random.random(len(names))))
        if self.any_number and present:
            count = (
                len(present)
                if random.random() < SHARE_WITHOUT_INPUTS
                else int(random.integers(len(present) + 1 - self.one_stays))
            )
            return sorted(present, key=chances.__getitem__)[:count]
        shares = [self.dropout.get(name, 0.0) for name in present]
        dropped = [name for name, share in zip(present, shares) if chances[name] < share]
        if present and all(shares):
            if random.random() < SHARE_WITHOUT_INPUTS:
                return list(present)
            if len(dropped) == len(present) and self.one_stays:
                del dropped[random.integers(len(dropped))]
        return dropped


SEEDS = 2**63
"""The seed of an item (one input of one sample) is an integer from 0 to SEEDS - 1."""

Parts = list[tuple[str, Chunk]]
"""One chopped sample: pairs (input name, chunk), in the order of their tokens."""


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Chops samples of at most `context` tokens each, and packs them into rows with little padding.

    With `too_long: drop`, the items of a sample that does not fit are dropped, the last item first. An item (one input
    of one sample) is dropped as a whole. Predicted inputs are never dropped, and at least one item remains; if the
    sample still does not fit, it is bad. `axes` contains the names of the position axes of the set.
    """

    choppers: Mapping[str, Chopper]
    inputs: Inputs
    context: int
    encoder_context: int = 0
    """The maximum number of tokens of one sample in the encoder; 0 without an encoder."""
    axes: Sequence[str] = ("order",)
    in_time: bool = False
    """Whether the tokens of a sample are sorted by their time in seconds, instead of input after input."""
    core: int = 0
    """The number of tokens of each sample that belong to the core (class and register tokens)."""
    note: Callable[[HasNoRoom], None] = lambda event: print(event.text)
    """Called with the input and a sentence for each item that is dropped because it does not fit into the context."""

    def chop(
        self, item: Mapping[str, Any], key: str, index: SampleIndex, training: bool, only: Collection[str] | None
    ) -> Parts:
        """Returns the chunks of one sample, in the order of `choppers`. `item` contains the decoded inputs by input
        name; `key` identifies the sample in messages. Inputs that are neither in `only` nor predicted are omitted
        (None: no input is omitted), and so are inputs that do not fit into the context. With `training`, inputs are
        augmented and dropped at random; `index` is the seed. Raises DataError if the sample has none of the inputs or
        does not fit, and ValueError if an item cannot be chopped."""
        if not item:
            raise DataError(f"it has none of the inputs ({', '.join(self.choppers)})")
        targets = self.inputs.targets
        present = [name for name in self.choppers if name in item and (only is None or name in {*only, *targets})]
        if not training:
            return self._fitting({name: chopped(name, self.choppers[name], item[name]) for name in present}, key)
        return self._fitting(self._augmented(item, present, index), key)

    def _augmented(self, item: Mapping[str, Any], present: Sequence[str], index: SampleIndex) -> dict[str, Chunk]:
        """Returns the chunks of a training sample: its inputs are augmented, and some are dropped at random."""
        targets = self.inputs.targets
        random = np.random.default_rng(tuple(index))
        names = list(self.choppers)
        seeds = dict(zip(names, random.integers(SEEDS, size=len(names)).tolist()))
        dropped = self.inputs.drop([name for name in present if name not in targets], names, random)
        parts = {}
        for name in present:
            if name not in dropped:
                value = self.choppers[name].augment(item[name], random)
                parts[name] = replace(chopped(name, self.choppers[name], value), seed=seeds[name])
        return parts

    def batch(self, samples: Sequence[Parts], rows: str = "packed", **fields: Any) -> Batch:
        """Returns chopped samples as a batch. `encoded` inputs form the set of the encoder, all other inputs the main
        set. If there are `encoded` inputs, each row of both sets has one sample, in the same order.

        `rows`: `packed` (several samples per row) or `one_each` (one sample per row, with the padding on the left, for
        generation). `fields`: further fields of every SetPlan (`labels`, `keys`, `seeds`).
        """
        one_each = range(len(samples)) if rows == "one_each" or self.inputs.encoded else None
        encoder, encoded = None, self.inputs.encoded
        if encoded:
            parts = [[pair for pair in sample if pair[0] in encoded] for sample in samples]
            samples = [[pair for pair in sample if pair[0] not in encoded] for sample in samples]
            encoder = replace(self._placed(parts, self.encoder_context, rows=one_each), **fields)
        planned = self._placed(samples, self.context, rows=one_each, core=self.core, right=rows == "one_each")
        return Batch(main=replace(planned, **fields), encoder=encoder)

    def _placed(self, samples: Sequence[Parts], context: int, **how: Any) -> SetPlan:
        planned = place(samples, self.choppers, context, self.axes, trim=True, **how)
        return ordered_in_time(planned, self.axes) if self.in_time else planned

    def _fitting(self, parts: dict[str, Chunk], key: str) -> Parts:
        """Returns the items that fit into the contexts of the main set and of the encoder, in their order. Raises
        DataError if the predicted inputs alone are too long, if an item does not fit and `too_long` is `refuse`, if no
        unpredicted input fits, or if the sample has inputs of the encoder and none of these fits."""
        if not self.inputs.encoded and self.core + sum(chunk.count for chunk in parts.values()) <= self.context:
            return list(parts.items())
        return self._shortened(parts, key)

    def _shortened(self, parts: dict[str, Chunk], key: str) -> Parts:
        encoded = {name: chunk for name, chunk in parts.items() if name in self.inputs.encoded}
        others = {name: chunk for name, chunk in parts.items() if name not in self.inputs.encoded}
        kept = self._within(encoded, 0, self.encoder_context, key, "encoder's ")
        kept |= self._within(others, self.core, self.context, key)
        if encoded and not kept.keys() & encoded.keys():
            longest = max(chunk.count for chunk in encoded.values())
            limit = f"the encoder's context of {self.encoder_context}"
            raise DataError(f"none of its encoder inputs fits: {longest} tokens are more than {limit}")
        read = {name: chunk for name, chunk in parts.items() if name not in self.inputs.targets} or parts
        if parts and not kept.keys() & read.keys():
            longest, limit = max(chunk.count for chunk in read.values()), f"the context of {self.context}"
            predicted = sum(chunk.count for chunk in kept.values())
            limit = f"{limit} minus its {predicted} predicted tokens" if kept else limit
            advice = "enlarge model.context, or shorten the samples"
            raise DataError(f"none of its inputs fits: {longest} tokens are more than {limit}; {advice}")
        return [(name, chunk) for name, chunk in parts.items() if name in kept]

    def _within(self, parts: dict[str, Chunk], core: int, context: int, key: str, owner: str = "") -> dict[str, Chunk]:
        """Returns the items that fit together into one context. Items that are not predicted are dropped, the last one
        first. `core` is the number of further tokens of the sample, `owner` the prefix of "context" in messages. Raises
        DataError if the predicted items alone are too long, or if an item is dropped, another one remains, and
        `too_long` is `refuse`."""
        kept, dropped = dict(parts), {}
        total = length = core + sum(chunk.count for chunk in parts.values())
        for name in [name for name in reversed(parts) if name not in self.inputs.targets]:
            if total <= context:
                break
            dropped[name] = kept.pop(name).count
            total -= dropped[name]
        limit = f"the {owner}context of {context}"
        if total > context:
            excess = f"its {total} tokens of {' and '.join(kept)} are more than {limit}"
            raise DataError(f"{excess}: enlarge the context, or shorten the samples")
        if dropped and kept and self.inputs.too_long == "refuse":
            names = " and ".join(reversed(dropped))
            raise DataError(f"it has {length} tokens, more than {limit}; data.too_long: drop would drop its {names}")
        for name, count in dropped.items() if kept.keys() - self.inputs.targets else ():
            notice = f"its {name} ({count} tokens) is dropped (reported once per input)"
            self.note(HasNoRoom(name, f"sample {key!r} has {length} tokens, more than {limit}: {notice}"))
        return kept
