"""CUDA's rules, tested without a GPU: where tensors are, what kernels accept, and where the CPU waits for the GPU; for
every YAML of `configs/`.

Tests that need values need a GPU: see `test_gpu.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from checkout import ROOT, every_yaml
from chopmix.data.base import data_root
from chopmix.data.processes import Processes
from chopmix.experiment.assemble import Experiment, assemble
from chopmix.experiment.settings.config import Config, load_config
from chopmix.experiment.steps import counted
from chopmix.inference.evaluation import measured
from chopmix.inference.trained import TrainedModel
from chopmix.models.attention import kernels as attention
from chopmix.models.attention import plan as choosing
from chopmix.models.attention.graph import Causal, SameSample
from chopmix.models.attention.mask import dense_mask
from chopmix.models.batch import Batch
from chopmix.models.generation.sampling import Sampling, Streams, draw
from chopmix.models.generation.session import Session
from chopmix.models.layers.norms import LayerNorm, RmsNorm
from chopmix.models.layers.relative import Alibi, RelativeBias, Rotary
from chopmix.models.model import Cores, Model
from chopmix.models.transformer import Attention, Dropout
from chopmix.tasks.ctc import OnHost
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tokenizers.chopping.packing import place
from chopmix.tokenizers.encoding.base import CharacterEncoding
from chopmix.tokenizers.text import TextChopper, TextTokenizer
from chopmix.training.objective import autocast
from chopmix.training.progress import Progress
from cores import block_of, core_of
from drawn import graphs, laid_out, packed_tokens, tokens
from fake_cuda import FakeCuda, HostRead, fake_cuda
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

sys.path.append(str(ROOT / "benchmarks"))
from stand_in import on_stand_ins, small
from tiers import only

CONFIGS = every_yaml()
CUDA = torch.device("cuda")


# ----------------------------------------------------------------------------------------------------- stand-in data

QUICK = ("tiny_shakespeare", "books", "mnist", "cifar10")
"""Data sets that are read if they are available; all others are replaced by stand-in data."""


def configured(path: Path, out: Path, *more: str) -> Config:
    """A small version of a configuration, with stand-in data if its data are missing or slow to read."""
    always = ["training.precision=bfloat16", "training.compile=false", f"out={out}"]
    config = load_config(path, [*small(load_config(path)), *always, *more])
    name = config.data.dataset.target.__module__.rpartition(".")[2]
    available = "CHOPMIX_DATA" in os.environ and name in QUICK and (data_root() / name).exists()
    return counted(replace(config, from_run=None) if available else on_stand_ins(config), steps=100)


def build(path: Path, out: Path, *more: str) -> Experiment:
    """The experiment of a configuration on fake CUDA."""
    config = configured(path, out, "data.workers=0", *more)  # workers write to page-locked memory, which needs a driver
    experiment = assemble(config, Processes(0, 1, CUDA), Progress(1))
    experiment.trainer.learner.replica.objective.train()
    return experiment


# ------------------------------------------------------------------------------------------ kernels, as they are called


class Call(NamedTuple):
    """One call of an attention kernel."""

    kernel: str
    types: tuple[torch.dtype, ...]
    grouped: bool
    mask: Tensor | None
    channels: int


@pytest.fixture
def calls(monkeypatch) -> list[Call]:
    """The calls of torch's three kernels. FlexAttention is replaced, because nothing can compile it here."""
    recorded: list[Call] = []
    sdpa, varlen = F.scaled_dot_product_attention, attention._varlen_attention()

    def note(kernel: str, heads: tuple[Tensor, ...], axis: int, mask: Tensor | None = None) -> None:
        assert {t.device.type for t in heads} == {"cuda"}
        grouped = heads[0].shape[axis] != heads[1].shape[axis]
        recorded.append(Call(kernel, tuple(t.dtype for t in heads), grouped, mask, heads[0].shape[-1]))

    def sdpa_noted(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any
    ) -> Tensor:
        note("sdpa", (query, key, value), 1, attn_mask)
        return sdpa(query, key, value, attn_mask=attn_mask, **options)

    def varlen_noted(
        query: Tensor, key: Tensor, value: Tensor, *rest: Any, window_size: tuple, **options: Any
    ) -> Tensor:
        note("varlen", (query, key, value), 1)
        return varlen(query, key, value, *rest, window_size=window_size, **options)

    def flex_noted(query: Tensor, key: Tensor, value: Tensor, *, block_mask: Any, enable_gqa: bool, **_: Any) -> Tensor:
        note("flex", (query, key, value), 1)
        assert block_mask.kv_num_blocks.device.type == "cuda" and enable_gqa == recorded[-1].grouped
        assert block_mask.seq_lengths == (query.shape[2], key.shape[2])
        return query + 0 * (key.sum() + value.sum())

    monkeypatch.setattr(F, "scaled_dot_product_attention", sdpa_noted)
    monkeypatch.setattr(attention, "_varlen_attention", lambda: varlen_noted)
    monkeypatch.setattr(attention, "_flex_attention", lambda compiled: flex_noted)
    return recorded


