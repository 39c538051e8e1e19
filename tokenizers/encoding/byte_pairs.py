"""Byte-pair encodings: the encodings of tiktoken, and an encoding trained on the user's corpus."""

from __future__ import annotations

import base64
import difflib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import tiktoken

from ...files.reading import shown
from ...files.trust import EVERYTHING, Trust
from ...files.writing import write_text
from .base import START, Encoding, no_panic, well_formed

# Like in GPT-4's pattern, a word includes one preceding character, and digits are grouped in threes. Unlike in GPT-4's
# pattern, the punctuation at the end of a line, the newlines and the indentation of the next line form one piece,
# except for the space that belongs to the next word: ":\n           " + " return". With 4,096 ids this saves 6 % of the
# tokens of Python source and 1 % of the tokens of novels. Possessive quantifiers (*+, ++) keep the matching time linear
# for long white space.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+(?:[^\S\r\n]*+[\r\n]++(?=\S)|[^\S\r\n]*+[\r\n]\s*(?!\S))?"
    r"|[^\S\r\n]*+[\r\n]++(?=\S)"
    r"|\s+(?!\S)|\s+"
)

# The pattern of GPT-2 in tiktoken's syntax, used to export its vocabulary.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

# White space is cut into parts of LONGEST characters, because a million characters overflow tiktoken's stack.
LONGEST = 2**17

LONG_SPACE = re.compile(rf"\s(?<!\s\s)\s{{{LONGEST},}}")  # matches only at the beginning of a run: the time is linear


class BytePairs(Encoding):
    """Base of the encodings that the library tiktoken computes."""

    def __init__(self, coder: tiktoken.Encoding):
        self.name, self.start, self._coder = coder.name, coder.eot_token, coder
        self.specials = {coder.encode_single_token(name): name for name in sorted(coder.special_tokens_set)}
        ids = {coder.encode_single_token(piece): piece for piece in coder.token_byte_values()}
        self.pieces = [ids.get(i, b"") for i in range(coder.n_vocab)]

    def encode(self, text):
        well_formed(text)
        runs = (range(space.start() + LONGEST, space.end(), LONGEST) for space in LONG_SPACE.finditer(text))
        ends = list(chain.from_iterable(runs))
        parts = (text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True))
        with no_panic(f"{self.title} cannot tokenize the text {shown(text)}"):
            return list(chain.from_iterable(map(self._coder.encode_ordinary, parts)))

    def encode_batch(self, texts):
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(self.encode, texts))


class Extended(Encoding):
    """The encoding `base` with one additional special id for each of the `added_roles`, after the last id of `base`.
    Roles are for example the mask of a BERT and the sentinels of a T5. The encoding `bytes` has 257 ids; with the role
    `mask` the id 257 is added, which is printed as `<|mask|>`."""

    def __init__(self, base: Encoding, added_roles: Sequence[str]):
        self.base, self.added_roles = base, tuple(added_roles)
        self.name, self.start, first = base.name, base.start, base.size
        roles = {**base.roles, **{name: first + number for number, name in enumerate(added_roles)}}
        self.frame = {**base.frame, "end": base.end, "before": base.before, "after": base.after, "roles": roles}
        self.specials = base.specials | {first + number: f"<|{name}|>" for number, name in enumerate(added_roles)}
        self.pieces = PaddedPieces(base.pieces, len(added_roles))

    def encode(self, text):
        return self.base.encode(text)

    def decode(self, ids, specials=False):
        if specials:
            return super().decode(ids, specials)
        return self.base.decode([i for i in ids if i < self.base.size])

    def encode_batch(self, texts):
        return self.base.encode_batch(texts)

    def stream(self, before=()):
        return self.base.stream(before)

    def parts(self):
        return {**self.base.parts(), "own": list(self.added_roles)}

    def rules(self):
        return self.base.rules()

    def save(self, folder):
        self.base.save(folder)
        super().save(folder)


class PaddedPieces(Sequence[bytes]):
    """The sequence `pieces`, followed by `padding` empty pieces."""

    def __init__(self, pieces: Sequence[bytes], padding: int):
        self.pieces, self.padding = pieces, padding

    def __len__(self) -> int:
        return len(self.pieces) + self.padding

    def __getitem__(self, number):
        id = range(len(self))[number]
        return self.pieces[id] if id < len(self.pieces) else b""


