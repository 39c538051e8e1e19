"""Text becomes ids and ids become text: no character is lost, and characters without an id are refused by name."""

from __future__ import annotations

import base64
import json
import os
import pickle
from functools import cache
from itertools import accumulate
from pathlib import Path

import pytest
from chopmix.tokenizers.base import Role
from chopmix.tokenizers.encoding import byte_pairs
from chopmix.tokenizers.encoding.base import (
    ByteEncoding,
    CharacterEncoding,
    Encoding,
    NumberEncoding,
    UnencodableText,
)
from chopmix.tokenizers.encoding.byte_pairs import (
    GPT2_PATTERN,
    PATTERN,
    BpeEncoding,
    Extended,
    TiktokenEncoding,
    rank_files,
)
from chopmix.tokenizers.encoding.directory import DirectoryEncoding
from chopmix.tokenizers.encoding.stored import load_encoding, make_encoding
from chopmix.tokenizers.text import TextPreprocessor
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.models import Unigram

from tokenizers import Tokenizer

SAMPLE = [
    "def one(words):\n    for word in words:\n        if word:\n            return word, 7\n\n\nclass A:\n    x = 1\n",
    'It was the best of times, it was the worst of times; it wasn\'t 1775.\n\n"Naïve café," she said. \t \r\n',
    "<|endoftext|> Zażółć gęślą jaźń, 東京 🙂 \x00\u200d\ufeff    \n   \n",
]
BPE = make_encoding("bpe", 330, lambda: SAMPLE)
ROOT = Path(os.environ.get("CHOPMIX_DATA") or "missing", "bpe")
needs_ranks = pytest.mark.skipif(not ROOT.is_dir(), reason="CHOPMIX_DATA with the folder bpe")
PUBLIC = [pytest.param(name, marks=needs_ranks) for name in ("gpt2", "r50k_base", "cl100k_base")]
unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
text_with_runs = st.lists(st.sampled_from([" ", "\n", "\r", "\t", "a", "'s", "7", ".", "é", "\u3000", "🙂"])).map(
    "".join
)


@cache
def public(name: str) -> Encoding:
    """Return a public encoding, which is read only once."""
    return TiktokenEncoding(name)


def chopmix_encodings(text: str) -> list[Encoding]:
    """Return one encoding of each kind of chopmix, all of which can represent the text."""
    return [ByteEncoding(), BPE, CharacterEncoding("".join(sorted(set(text) | {"a"})))]


@settings(max_examples=150, deadline=None)
@given(unicode_text | text_with_runs)
def test_encodings_of_chopmix_restore_every_text(text):
    for encoding in chopmix_encodings(text):
        ids = encoding.encode(text)
        assert encoding.decode(ids) == text
        assert encoding.decode_bytes(ids) == text.encode()
        assert encoding.encode_batch([text, "a"]) == [ids, encoding.encode("a")]
        assert all(0 <= i < encoding.size and i != encoding.start for i in ids)


@pytest.mark.parametrize("name", PUBLIC)
@settings(max_examples=100, deadline=None)
@given(text=unicode_text | text_with_runs)
def test_public_encodings_restore_every_text(name, text):
    encoding = public(name)
    assert encoding.decode(encoding.encode(text)) == text


def test_bpe_splits_texts_like_the_library_that_trained_it():
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    sources = [
        Path(__file__).read_text(encoding="utf-8"),
        Path(byte_pairs.__file__).read_text(encoding="utf-8"),
        *SAMPLE,
    ]
    sources = [source.encode("ascii", "ignore").decode() for source in sources]  # so that every character is one byte
    reference, as_bytes = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    reference.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERN), "isolated"), as_bytes])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=999, initial_alphabet=alphabet, show_progress=False)
    reference.train_from_iterator(sources, trainer)
    encoding = make_encoding("bpe", 1000, lambda: sources)
    for text in [*sources, "".join(sources)[::-1]]:
        ours = accumulate(len(encoding.pieces[i]) for i in encoding.encode(text))
        assert list(ours) == [end for _, end in reference.encode(text).offsets]


def test_bpe_training_is_reproducible_and_its_size_includes_the_start_token():
    again = make_encoding("bpe", 330, lambda: iter(SAMPLE))
    assert again == BPE and again.ranks == BPE.ranks
    assert (BPE.size, BPE.start, len(BPE.ranks)) == (330, 329, 329)
    assert make_encoding("bpe", 257, lambda: SAMPLE).encode("ab") == [97, 98]


def test_a_line_end_and_the_next_indentation_are_one_piece():
    code = make_encoding("bpe", 272, lambda: ["x(y):\n        return z\n"] * 50)
    assert b"):\n       " in code.ranks and b" return" in code.ranks


@pytest.mark.parametrize("name", ["bytes", "bpe", *PUBLIC])
def test_names_of_special_tokens_in_data_are_plain_text(name):
    encoding = BPE if name == "bpe" else make_encoding(name, None, lambda: ())
    text = "a<|endoftext|>b"
    ids = encoding.encode(text)
    assert encoding.start not in ids and encoding.decode(ids) == text
    framed = [encoding.start, *encoding.encode("a")]
    assert encoding.decode(framed) == "a"
    assert encoding.decode(framed, specials=True) == "<|endoftext|>a"


