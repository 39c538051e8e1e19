"""A foreign tokenizer.json may panic, hang or fill the memory: each case is a DataError without other output, and
the next text is tokenized again."""

import gc
import os
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from chopmix.files.reading import DataError
from chopmix.tokenizers.encoding import coder_process
from chopmix.tokenizers.encoding.byte_pairs import BpeEncoding
from chopmix.tokenizers.encoding.coder_process import CoderProcess
from chopmix.tokenizers.encoding.directory import DirectoryEncoding, coder_of

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers


def tokenizer(**parts) -> str:
    """Return the content of a tokenizer.json with five letters."""
    coder = Tokenizer(models.BPE({"a": 0, "b": 1, "c": 2, "!": 3, " ": 4}, []))
    coder.add_special_tokens([AddedToken("<s>", special=True)])
    for name, part in parts.items():
        setattr(coder, name, part)
    return coder.to_str()


def split(pattern: str) -> str:
    return tokenizer(pre_tokenizer=pre_tokenizers.Split(Regex(pattern), "isolated"))


@pytest.fixture(scope="module")
def plain() -> CoderProcess:
    return CoderProcess(tokenizer())


def test_texts_become_ids_and_ids_become_texts(plain):
    assert plain.encode(["ab", "", "c!\n"]) == [[0, 1], [], [2, 3]] and plain.decode([0, 5, 1], True) == "a <s> b"
    assert plain.decode([0, 5, 1], False) == "a b" and plain.encode(["<s>"]) == [[]]  # its letters have no ids
    with ThreadPoolExecutor(4) as pool:
        texts = ["a" * n for n in range(40)]
        assert [*pool.map(lambda text: plain.encode([text])[0], texts)] == [[0] * n for n in range(40)]


def test_a_panic_is_reported_as_an_error_of_its_text(capfd):
    encoding = DirectoryEncoding(split("(a|a)*$"), 0, {})
    for read in (encoding.encode, lambda text: encoding.encode_batch(["ab", text])):
        with pytest.raises(DataError, match=r"the tokenizer cannot tokenize the text 'a{40}!': Onig: .*retry-limit"):
            read("a" * 40 + "!")
    assert encoding.encode("ab") == [0, 1] and capfd.readouterr() == ("", "")


def test_a_regular_expression_that_never_ends_is_reported(monkeypatch):
    monkeypatch.setattr(coder_process, "FIXED_SECONDS", 0.2)
    encoding = DirectoryEncoding(split("a*a*a*!"), 0, {})
    with pytest.raises(
        DataError, match="cannot tokenize the text '(a+...): it takes more than 0 seconds; its regular expr"
    ):
        encoding.encode("a" * 600 + "b!")
    assert encoding.encode("ab") == [0, 1]


@pytest.mark.system
def test_a_letter_that_becomes_a_gigabyte_is_reported(monkeypatch):
    monkeypatch.setattr(coder_process, "GROWTH", 2**24)
    monkeypatch.setattr(coder_process, "FIXED_SECONDS", 20.0)
    ten = [normalizers.Replace("a", 10 * "a")] * 9
    back = [decoders.Replace("a", 10 * "a")] * 9
    encoding = DirectoryEncoding(
        tokenizer(normalizer=normalizers.Sequence(ten), decoder=decoders.Sequence(back)), 0, {}
    )
    with pytest.raises(DataError, match="cannot tokenize the text 'a': it takes more than 16 MiB of memory, or fails"):
        encoding.encode("a")
    with pytest.raises(DataError, match="the tokenizer cannot decode ids: it takes more than 16 MiB of memory"):
        encoding.decode([0])
    assert encoding.encode("b") == [1] and encoding.decode([1]) == "b"


def test_padding_and_truncation_in_the_file_are_ignored():
    coder = Tokenizer.from_str(tokenizer())
    coder.enable_padding(length=10**9)
    coder.enable_truncation(1)
    assert CoderProcess(coder.to_str()).encode(["ab"], specials=True) == [[0, 1]]


def test_signals_for_the_process_group_do_not_end_the_process(plain):
    plain.encode(["a"])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(plain.process.pid, number)
    process = plain.process
    assert plain.encode(["b"]) == [[1]] and plain.process is process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert plain.encode(["b"]) == [[1]] and plain.process is not process


def test_an_interrupted_request_does_not_answer_the_next_one():
    slow = CoderProcess(split("a*a*a*!"))
    assert slow.encode(["a"]) == [[0]]

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            slow.encode(["a" * 600 + "b!"])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert slow.encode(["b"]) == [[1]]


def test_a_forked_process_starts_another_coder_process(plain, monkeypatch):
    plain.encode(["a"])
    first = plain.process
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: 1)
        assert plain.encode(["b"]) == [[1]] and plain.process is not first and first.poll() is None
        second = plain.process
    coder_process._end(second, os.getpid())
    coder_process._end(first, os.getpid())


def test_the_process_ends_when_its_encoding_is_deleted():
    encoding = pickle.loads(pickle.dumps(DirectoryEncoding(tokenizer(), 0, {})))
    assert encoding.encode("ab") == [0, 1]
    process = encoding.process.process
    del encoding
    gc.collect()
    assert process.poll() is not None


def test_an_invalid_tokenizer_is_refused_although_the_library_panics():
    with pytest.raises(DataError, match="x is not a tokenizer: "):
        coder_of("{}", "x")
    with pytest.raises(DataError, match="x is not a tokenizer: "):
        coder_of(
            tokenizer().replace(
                '"normalizer":null', '"normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"}'
            ),
            "x",
        )


def test_a_panic_of_tiktoken_is_reported_as_an_error():
    encoding = BpeEncoding({bytes([byte]): byte for byte in range(256)}, "(a|a)*$")
    with pytest.raises(DataError, match="encoding 'bpe' cannot tokenize the text 'a+!': range end index"):
        encoding.encode("a" * 40 + "!")
