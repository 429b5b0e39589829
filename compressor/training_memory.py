"""Memory of a training run before it runs: what is held is counted, activations are estimated."""

from compressor.masks import FixedMasks
from compressor.stages import METHODS

BYTES_PER_PARAMETER = 16
"""Weight, gradient and AdamW's two moments, float32."""

ACTIVATION_BYTES = {"float32": (72, 12), "bfloat16": (44, 6)}
"""Bytes that autograd keeps of an encoder layer with dropout: of every channel of a token, and of every entry
of an attention map. Counted in BERT (transformers 5.23, attention not fused, four times as many neurons
as channels); a fused attention without dropout keeps no maps."""


def training_memory(model, recipe, weights, teacher=None):
    """Bytes that one process takes at most, libraries and data left out.

    Parameters
    ----------
    model : PreTrainedModel
    recipe : Recipe
    weights : dict of str to Parameter
        The pruned ones.
    teacher : PreTrainedModel, optional
        The one in a directory, if there is one; the model itself may become one later.

    Returns
    -------
    dict of str to int
        ``held`` (weights, gradients, optimizer, teacher, method) and ``activations`` of a micro-batch of the
        longest sentences.
    """
    training, config = recipe.training, model.config
    held = BYTES_PER_PARAMETER * sum(parameter.numel() for parameter in model.parameters())
    if recipe.distillation is not None:
        held += 4 * sum(parameter.numel() for parameter in (teacher or model).parameters())
    if recipe.prunes:
        methods = [METHODS[stage.method][0] if stage.method in METHODS else FixedMasks
                   for stage in recipe.stages if stage.method != "dense"]
        most = max((method.bytes_per_weight for method in methods), default=0)
        held += most * sum(weight.numel() for weight in weights.values())
    channel, entry = ACTIVATION_BYTES[training.precision]
    tokens = training.max_tokens
    layer = training.batch * tokens * (channel * config.hidden_size
                                       + entry * config.num_attention_heads * tokens)
    return {"held": held, "activations": config.num_hidden_layers * layer}