class TiktokenEncoding(BytePairs):
    """A public encoding of tiktoken: gpt2, r50k_base, cl100k_base, o200k_base, ..."""

    def __init__(self, name: str, trust: Trust = EVERYTHING):
        """Reads the ranks (the file that numbers the pieces) from the folder TIKTOKEN_CACHE_DIR. If this variable is
        not set, reads `$CHOPMIX_DATA/bpe` if that folder exists. Missing ranks are downloaded if `trust` allows the
        host. Raises ValueError if the name is unknown, the download is not allowed (DataError), or the ranks are not
        available; the last message names the files and the folder for them."""
        known_name(name)
        folder = Path(os.environ.get("CHOPMIX_DATA") or "missing", "bpe")
        if "TIKTOKEN_CACHE_DIR" not in os.environ and folder.is_dir():
            os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
        for file, address in rank_files(name).items():
            if not (ranks_folder() / file).is_file():
                trust.check_address(address)
        try:
            coder = tiktoken.get_encoding(name)
        except (OSError, ValueError) as error:  # a failed download is an OSError, a wrong sha256 a ValueError
            files = " and ".join(f"{address} as {file}" for file, address in rank_files(name).items())
            where = "the folder TIKTOKEN_CACHE_DIR, by default the folder bpe in CHOPMIX_DATA"
            reason = f"({type(error).__name__})"
            raise ValueError(f"the ranks of {name!r} are not available {reason}; put {files} in {where}") from error
        super().__init__(coder)

    def parts(self):
        return {"frame": dict(self.frame)} if self.frame else {}


def known_name(name: str) -> None:
    """Raises ValueError if no encoding has this name. The message lists the possible names. The name `directory` (the
    encoding of an imported model, which is read from its files) is also accepted, but the message does not list it."""
    possible = ["bytes", "characters", "bpe", "numbers", *sorted(tiktoken.list_encoding_names())]
    if name not in (*possible, "directory"):
        near = difflib.get_close_matches(name, possible, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no encoding named {name!r}; possible: {', '.join(possible)}{hint}")


def ranks_folder() -> Path:
    """Returns the folder in which tiktoken caches downloaded ranks."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    return Path(folder or os.path.join(tempfile.gettempdir(), "data-gym-cache"))


def rank_files(name: str) -> dict[str, str]:
    """Returns a mapping from file names in tiktoken's cache (the sha1 of the URL) to the URLs of a public encoding's
    ranks."""
    store = "https://openaipublic.blob.core.windows.net/"
    base = {"p50k_edit": "p50k_base", "o200k_harmony": "o200k_base"}.get(name, name)
    gpt2 = ["gpt-2/encodings/main/vocab.bpe", "gpt-2/encodings/main/encoder.json"]
    paths = gpt2 if name == "gpt2" else [f"encodings/{base}.tiktoken"]
    return {hashlib.sha1((store + path).encode()).hexdigest(): store + path for path in paths}


class BpeEncoding(BytePairs):
    """A byte-level BPE trained on the user's corpus; see `train_bpe`."""

    def __init__(self, ranks: dict[bytes, int], pattern: str = PATTERN):
        """`ranks` maps all 256 bytes and the merged pieces to their ids, from 0 without a gap; otherwise ValueError is
        raised. The next id is the start token. `pattern` is the regular expression that splits text into words."""
        if sorted(ranks.values()) != list(range(len(ranks))) or any(bytes([b]) not in ranks for b in range(256)):
            raise ValueError("the ranks of a byte-level BPE number all 256 bytes and the merged pieces without a gap")
        self.ranks, self.pattern = ranks, pattern
        special = {START: len(ranks)}
        super().__init__(tiktoken.Encoding("bpe", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special))

    def parts(self):
        return {"pattern": self.pattern}

    def save(self, folder):
        lines = (base64.b64encode(piece).decode() + f" {rank}\n" for piece, rank in self.ranks.items())
        write_text(Path(folder) / "ranks.tiktoken", "".join(lines))
        super().save(folder)


def byte_letters() -> dict[str, int]:
    """Returns a mapping from letters to bytes for vocabularies in GPT-2's format. In this format a printable byte is
    written as the same character. Other bytes and the space are written as letters from chr(256) on (the space as
    chr(288))."""
    printable = [b for b in range(256) if chr(b).isprintable() and b != 32]
    others = sorted(set(range(256)) - set(printable))
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def train_bpe(texts: Iterable[str], vocabulary: int) -> BpeEncoding:
    """Returns a byte-level BPE, trained with Hugging Face's trainer. Ids 0 to 255 are the bytes. The merged pieces
    follow in the order in which they were learned. `vocabulary` is the number of all ids: bytes, merged pieces and the
    start token. Raises ValueError if `vocabulary` is below 257, or if the corpus yields fewer ids."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    if vocabulary < 257:
        raise ValueError(f"vocabulary: {vocabulary} is too small: 256 bytes and the start token make 257")
    learner, alphabet = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel.alphabet()
    cut, as_bytes = pre_tokenizers.Split(Regex(PATTERN), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([cut, as_bytes])
    trainer = trainers.BpeTrainer(vocab_size=vocabulary - 1, initial_alphabet=alphabet, show_progress=False)
    short = (text[i : i + 2**16] for text in texts for i in range(0, len(text), 2**16))  # long texts take much memory
    learner.train_from_iterator(short, trainer)
    byte, learned = byte_letters(), sorted(learner.get_vocab().items(), key=lambda item: item[1])
    merged = [bytes(byte[letter] for letter in piece) for piece, _ in learned if len(piece) > 1]
    encoding = BpeEncoding({piece: rank for rank, piece in enumerate([bytes([b]) for b in range(256)] + merged)})
    if encoding.size < vocabulary:
        raise ValueError(f"vocabulary: {vocabulary} ids are too many: this corpus yields only {encoding.size}")
    return encoding