@needs_ranks
def test_public_encodings_have_the_published_sizes_and_gaps():
    gpt2, large = public("gpt2"), public("cl100k_base")
    assert (gpt2.size, gpt2.start) == (50257, 50256)
    assert (large.size, large.start) == (100277, 100257)
    assert large.decode([100261, 100258], specials=True) == "<|100261|><|fim_prefix|>"
    assert large.decode([100261, 100258]) == ""
    assert gpt2.encode("Hello world") == [15496, 995]
    assert set(rank_files("gpt2")) <= {path.name for path in ROOT.iterdir()}


@needs_ranks
def test_very_long_white_space_does_not_overflow_tiktoken():
    for encoding in (BPE, public("gpt2")):
        text = "a" + " " * 1_100_000 + "b" + " \n" * 70_000
        assert encoding.decode(encoding.encode(text)) == text


def test_ids_outside_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match="id 257 is outside encoding 'bytes', which has 257 ids"):
        ByteEncoding().decode([65, 257])
    with pytest.raises(ValueError, match="id -1 is outside encoding 'bpe'"):
        BPE.decode_bytes([-1])
    assert ByteEncoding().decode([0xC3]) == "\ufffd"


@pytest.mark.parametrize("encoding", chopmix_encodings("abc"), ids=lambda encoding: encoding.name)
def test_lone_surrogates_are_refused_with_their_position(encoding):
    with pytest.raises(UnencodableText, match=r"lone surrogate U\+D83D at position 2 is not a Unicode character"):
        encoding.encode("ab\ud83d")
    with pytest.raises(UnencodableText, match="at position 0"):
        encoding.encode_batch(["a", "\udc00"])


def test_unknown_characters_are_refused_with_their_name_and_position():
    with pytest.raises(
        UnencodableText, match=r"character 'é' \(U\+00E9\) at position 3 is not among the 3 characters of this voc"
    ):
        CharacterEncoding("abc").encode("abcé")
    error = pickle.loads(pickle.dumps(UnencodableText("x", 3, "is wrong")))
    assert str(error) == "x at position 3 is wrong"


def test_character_vocabulary_is_sorted_and_starts_last():
    encoding = make_encoding("characters", None, lambda: ["hello", "world"])
    assert (encoding.symbols, encoding.start, encoding.size) == ("dehlorw", 7, 8)
    for wrong in ("ba", "aa", ""):
        with pytest.raises(ValueError, match="needs at least one character, each once, in code point order"):
            CharacterEncoding(wrong)


@pytest.mark.parametrize("name", ["bytes", "characters", "bpe", *PUBLIC])
def test_saved_and_pickled_encodings_are_equal_when_loaded(name, tmp_path):
    encoding = {"bpe": BPE, "characters": CharacterEncoding("\n 'abé🙂")}.get(name)
    encoding = encoding or make_encoding(name, None, lambda: ())
    encoding.save(tmp_path / "text")
    loaded, copied = load_encoding(tmp_path / "text"), pickle.loads(pickle.dumps(encoding))
    for other in (loaded, copied):
        assert other == encoding and other.fingerprint == encoding.fingerprint and hash(other) == hash(encoding)
        assert (other.name, other.start, other.encode("ab a")) == (name, encoding.start, encoding.encode("ab a"))
    files = {"encoding.json", "ranks.tiktoken"} if name == "bpe" else {"encoding.json"}
    assert {path.name for path in (tmp_path / "text").iterdir()} == files


def test_different_vocabularies_have_different_fingerprints():
    others = [
        ByteEncoding(),
        CharacterEncoding("ab"),
        CharacterEncoding("abc"),
        BPE,
        BpeEncoding(BPE.ranks, r"\S+|\s+"),
    ]
    assert len({encoding.fingerprint for encoding in others}) == len(others)
    assert ByteEncoding() == ByteEncoding() and ByteEncoding() != "bytes"


def unigram(score: float) -> DirectoryEncoding:
    """Return a tokenizer.json that splits "ab" into one piece, or into two if the piece "ab" has a low score."""
    pieces = [("</s>", 0.0), ("a", -2.0), ("b", -2.0), ("ab", score)]
    return DirectoryEncoding(Tokenizer(Unigram(pieces, unk_id=0)).to_str(), 0, {"end": 0})


def test_different_tokenizers_with_the_same_pieces_have_different_fingerprints(tmp_path):
    """Otherwise their token files would be confused. Runs of earlier versions, whose fingerprints depend only on the
    pieces, are still read."""
    one, two = unigram(-1.0), unigram(-9.0)
    assert one.encode("ab") == [3] and two.encode("ab") == [1, 2] and one.pieces == two.pieces
    assert one.fingerprint != two.fingerprint and one != two and one == unigram(-1.0)
    assert Extended(one, ["mask"]).fingerprint != Extended(two, ["mask"]).fingerprint
    one.save(tmp_path)
    file = tmp_path / "encoding.json"
    file.write_text(file.read_text().replace(one.fingerprint, one.vocabulary_fingerprint))
    assert load_encoding(tmp_path) == one
    file.write_text(file.read_text().replace(one.vocabulary_fingerprint, two.fingerprint))
    with pytest.raises(ValueError, match="its fingerprint differs"):
        load_encoding(tmp_path)