def check(calls: list[Call], dtype: torch.dtype) -> None:
    """Checks what kernels and their backward passes accept: one type; bfloat16 for `varlen_attn`; certain multiples of
    channels; no fast kernel takes both a mask and grouped heads; a mask is boolean or has the type of the queries."""
    for call in calls:
        assert set(call.types) == {dtype}, call
        assert call.kernel != "varlen" or (dtype == torch.bfloat16 and call.channels % 8 == 0 and not call.grouped), (
            call
        )
        assert call.kernel != "flex" or call.channels >= 16, call
        if call.mask is not None:
            assert not call.grouped and call.mask.dtype in (torch.bool, dtype) and call.mask.device.type == "cuda", call


# -------------------------------------------------------------------------------------------------------- every YAML


def tensors(value: Any, where: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in dataclasses, mappings and tuples, each with its path; except those that are declared to
    stay on the CPU."""
    if isinstance(value, Tensor):
        yield where, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from tensors(each, f"{where}[{key}]")
    elif isinstance(value, tuple):
        for number, each in enumerate(value):
            yield from tensors(each, f"{where}[{number}]")
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors(getattr(value, field.name), f"{where}.{field.name}")
    else:
        assert not hasattr(value, "device") or isinstance(value, OnHost), where


COPIES = {
    "training/mixup.py": "the random numbers of mixup",
    "tokenizers/sensor.py": "the list of its channels",
    "tasks/regression.py": "the std of its targets, while it measures",
    "tasks/reconstruction.py": "the levels of its codes, while it measures",
    "models/generation/beam_search.py": "the scores of the beams",
    "models/generation/refine.py": "which item each token of a draft belongs to",
    "models/generation/constraints.py": "which ids are allowed",
}
"""Files that copy something to the GPU during a step or an evaluation and wait for the copy, and what they copy."""

READS = {
    "inference/tally.py": "the sums of a whole split",
    "tasks/classification.py": "which samples have a label, once a batch",
    "tasks/ctc.py": "the scores of a batch, to decode texts",
    "models/generation/sampling.py": "every generated token",
    "models/generation/beam_search.py": "every generated token",
    "models/generation/fast_decoder.py": "whether the source has padding, once a text",
    "models/cache.py": "which rows continue, once a text",
    "tasks/reconstruction.py": "the codes of a batch, which are counted",
    "models/generation/refine.py": "every draft, and what it costs from left to right",
    "inference/items.py": "what a batch costs from left to right",
}
"""Files that wait for the GPU in an evaluation, and for what."""


def files(places: list[str]) -> set[str]:
    """The files of places, which are a file, a line and a function."""
    return {place.partition(":")[0] for place in places}


def check_step(experiment: Experiment, mode: FakeCuda, monkeypatch) -> None:
    """One update, with checks of the inputs and outputs of the objective. A backward pass needs a device, so empty
    gradients replace it."""

    def backward(loss: Tensor) -> None:
        assert loss.shape == () and loss.dtype == torch.float32 and loss.device.type == "cuda" and loss.requires_grad
        for parameter in experiment.model.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None

    def forward(batch: Any, gradients: Any) -> Any:
        for where, tensor in tensors(batch):
            assert tensor.device.type == "cuda", where
        before = len(mode.copies)
        terms = learner.replica.objective(batch, gradients)
        assert files(mode.copies[before:]) <= {*COPIES}, "the forward pass copies to the GPU"
        assert terms and all(total.device.type == "cuda" and total.shape == () for total in terms.values())
        return terms

    learner = experiment.trainer.learner
    monkeypatch.setattr(Tensor, "backward", backward)
    learner.replica.forward = forward
    mode.blocking.clear()
    assert experiment.trainer.update().device.type == "cuda"
    assert files(mode.blocking) <= {*COPIES}, "a step waits for a copy"


class Short(Session):
    """A session that generates a few tokens."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options | {"most": 3})


def check_evaluation(experiment: Experiment, mode: FakeCuda, monkeypatch) -> None:
    """A complete evaluation with generated texts; all values that are read from the GPU are zero."""
    split = experiment.data.splits["val"]
    every = split.all()[:5]
    monkeypatch.setattr(type(split), "all", lambda self: every)
    for file in ("generate", "items"):
        monkeypatch.setattr(f"chopmix.inference.{file}.Session", Short)
    mode.blocking.clear()
    mode.may_read = True
    with autocast(CUDA, "bfloat16"):
        metrics = measured(
            TrainedModel(model=experiment.model, tasks=experiment.data.tasks), split, rows=3, generated=2
        ).metrics
    assert "val/loss" in metrics
    assert files(mode.reads) <= {*READS} and files(mode.blocking) <= {*COPIES}


FEW = ("speech/digit_strings_ctc", "diffusion/digits", "decision/cartpole")
"""The configurations of the default tier; the others are tested in the tier `system`."""
NAMES = [str(path.relative_to(ROOT / "configs").with_suffix("")) for path in CONFIGS]


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=n, marks=() if n in FEW else pytest.mark.system) for p, n in zip(CONFIGS, NAMES)]
)
def test_every_configuration_on_cuda(path, tmp_path, monkeypatch, calls):
    """A step, which must not wait for the GPU, then an evaluation: all tensors are on the GPU, and all kernels accept
    their inputs."""
    if path.stem == "lstm":
        pytest.skip("torch cannot pack sequences of tensors without values")
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    with fake_cuda(half=False) as mode:
        experiment = build(path, tmp_path / "run")
        assert {p.device.type for p in experiment.model.parameters()} == {"cuda"}
        check_step(experiment, mode, monkeypatch)
        check(calls, torch.bfloat16)
        has_attention = any(isinstance(layer, Attention) for layer in experiment.model.modules())
        assert bool(calls) == has_attention
        calls.clear()
        check_evaluation(experiment, mode, monkeypatch)
        check(calls, torch.bfloat16)
        assert bool(calls) == has_attention


