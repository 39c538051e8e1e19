"""The names of the languages that Whisper's tokens stand for, as in its reference implementation
(github.com/openai/whisper, `whisper/tokenizer.py`)."""

from __future__ import annotations

NAMES = """
afrikaans af, albanian sq, amharic am, arabic ar, armenian hy, assamese as, azerbaijani az, bashkir ba, basque eu,
belarusian be, bengali bn, bosnian bs, breton br, bulgarian bg, cantonese yue, catalan ca, chinese zh, croatian hr,
czech cs, danish da, dutch nl, english en, estonian et, faroese fo, finnish fi, french fr, galician gl, georgian ka,
german de, greek el, gujarati gu, haitian creole ht, hausa ha, hawaiian haw, hebrew he, hindi hi, hungarian hu,
icelandic is, indonesian id, italian it, japanese ja, javanese jw, kannada kn, kazakh kk, khmer km, korean ko, lao lo,
latin la, latvian lv, lingala ln, lithuanian lt, luxembourgish lb, macedonian mk, malagasy mg, malay ms, malayalam ml,
maltese mt, maori mi, marathi mr, mongolian mn, myanmar my, nepali ne, norwegian no, nynorsk nn, occitan oc, pashto ps,
persian fa, polish pl, portuguese pt, punjabi pa, romanian ro, russian ru, sanskrit sa, serbian sr, shona sn, sindhi sd,
sinhala si, slovak sk, slovenian sl, somali so, spanish es, sundanese su, swahili sw, swedish sv, tagalog tl, tajik tg,
tamil ta, tatar tt, telugu te, thai th, tibetan bo, turkish tr, turkmen tk, ukrainian uk, urdu ur, uzbek uz, vietnamese
vi, welsh cy, yiddish yi, yoruba yo, burmese my, castilian es, flemish nl, haitian ht, letzeburgesch lb, mandarin zh,
moldavian ro, moldovan ro, panjabi pa, pushto ps, sinhalese si, valencian ca
"""
CODES = {" ".join(words[:-1]): words[-1] for words in map(str.split, NAMES.split(","))}
"""The code of each language by its name: `{"german": "de", ...}`."""


def code_of(language: str) -> str:
    """The code of a language given by its code, its name, or its token: `de` for `de`, `German`, `<|de|>`. What is none
    of these is given back in lower case, unchecked."""
    plain = language.removeprefix("<|").removesuffix("|>").lower()
    return CODES.get(plain, plain)