def test_ranks_are_saved_as_tiktoken_writes_them(tmp_path):
    BPE.save(tmp_path)
    lines = (tmp_path / "ranks.tiktoken").read_text().splitlines()
    assert lines[97] == base64.b64encode(b"a").decode() + " 97" and len(lines) == 329


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"encoding\.json does not exist"):
        load_encoding(tmp_path)
    BPE.save(tmp_path)
    file, ranks = tmp_path / "encoding.json", tmp_path / "ranks.tiktoken"
    ranks.write_text("".join(ranks.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="is not the one that was saved: its fingerprint differs"):
        load_encoding(tmp_path)
    ranks.write_text("YQ== 0\n")
    with pytest.raises(ValueError, match="number all 256 bytes and the merged pieces without a gap"):
        load_encoding(tmp_path)
    file.write_text(json.dumps({"name": "characters", "fingerprint": ""}))
    with pytest.raises(
        ValueError, match="no encoding can be read from .*encoding.json: a character vocabulary needs at least one"
    ):
        load_encoding(tmp_path)


def test_names_and_vocabularies_are_checked():
    with pytest.raises(
        ValueError, match="no encoding named 'charcters'; possible: bytes, .*; did you mean 'characters'"
    ):
        make_encoding("charcters", None, lambda: ())
    with pytest.raises(ValueError, match="bpe needs vocabulary"):
        make_encoding("bpe", None, lambda: SAMPLE)
    with pytest.raises(
        ValueError, match="vocabulary: 100 is for encoding: bpe or numbers only; 'gpt2' has a fixed one"
    ):
        make_encoding("gpt2", 100, lambda: ())
    with pytest.raises(ValueError, match="vocabulary: 256 is too small"):
        make_encoding("bpe", 256, lambda: SAMPLE)
    with pytest.raises(ValueError, match="vocabulary: 1000 ids are too many: this corpus yields only 261"):
        make_encoding("bpe", 1000, lambda: ["abc abd"])
    with pytest.raises(UnencodableText, match=r"U\+D800 at position 1"):
        make_encoding("bpe", 260, lambda: ["a\ud800"])


def test_the_message_of_a_failed_download_names_the_file_and_its_folder(monkeypatch, tmp_path):
    (tmp_path / "bpe").mkdir()
    monkeypatch.setenv("CHOPMIX_DATA", str(tmp_path))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # so that monkeypatch restores it after the code has set it
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")

    def unreachable(name):
        assert os.environ["TIKTOKEN_CACHE_DIR"] == str(tmp_path / "bpe")
        raise ConnectionError("no network")

    monkeypatch.setattr(byte_pairs.tiktoken, "get_encoding", unreachable)
    with pytest.raises(ValueError, match="put .*vocab.bpe as 6d1cbeee0f20.* in the folder TIKTOKEN_CACHE_DIR"):
        TiktokenEncoding("gpt2")
    with pytest.raises(ValueError, match=r"'p50k_edit' are not available .*p50k_base.tiktoken as [0-9a-f]{40} in"):
        TiktokenEncoding("p50k_edit")


@given(st.lists(st.integers(0, 8)))
def test_number_encodings_restore_their_ids(ids):
    encoding = NumberEncoding(10)
    assert encoding.encode(encoding.decode(ids)) == ids
    assert encoding.decode([9, 3], specials=True) == "<|endoftext|><3>"


@pytest.mark.parametrize(
    "text, position", [("<1> <2>", 3), ("<9>", 0), ("<10>", 0), ("12", 0), ("<1><", 3), ("<01>", 0)]
)
def test_text_that_is_no_number_is_refused_with_its_position(text, position):
    with pytest.raises(ValueError, match=f"at position {position} is not a number from <0> to <9>"):
        NumberEncoding(10).encode(text)


@pytest.mark.skipif(not (Path(os.environ.get("CHOPMIX_DATA", "")) / "bpe").is_dir(), reason="needs GPT-2's ranks")
def test_the_vocabulary_of_gpt2_with_its_pattern_encodes_like_tiktoken():
    gpt2 = make_encoding("gpt2", None, tuple)
    encoding = BpeEncoding({piece: i for i, piece in enumerate(gpt2.pieces) if piece}, GPT2_PATTERN)
    text = "It's 2026; don't   chop\n\n\tup 12345 things — 'twas the mix! \x00é "
    assert encoding.encode(text) == gpt2.encode(text) and encoding.start == gpt2.start == 50256


def test_numbers_in_a_text_column_are_texts_and_other_values_are_skipped():
    """A skipped value counts as a bad sample when it is read."""
    fitted = TextPreprocessor(encoding="characters").fit(
        lambda: iter([12, "3", ["4"], {"5": 6}, 7.5, b"8", b"\xff"]), Role()
    )
    assert fitted.vocabulary.symbols == ".123578"
