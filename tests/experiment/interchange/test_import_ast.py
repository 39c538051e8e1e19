"""An imported Audio Spectrogram Transformer computes the features, patches and logits of transformers; a model that
differs is refused."""

import json

import numpy as np
import pytest
import torch
from batching import make_batch
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.experiment.run import load_run
from chopmix.files.errors import RunError
from chopmix.tokenizers.audio_patches import AudioPatchesChopper, AudioPatchesTokenizer
from chopmix.tokenizers.base import Role
from chopmix.tokenizers.chopping.packing import pack
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 80, "max_length": 64,
         "num_mel_bins": 48, "id2label": {0: "yes", 1: "no", 2: "stop"}}  # fmt: skip
CASES = {
    "square": {},
    "long": {"max_length": 117, "num_mel_bins": 128},
    "apart": {"patch_size": 8, "frequency_stride": 8, "time_stride": 8},
    "wide": {"hidden_size": 48, "num_attention_heads": 3, "layer_norm_eps": 1e-6, "patch_size": 12},
}
CHOPPER = AudioPatchesChopper(rate=16_000, mels=48)


def clip(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def directory(folder, options: dict):
    """A randomly initialised AST as transformers saves it, with its feature extractor."""
    torch.manual_seed(0)
    model = ASTForAudioClassification(ASTConfig(**SMALL | options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        inner = model.audio_spectrogram_transformer.embeddings
        for parameter in (inner.cls_token, inner.distillation_token, inner.position_embeddings):
            parameter.copy_((parameter * 1024).round() / 1024)  # their sums, which we store, are then exact
    model.save_pretrained(folder)
    features = ASTFeatureExtractor(num_mel_bins=model.config.num_mel_bins, max_length=model.config.max_length)
    features.save_pretrained(folder)
    return model, features


def read(run, sounds) -> torch.Tensor:
    split = run.as_split([{"sound": (sound.numpy(), 16_000)} for sound in sounds])
    with torch.inference_mode():
        return run.model(run.model.plan(make_batch(split, split.all(), run.tasks)))["label"]


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(tmp_path, case):
    """Sounds are shorter and longer than the length of the model."""
    model, features = directory(tmp_path / "ast", CASES[case])
    assert "AST" in import_directory(tmp_path / "ast", tmp_path / "run")
    run = load_run(tmp_path / "run")
    sounds = [clip(samples, samples) for samples in (9000, 30_000, 4111)]
    values = features([sound.numpy() for sound in sounds], sampling_rate=16_000, return_tensors="pt")["input_values"]
    with torch.inference_mode():
        expected = model(values).logits
    logits = read(run, sounds)
    assert (logits - expected).abs().max() / expected.abs().max() < 1e-5


def test_an_imported_model_predicts_the_names_of_its_classes(tmp_path):
    directory(tmp_path / "ast", {})
    import_directory(tmp_path / "ast", tmp_path / "run")
    answer = load_run(tmp_path / "run").predict([{"sound": (clip(8000).numpy(), 8000)}])[0]["label"]
    assert answer["class"] in ("yes", "no", "stop")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; only 'gelu'"),
        ({"qkv_bias": False}, "qkv_bias is False"),
        ({"frequency_stride": 4}, "frequency_stride 4 and time_stride 10 differ"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"num_mel_bins": 58}, "has shape"),
        ({"model_type": "wav2vec2"}, "model_type is 'wav2vec2'; possible: 'audio-spectrogram-transformer', .*'gpt2'"),
    ],
)
def test_a_model_that_is_not_reproduced_is_refused(tmp_path, options, message):
    directory(tmp_path / "ast", {})
    described = json.loads((tmp_path / "ast" / "config.json").read_text())
    (tmp_path / "ast" / "config.json").write_text(json.dumps(described | options))
    with pytest.raises((RunError, ValueError), match=message):
        import_directory(tmp_path / "ast", tmp_path / "run")


def test_features_equal_kaldis():
    """Every frame equals that of transformers' feature extractor, which uses torchaudio's Kaldi spectrogram."""
    chopper = AudioPatchesChopper(rate=16_000, mels=128, length=100, patch_size=10)
    sound = clip(12_345)
    extractor = ASTFeatureExtractor(num_mel_bins=128, max_length=100, do_normalize=False)
    expected = extractor(sound.numpy(), sampling_rate=16_000, return_tensors="pt")["input_values"][0]
    spectrum = chopper.spectrum()(chopper.chop(sound).values)
    torch.testing.assert_close(spectrum, expected, rtol=1e-5, atol=1e-5)
    assert not spectrum[-20:].any() and spectrum[:70].all()


