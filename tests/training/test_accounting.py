"""`Costs`: the operations of a batch are those counted by hand."""

from __future__ import annotations

from functools import partial

import torch
from chopmix.models.batch import Batch, Chunks, SetPlan, Targets
from chopmix.models.heads import Tied
from chopmix.models.layers.feed_forward import OwnLayers
from chopmix.models.model import Cores, Model
from chopmix.models.tokens import plain_tokens
from chopmix.models.transformer import Block, BlockOptions, Transformer
from chopmix.tokenizers.encoding.base import CharacterEncoding
from chopmix.tokenizers.image import ImageChopper, ImageTokenizer
from chopmix.tokenizers.text import TextChopper, TextTokenizer
from chopmix.training.accounting import Costs
from cores import core_of


def test_each_core_counts_its_rows_and_a_head_its_supervised_slots():
    """Two pictures of five patches, read by an encoder; texts of three tokens, four of which are supervised."""
    d, slots, source = 8, 2 * 3, 2 * 5
    image = ImageTokenizer(ImageChopper(patch_size=2, channels=1, size=(2, 10)), d, 5)
    text = TextTokenizer(TextChopper(vocabulary=CharacterEncoding("abcdefgh")), d, 7)
    cores = Cores(
        core_of(["image", "text"], crosses=True, width=d, depth=1, heads=2),
        core_of(["image", "text"], attention="same_sample", width=d, depth=2, heads=2),
        ["image"],
    )
    model = Model({"image": image, "text": text}, cores, {"answer": Tied(text.embedding)}, context=7)
    pictures = Chunks(values=torch.zeros(2, 1, 2, 10), index=torch.arange(5).repeat(2), slots=torch.arange(source))
    words = Chunks(values=torch.zeros(2, 3, dtype=torch.long), index=torch.arange(3))
    batch = Batch(
        main=SetPlan(tokens=plain_tokens(2, 3, input=2), chunks={"text": words}),
        encoder=SetPlan(tokens=plain_tokens(2, 5), chunks={"image": pictures}),
        targets={"answer": Targets(values=torch.zeros(4, dtype=torch.long), slots=torch.tensor([0, 2, 3, 5]))},
    )
    attention, feed_forward = 4 * d * d, 8 * d * d  # query, key, value, out; two matrices, four times as wide
    encoder = 6 * 2 * (attention + feed_forward) * source + 12 * 2 * d * 5 * source
    decoder = 6 * (attention + feed_forward) * slots + 12 * d * 3 * slots
    crossing = 6 * 2 * d * d * slots + 6 * 2 * d * d * source  # query and out; key and value
    patches, head = 6 * 4 * d * source, 6 * 9 * d * 4
    assert Costs(model).flops(batch) == encoder + decoder + crossing + patches + head


def test_own_layers_add_no_operations():
    """Each token passes through one of several layers."""
    own_layers = OwnLayers(groups=[["text"], ["image"]], layers=["feed_forward", "query", "key", "value", "out"])
    costs = []
    for options in (BlockOptions(), BlockOptions(own_layers=own_layers)):
        core = Transformer(width=8, depth=2, heads=2, block=partial(Block, options=options))
        core.name_inputs(["text", "image"])
        costs.append(Costs(Model({}, Cores(core), {}, context=4)))
    assert costs[0].cores == costs[1].cores and costs[0].cores["main"] == 2 * (4 + 8) * 8 * 8
