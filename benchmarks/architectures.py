"""Compares imported architectures with their reference implementations, both with the same random weights.

    python benchmarks/architectures.py            # then run benchmarks/readme_tables.py --write

The difference is the largest absolute difference of the outputs, divided by the largest output, in float32. The models
are tiny, with the proportions of the published ones. The tests (tests/experiment/interchange/test_import_*.py) do the
same for grids of options and also compare generated texts.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.experiment.run import Run, load_run
from chopmix.models.batch import Batch, Chunks, SetPlan, Targets
from chopmix.models.tokens import plain_tokens
from chopmix.projects.whisper.transcribing import transcriber_of
from results import write_results
from safetensors.torch import save_file
from torch import Tensor, nn

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

SHAPE = {
    "vocab_size": 500,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 66,
}
T5 = {
    "vocab_size": 500,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 3,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
AST = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128, "max_length": 96,
       "num_mel_bins": 48, "num_labels": 7}  # fmt: skip
WHISPER = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
           "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")  # fmt: skip
Outputs = tuple[Tensor, Tensor]


def shaken(model: nn.Module) -> nn.Module:
    """Returns the model with noise added to every parameter, so that no bias or gain has its initial value."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "encoder.embed_positions" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def ids(rows: int = 4, length: int = 64) -> Tensor:
    """Returns random ids (rows, length) without special ids."""
    return torch.randint(5, 499, (rows, length))


def scores(run: Run, values: Tensor, task: str) -> Tensor:
    """Returns our logits (b, n, v) for rows of ids (b, n)."""
    rows, length = values.shape
    chunks = {next(iter(run.choppers)): Chunks(values=values, index=torch.arange(length))}
    batch = Batch(main=SetPlan(tokens=plain_tokens(rows, length), chunks=chunks),
                  targets={task: Targets(values=values.flatten())})  # fmt: skip
    return run.model(run.model.plan(batch))[task].view(rows, length, -1)


def answers(run: Run, samples: list[dict], task: str) -> Tensor:
    """Returns our outputs for samples, in their order."""
    split = replace(run.as_split(samples), tasks=run.tasks)
    return run.model(run.model.plan(split.batch(split.all())))[task]


def language_model(config: transformers.PretrainedConfig, kind: type, task: str) -> Callable[[Path], Outputs]:
    """Returns a function that compares a text model of transformers with its import."""

    def compare(folder: Path) -> Outputs:
        theirs, values = shaken(kind(config)), ids()
        run = saved(theirs, folder)
        return scores(run, values, task), theirs(values).logits

    return compare


def saved(theirs: nn.Module, folder: Path) -> Run:
    """Saves a model of transformers, imports the directory and returns the run."""
    theirs.save_pretrained(folder / "theirs")
    import_directory(folder / "theirs", folder / "run")
    return load_run(folder / "run", device="cpu")


def t5(version: str) -> Callable[[Path], Outputs]:
    """T5 1.0, or 1.1, whose head is not tied to the embedding table."""

    def compare(folder: Path) -> Outputs:
        changes = {} if version == "1.0" else {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
        theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5 | changes))
        if version == "1.1":
            theirs.lm_head.weight = nn.Parameter(torch.randn(500, 64))
            theirs.config.tie_word_embeddings = False
        run, values, target = saved(shaken(theirs), folder), ids(3, 40), ids(3, 20)
        samples = [{"source": numbers(row), "target": numbers(answer)} for row, answer in zip(values, target)]
        expected = theirs(
            torch.cat([values, torch.ones(3, 1, dtype=torch.long)], 1),
            decoder_input_ids=torch.cat([torch.zeros(3, 1, dtype=torch.long), target], 1),
        ).logits
        return answers(run, samples, "answer").view(3, 21, -1), expected

    return compare


def numbers(row: Tensor) -> str:
    """Formats ids for the encoding `numbers`: `<5><17>`."""
    return "".join(f"<{id}>" for id in row.tolist())


