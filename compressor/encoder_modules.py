"""The torch modules of each encoder layer, under one set of names for every architecture."""

from dataclasses import dataclass

from torch import nn

from compressor.reload import architecture_of, encoder_of


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderModules:
    """Linear layers and LayerNorms of one encoder layer; ``head_size`` is the channels of a head."""

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    o: nn.Linear
    attention_norm: nn.LayerNorm
    ffn1: nn.Linear
    ffn2: nn.Linear
    output_norm: nn.LayerNorm
    head_size: int


def encoder_modules(model):
    """EncoderModules of every encoder layer of a Hugging Face model, in execution order.

    Raises
    ------
    ValueError
        If the model's architecture cannot be exported.
    """
    names, config = architecture_of(model), model.config
    paths = names.linears | names.norms
    # The size of a head, not the number of heads: pruned heads change the number alone.
    head_size = config.hidden_size // config.num_attention_heads
    return [EncoderModules(head_size=head_size, **{part: layer.get_submodule(path)
                                                   for part, path in paths.items()})
            for layer in encoder_of(model).get_submodule(names.layers)]
