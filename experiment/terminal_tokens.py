"""What `chopmix inspect` prints for a text corpus: its tokens in colours, and one batch as training examples."""

from __future__ import annotations

from rich.text import Text

from ..files.printing import plain_console, printable
from .settings.config import Config
from .shown_sample import open_untrained

TEXT_COLOURS = ("on #3b4252", "on #5e4b63", "on #3f5f4f", "on #5f5533", "on #35506b")
"""The background colours of neighbouring tokens in the terminal."""


def inspect_text(config: Config, rows: int = 4, tokens: int = 8) -> None:
    """Print the first 160 tokens of the validation text in colours. Then print one batch of `rows` x `tokens` ids as
    training examples, each with a context and the next id (as Karpathy's lecture "Let's build GPT" does):

        when the input is 18, 47 the target is 56   'Fi' -> 'r'
    """
    console = plain_console(highlight=False)
    choppers, _, split = open_untrained(config)
    name = next(iter(choppers))
    encoding = choppers[name].vocabulary
    description = f"input {name!r}: {encoding.name}, {encoding.size:,} ids; start token {encoding.start}"
    console.print(description)
    ids = split.file.ids
    console.print(f"validation: {len(ids):,} tokens for {split.file.bytes:,} bytes, "
                  f"{split.file.bytes / len(ids):.2f} bytes a token\n")  # fmt: skip
    console.print(coloured(encoding, ids[:160].tolist()))
    console.print(f"\none batch of {rows} x {tokens} ids is {rows * tokens} examples:\n")
    for row in range(min(rows, (len(ids) - 1) // tokens)):
        window = ids[row * tokens : row * tokens + tokens + 1].tolist()
        for length in range(1, len(window)):
            context, target = window[:length], window[length]
            console.print(
                f"when the input is {', '.join(map(str, context))} the target is {target}   "
                f"{encoding.decode(context, specials=True)!r} -> {encoding.decode([target], specials=True)!r}",
                soft_wrap=True,
            )  # fmt: skip


def coloured(encoding, ids: list[int]) -> Text:
    """Returns the text of ids, with alternating background colours for the tokens. `⏎` is added before each line
    break."""
    text = Text()
    for number, id in enumerate(ids):
        piece = encoding.decode([id], specials=True)
        text.append(printable(piece).replace("\n", "⏎\n"), style=TEXT_COLOURS[number % len(TEXT_COLOURS)])
    return text