def test_patches_equal_those_of_a_convolution():
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(1, 24, 16, stride=10)
    tokenizer, frames = AudioPatchesTokenizer(CHOPPER, 24, 512, position=None), (57, 26, 16)
    spectrograms = [torch.randn(count, 48) for count in frames]
    grids = [(4, CHOPPER.columns(count)) for count in frames]
    place = torch.cat([torch.cartesian_prod(torch.arange(rows), torch.arange(columns)) for rows, columns in grids])
    lengths = torch.tensor([(columns - 1) * 10 + 16 for _, columns in grids])
    counts = torch.tensor([rows * columns for rows, columns in grids])
    whole = torch.cat([each[:length] for each, length in zip(spectrograms, lengths)])
    vectors = tokenizer.patches(whole, lengths, place, counts) @ convolution.weight.flatten(1).T + convolution.bias
    expected = [convolution(each.T[None, None]).flatten(2)[0].T for each in spectrograms]
    torch.testing.assert_close(vectors, torch.cat(expected), rtol=1e-4, atol=1e-5)


@given(st.integers(1, 40_000), st.sampled_from([None, 16, 64, 200]), st.integers(1, 16))
@settings(max_examples=40, deadline=None)
def test_every_clip_is_chopped_into_whole_patches(samples, length, stride):
    chopper = AudioPatchesChopper(rate=16_000, mels=48, length=length, stride=stride)
    piece = chopper.chop(clip(samples))
    rows, columns = chopper.rows, piece.count // chopper.rows
    assert piece.count == chopper.count(clip(samples)) == len(piece.coordinates) == rows * columns
    assert piece.values.shape == ((columns - 1) * stride + 16, 400)
    assert length is None or columns == (length - 16) // stride + 1
    assert piece.coordinates[-1, 1].item() == pytest.approx(((columns - 1) * stride + 15) * 0.01 + 0.025, abs=1e-3)


def test_clips_of_a_batch_do_not_change_each_other():
    """Each clip has as many vectors as its length needs, with the same values as alone."""
    torch.manual_seed(0)
    model = AudioPatchesTokenizer(CHOPPER, 16, 512)
    sounds = [clip(9000), clip(300, 1), clip(5555, 2)]

    def embedded(*clips):
        return model(
            pack([[("sound", s)] for s in clips], {"sound": CHOPPER}, 512, ("order", "mel", "seconds")).chunks["sound"]
        )

    together = embedded(*sounds)
    torch.testing.assert_close(together, torch.cat([embedded(s) for s in sounds]), rtol=1e-5, atol=1e-5)
    assert len(together) == sum(CHOPPER.count(s) for s in sounds)


def test_statistics_are_computed_from_the_training_data():
    sounds = [(clip(9000, n).numpy() * (n + 1), 16_000) for n in range(3)]
    fitted = CHOPPER.fit(lambda: iter(sounds), Role())
    values = torch.cat([fitted.spectrum()(fitted.chop(fitted.decode(s)).values) for s in sounds])
    assert fitted.statistics == pytest.approx((values.mean().item(), values.std().item()), rel=1e-3)
    assert AudioPatchesChopper(statistics=(1.0, 2.0)).fit(lambda: iter(()), Role()).statistics == (1.0, 2.0)


@pytest.mark.parametrize("options", [{"stride": 0}, {"stride": 17}, {"mels": 8}, {"length": 15}, {"rate": 0}])
def test_impossible_shapes_are_refused(options):
    with pytest.raises(ValueError, match=r"must (be|satisfy)"):
        AudioPatchesChopper(**options)


def test_statistics_of_the_directory_are_used(tmp_path):
    """With a feature extractor that has other statistics, the logits still equal those of transformers."""
    model, _ = directory(tmp_path / "ast", {})
    features = ASTFeatureExtractor(num_mel_bins=48, max_length=64, mean=-3.0, std=2.0)
    features.save_pretrained(tmp_path / "ast")
    import_directory(tmp_path / "ast", tmp_path / "run")
    sound = clip(8000)
    with torch.inference_mode():
        expected = model(features(np.asarray(sound), sampling_rate=16_000, return_tensors="pt")["input_values"]).logits
    torch.testing.assert_close(read(load_run(tmp_path / "run"), [sound]), expected, rtol=1e-4, atol=1e-5)


def test_a_single_class_is_refused(tmp_path):
    directory(tmp_path / "ast", {"id2label": {0: "yes"}})
    with pytest.raises(RunError, match="a classifier needs at least two classes, but this model has 1"):
        import_directory(tmp_path / "ast", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_preprocessor_config_that_is_no_mapping_is_refused(tmp_path):
    directory(tmp_path / "ast", {})
    (tmp_path / "ast" / "preprocessor_config.json").write_text("[]")
    with pytest.raises(RunError, match=r"preprocessor_config.json: the content is \[\]; it must be a "):
        import_directory(tmp_path / "ast", tmp_path / "run")