def whisper(folder: Path) -> Outputs:
    """Whisper on two seconds of sound, given as a spectrogram."""
    coder = Tokenizer(
        models.BPE({letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.add_special_tokens([AddedToken(name, special=True) for name in WHISPER])
    config = transformers.WhisperConfig(
        vocab_size=coder.get_vocab_size() + 101,
        d_model=64,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_source_positions=100,
        max_target_positions=40,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    theirs = shaken(transformers.WhisperForConditionalGeneration(config))
    (folder / "theirs").mkdir()
    coder.save(str(folder / "theirs" / "tokenizer.json"))
    transcriber, chopper = transcriber_of(run := saved(theirs, folder))
    window = chopper.chop(torch.randn(32_000) * 0.1).values[0]
    begin = [257, *torch.randint(5, 250, (20,)).tolist()]
    states = run.model.read(run.model.plan(transcriber.plan(window, begin)))
    expected = theirs(window[None], decoder_input_ids=torch.tensor([begin])).logits[0]
    return run.model.heads["text"](states.main[0]), expected


def vit(name: str, **options) -> Callable[[Path], Outputs]:
    """Returns a function that compares a Vision Transformer of timm with its import."""

    def compare(folder: Path) -> Outputs:
        shape = {
            "img_size": 32,
            "patch_size": 8,
            "embed_dim": 64,
            "depth": 3,
            "num_heads": 4,
            "num_classes": 10,
        } | options
        theirs = shaken(timm.create_model(name, pretrained=False, **shape))
        source = folder / "theirs"
        source.mkdir()
        save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, source / "model.safetensors")
        pool = {"global_pool": shape.pop("global_pool")} if "global_pool" in shape else {}
        description = {"architecture": name, "num_classes": shape.pop("num_classes"), "model_args": shape,
                     "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}}  # fmt: skip
        (source / "config.json").write_text(json.dumps(description | pool))
        import_directory(source, folder / "run")
        images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
        outputs = answers(load_run(folder / "run", device="cpu"), [{"image": image} for image in images], "label")
        return outputs, theirs((images.float() / 255 - 0.5) / 0.5)

    return compare


def ast(folder: Path) -> Outputs:
    """The Audio Spectrogram Transformer on raw sounds."""
    theirs = shaken(transformers.ASTForAudioClassification(transformers.ASTConfig(**AST)))
    features = transformers.ASTFeatureExtractor(num_mel_bins=48, max_length=96)
    features.save_pretrained(folder / "theirs")
    run = saved(theirs, folder)
    sounds = [(torch.randn(length) * 0.1).numpy() for length in (9000, 15_000)]
    values = features(sounds, sampling_rate=16_000, return_tensors="pt")["input_values"]
    return answers(run, [{"sound": (sound, 16_000)} for sound in sounds], "label"), theirs(values).logits


def decision(folder: Path) -> Outputs:
    """The decision transformer on parts of two episodes."""
    sizes = {"observation": 11, "action": 3, "return": 1}
    config = transformers.DecisionTransformerConfig(state_dim=11, act_dim=3, hidden_size=64, n_positions=64, n_head=4,
                                                    action_tanh=False)  # fmt: skip
    theirs, steps = shaken(transformers.DecisionTransformerModel(config)), torch.arange(5, 20)
    run, inputs = saved(theirs, folder), {name: torch.randn(2, len(steps), size) for name, size in sizes.items()}
    expected = theirs(
        states=inputs["observation"], actions=inputs["action"], rewards=inputs["return"],
        returns_to_go=inputs["return"], timesteps=steps[None].expand(2, -1), attention_mask=torch.ones(2, len(steps)),
    ).action_preds  # fmt: skip
    samples = [
        {name: {"values": values[row].numpy(), "seconds": steps.float().numpy()} for name, values in inputs.items()}
        for row in range(2)
    ]
    return answers(run, samples, "act").view(expected.shape), expected


GPT2 = {"vocab_size": 500, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64}
ARCHITECTURES: dict[str, tuple[str, str, Callable[[Path], Outputs]]] = {
    "GPT-2": ("transformers", "causal decoder", language_model(
        transformers.GPT2Config(**GPT2), transformers.GPT2LMHeadModel, "lm")),
    "Llama": ("transformers", "causal decoder, grouped keys, rotary, SwiGLU", language_model(
        transformers.LlamaConfig(**SHAPE, num_key_value_heads=2), transformers.LlamaForCausalLM, "lm")),
    "BERT": ("transformers", "encoder, post-norm", language_model(
        transformers.BertConfig(**SHAPE), transformers.BertForMaskedLM, "mlm")),
    "RoBERTa": ("transformers", "encoder, post-norm", language_model(
        transformers.RobertaConfig(**SHAPE), transformers.RobertaForMaskedLM, "mlm")),
    "T5 1.0": ("transformers", "encoder and decoder, relative bias", t5("1.0")),
    "T5 1.1": ("transformers", "the same, gated, with a head of its own", t5("1.1")),
    "Whisper": ("transformers", "convolutions, encoder and decoder", whisper),
    "AST": ("transformers", "encoder on overlapping patches of a spectrogram", ast),
    "Decision transformer": ("transformers", "causal decoder of returns, states and actions", decision),
    "ViT": ("timm", "encoder on patches, class token", vit("vit_tiny_patch16_224")),
    "DeiT III": ("timm", "the same with layer scale, mean pooling", vit("deit3_small_patch16_224", global_pool="avg")),
}  # fmt: skip


def rows() -> Iterator[dict[str, Any]]:
    """Yields a row for each architecture with its largest relative difference."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    for name, (reference, what, compare) in ARCHITECTURES.items():
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            outputs, expected = compare(Path(folder))
        difference = float((outputs - expected).abs().max() / expected.abs().max())
        yield {"architecture": name, "what": what, "reference": reference, "difference": difference}


if __name__ == "__main__":
    write_results("architectures", list(rows()))
