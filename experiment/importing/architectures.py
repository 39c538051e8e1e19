"""Every published architecture, in the order in which an export tries them."""

from __future__ import annotations

from ...models.pretrained.ast_audio import Ast
from ...models.pretrained.base import Architecture
from ...models.pretrained.bert import Bert, Roberta
from ...models.pretrained.decision import Decision
from ...models.pretrained.gpt2 import Gpt2
from ...models.pretrained.llama import Llama
from ...models.pretrained.t5 import T5
from ...models.pretrained.vit import Vit
from ...models.pretrained.whisper import Whisper

ARCHITECTURES: tuple[type[Architecture], ...] = (Gpt2, Llama, Roberta, Bert, T5, Whisper, Ast, Vit, Decision)