def test_an_evaluation_is_planned_for_its_precision(tmp_path, monkeypatch, calls):
    """Packed texts are read by `varlen_attn`; if planned for the type of the weights, they would use FlexAttention."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    with fake_cuda(half=False) as mode:
        experiment = build(ROOT / "configs" / "bert" / "passages.yaml", tmp_path / "run")
        check_evaluation(experiment, mode, monkeypatch)
    assert {call.kernel for call in calls} == {"varlen"}


def test_all_configurations_are_tested():
    assert len(CONFIGS) >= 28


# -------------------------------------------------------------------------------------------- every kind of attention

PACKED, PADDED, ONE = (
    [[1, 1, 1, 2, 2, 2], [3, 3, 4, 4, 4, 4]],
    [[1, 1, 1, 1, 0, 0], [2, 2, 3, 0, 0, 0]],
    [[1] * 6, [2] * 6],
)
NORMED = block_of(query_key_norm=RmsNorm)
GROUPED = block_of(key_value_heads=2)
BOTH = block_of(key_value_heads=2, query_key_norm=LayerNorm)
WAYS = {
    "plain": ("sdpa", ONE, {"block": BOTH, "position": Rotary}),
    "packed": ("varlen", PACKED, {"block": BOTH, "position": Rotary}),
    "padded": ("varlen", PADDED, {"block": NORMED, "attention": "same_sample"}),
    "a graph": (
        "flex",
        PACKED,
        {"block": BOTH, "attention": "same_sample & (causal | from(image))", "position": Rotary},
    ),
    "a window": ("flex", ONE, {"block": NORMED, "attention": "causal & window(3)"}),
    "T5's bias": (
        "sdpa",
        PACKED,
        {"block": block_of(key_value_heads=2, query_key_norm=LayerNorm, scaled=False), "position": RelativeBias},
    ),
    "ALiBi": ("sdpa", PADDED, {"block": GROUPED, "position": Alibi}),
    "dropout, one sample a row": ("sdpa", ONE, {"block": BOTH, "dropout": Dropout(attention=0.1)}),
    "dropout, packed": ("sdpa", PACKED, {"block": BOTH, "dropout": Dropout(attention=0.1)}),
    "narrow heads": ("varlen", PACKED, {"heads": 8, "width": 40}),
    "narrow heads and a graph": (
        "flex",
        PACKED,
        {"heads": 8, "width": 40, "attention": "same_sample & (causal | from(image))"},
    ),
}


@pytest.mark.parametrize("half", [True, False], ids=["halves", "float32"])
@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_attention_gives_its_kernel_what_it_accepts(calls, way, half):
    kernel, samples, options = WAYS[way]
    rows = laid_out(samples, [[2, 1, 1, 2, 1, 1]] * 2)
    with fake_cuda(half) as mode:
        core = core_of(["text", "image"], ("order", "row", "column"), **{"width": 32, "depth": 2, "heads": 4} | options)
        core = core.to("cuda")
        kind = torch.bfloat16 if half else torch.float32
        layouts = core.plan(rows, dtype=kind, device=CUDA)
        x = torch.randn(2, 6, core.width, device="cuda")
        tokens, before = rows.to("cuda"), len(mode.copies)
        output = core(x, tokens, layouts)
        assert output.shape == x.shape and output.device.type == "cuda" and len(mode.copies) == before
    expected = "flex" if kernel == "varlen" and not half else kernel
    assert [call.kernel for call in calls] == [expected] * 2
    check(calls, kind)


@pytest.mark.parametrize(
    "keys", [[[1, 1, 2], [3, 4, 4]], [[2, 2, 2], [3, 4, 4]]], ids=["all read", "one reads nothing"]
)
def test_attention_to_another_set(calls, keys):
    queries, keys = laid_out(PACKED), laid_out(keys)
    with fake_cuda():
        core = core_of(["text"], ("order", "row", "column"), True, width=32, depth=1, heads=4, block=BOTH).to("cuda")
        layouts = core.plan(queries, dtype=torch.bfloat16, device=CUDA)
        cross = core.plan_cross(queries, keys, torch.bfloat16, CUDA)
        x, source = (torch.randn(2, n, 32, device="cuda") for n in (6, 3))
        core(x, queries.to("cuda"), layouts, source=source, source_layout=cross)
    assert [call.kernel for call in calls] == ["varlen", "sdpa"]
    check(calls, torch.bfloat16)


@given(
    st.one_of(st.sampled_from([SameSample(), Causal() & SameSample()]), graphs()),
    st.one_of(packed_tokens(), tokens()),
    st.data(),
)
def test_a_mask_computed_on_the_device_is_the_mask_of_the_graph(graph, rows, data):
    """Also for the last queries alone, as with a cache; there may be one row for all if all are equal."""
    start = data.draw(st.integers(0, rows.shape[1] - 1))
    last = rows.select(slice(None), slice(start, None))
    for queries in rows, last:
        expected = dense_mask(graph, queries, rows)
        mask = choosing._mask_on_device(graph, queries, rows, torch.device("cpu"))
        assert torch.equal(mask.expand(expected.shape), expected)


def test_equal_rows_have_one_mask():
    for samples, rows in ((ONE, 1), ([[1, 1, 2], [3, 3, 4]], 1), ([[1, 1, 2], [3, 4, 4]], 2), ([[1, 0], [0, 2]], 2)):
        each = laid_out(samples)
        assert len(choosing._mask_on_device(SameSample(), each, each, torch.device("cpu"))) == rows
    alike, others = laid_out([[1, 2], [3, 4]]), laid_out([[2], [3]])  # each has its query at another place of its row
    assert choosing._mask_on_device(SameSample(), others, alike, torch.device("cpu")).tolist() == [
        [[False, True]],
        [[True, False]],
    ]
    assert not len(
        choosing._mask_on_device(
            SameSample(), laid_out([[1]]).select(slice(0, 0)), laid_out([[1]]).select(slice(0, 0)), torch.device("cpu")
        )
    )


# ---------------------------------------------------------------------------------------------------- generating texts


def writer(**options: Any) -> Model:
    """A small language model of eight letters."""
    chopper = TextChopper(vocabulary=CharacterEncoding("abcdefgh"))
    tokenizers = {"text": TextTokenizer(chopper, 32, 8)}
    core = core_of(["text"], **{"width": 32, "depth": 2, "heads": 4, "block": BOTH} | options)
    head = LanguageModeling(target="text").head(tokenizers, 32)
    return Model(tokenizers, Cores(core), {"lm": head}, context=8).eval()


@pytest.mark.parametrize("half", [True, pytest.param(False, marks=pytest.mark.system)], ids=["halves", "float32"])
@pytest.mark.parametrize(
    "rows", [pytest.param([[8, 1]], marks=pytest.mark.system), [[8], [8, 1, 2]]], ids=["one", "ragged"]
)
@pytest.mark.parametrize(
    "options",
    only(1, [{"position": Rotary}, {"position": RelativeBias}, {"attention": "causal & window(3)"}]),
    ids=["rotary", "T5", "a window"],
)
def test_generation_waits_once_per_token(calls, options, rows, half):
    """Also after a full window starts again. Earlier ids are on the CPU, random numbers on either device."""
    sampling = Sampling(top_k=3, top_p=0.9, min_p=0.01, repetition_penalty=1.2)
    with fake_cuda(half, reads=True) as mode:
        model = writer(**options).to("cuda")
        session = Session.of_texts(model, rows, input="text", task="lm", vocabulary=9)
        mode.blocking.clear()
        ids = list(draw(session, 10, sampling))
        assert len(mode.reads) == 10 and not mode.blocking
        assert all(each.device.type == "cpu" and len(each) == len(rows) for each in ids)
        session.append(ids[-1])
        list(draw(session, 1, sampling, Streams.of(len(session.ids), 0)))
        kind = torch.bfloat16 if half else torch.float32
        assert session.cache.layers[0].key.dtype == kind
    check(calls, kind)


def test_an_answer_is_planned_for_its_precision(calls):
    """In bfloat16 prompts are read by `varlen_attn`; if planned for the type of the weights, they would use
    FlexAttention, which is compiled first. The cache contains bfloat16."""
    encoding = CharacterEncoding("abcdefgh")
    choppers = {"text": TextChopper(vocabulary=encoding)}
    planned = place(
        [[("text", choppers["text"].chop(text))] for text in ("abc", "ab")],
        choppers,
        8,
        rows=[0, 1],
        trim=True,
        right=True,
    )
    with fake_cuda(reads=True), torch.inference_mode():
        session = Session(
            writer(attention="causal & same_sample").to("cuda"),
            Batch(main=planned),
            input="text",
            task="lm",
            vocabulary=9,
        )
        session.scores()
        assert session.dtype == session.cache.layers[0].key.dtype == torch.bfloat16
        assert {call.kernel for call in calls} == {"varlen"}
        session.append(torch.tensor([1, 2]))
        session.scores()
    check(calls, torch.bfloat16)


def test_fake_cuda_reports_where_the_cpu_waits():
    """`fake_cuda` itself: values, sizes and choices that depend on the GPU, and copies."""
    with fake_cuda() as mode:
        on_gpu = torch.arange(4, device="cuda")
        for read in (
            on_gpu.tolist,
            on_gpu.cpu,
            on_gpu.sum().item,
            on_gpu.nonzero,
            lambda: bool((on_gpu > 1).any()),
            lambda: on_gpu[on_gpu > 1],
            lambda: torch.bincount(on_gpu),
            lambda: torch.zeros(4).copy_(on_gpu),
        ):
            with pytest.raises(HostRead, match=r"waits for the GPU at tests/training/test_cuda_rules.py:\d+ "):
                read()
        with pytest.raises(RuntimeError, match="at least two devices"):
            on_gpu + torch.arange(4)
        torch.arange(4).to("cuda", non_blocking=True)
        assert len(mode.copies) == 1 and not mode.blocking
        torch.tensor(-1.0, device="cuda")
        assert len(mode.copies) == 2 and len(mode.blocking) == 1
        assert torch.arange(3).tolist() == [0, 1, 2]  # tensors on the CPU have values
