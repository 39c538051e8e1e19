"""`chopmix inspect CONFIG` for a text corpus: its tokens in colours, and one batch written out as training examples."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from ...tokenizers.files.printing import printable
from ..data.opened_data import open_untrained
from ..settings.config import Config

COLOURS = ("on #3b4252", "on #5e4b63", "on #3f5f4f", "on #5f5533", "on #35506b")


def inspect_text(config: Config, rows: int = 4, tokens: int = 8) -> None:
    """Print the first 160 tokens of the validation text in colours, then a batch of `rows` x `tokens` ids as its
    examples of context and next id (as in Karpathy's lecture "Let's build GPT"):

        when the input is 18, 47 the target is 56   'Fi' -> 'r'
    """
    console = Console(highlight=False)
    choppers, _, split = open_untrained(config)
    (name,) = choppers
    encoding = choppers[name].text
    about = f"input {name!r}: {encoding.name}, {encoding.vocabulary:,} ids; start token {encoding.start}"
    console.print(printable(about), markup=False)
    ids = split.file.ids
    console.print(f"validation: {len(ids):,} tokens for {split.file.bytes:,} bytes, "
                  f"{split.file.bytes / len(ids):.2f} bytes a token\n")  # fmt: skip
    console.print(coloured(encoding, ids[:160].tolist()))
    console.print(f"\none batch of {rows} x {tokens} ids is {rows * tokens} examples:\n")
    for row in range(min(rows, (len(ids) - 1) // tokens)):
        window = ids[row * tokens : row * tokens + tokens + 1].tolist()
        for length in range(1, len(window)):
            given, target = window[:length], window[length]
            console.print(
                f"when the input is {', '.join(map(str, given))} the target is {target}   "
                f"{encoding.decode(given, specials=True)!r} -> {encoding.decode([target], specials=True)!r}",
                markup=False, soft_wrap=True,
            )  # fmt: skip


def coloured(encoding, ids: list[int]) -> Text:
    """The text of ids with neighbouring tokens on different colours; a line break shows as ⏎ and is made."""
    text = Text()
    for number, id in enumerate(ids):
        piece = encoding.decode([id], specials=True)
        text.append(printable(piece).replace("\n", "⏎\n"), style=COLOURS[number % len(COLOURS)])
    return text
