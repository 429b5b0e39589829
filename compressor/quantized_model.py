"""A Hugging Face model whose encoder computes the golden model's integers, and can be trained so."""

import torch
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from compressor.encoder_scales import ActivationScales
from compressor.fake_encoder import FakeEncoder, TrainedEncoder
from compressor.fake_quantization import QuantizedLinear
from compressor.operator_checks import SCALES_PATH
from compressor.reload import architecture_of, encoder_of, module_path, to_model
from compressor.straight_through import requantize


def to_quantized_model(bundle):
    """The bundle's model, computing the integers of its golden model.

    Embeddings and everything inside the encoder give the golden model's integers, every one of them;
    pooler and classifier are transformers' in float32, so that logits agree within float32 rounding. A
    bundle without operators gets integer linear layers; all else stays float32 then.

    Returns
    -------
    transformers.PreTrainedModel
        In evaluation mode; it takes what the float model takes, padding on the right.
    """
    model = to_model(bundle)
    if not bundle.operators:
        encoder = encoder_of(model)
        for name, layer in bundle.layers.items():
            encoder.set_submodule(module_path(model, name), QuantizedLinear(layer, bundle.folding(name)))
        return model
    # The query's folding has what its layer's input is worth, channel by channel.
    queries = [name for name, layer in bundle.layers.items() if layer.role == "q"]
    steps = [bundle.layers[name].input_scale * bundle.folding(name).column_factor for name in queries]
    steps.append(ActivationScales.from_dict(bundle.operators[SCALES_PATH], "output").steps)
    encoders = {}

    def encoder_on(device):
        if device not in encoders:
            encoders[device] = FakeEncoder.of(bundle.encoder, device)
        return encoders[device]

    compute_in_integers(model, encoder_on, steps)
    return model


def train_in_integers(model, scales, map_pruning=None):
    """Let a float model compute, from now on, the integers that it would be exported with.

    Its float parameters stay the parameters; gradients reach them through the rounding. There is no dropout
    before the pooler: the integers are the hardware's. :func:`compute_in_float` undoes it.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    scales : compressor.encoder_scales.EncoderScales
    map_pruning : compressor.intops.map_pruning.IntegerMapPruning, optional

    Raises
    ------
    ValueError
        If the model's activation function is not GELU, or the scales do not fit it.
    """
    compute_in_integers(model, TrainedEncoder(model, scales, map_pruning).encoder,
                        [entrance.steps for entrance in scales.entrances()])


def compute_in_integers(model, encoder_on, steps):
    """Replace the forward pass of a model without its head; the modules and parameters stay.

    It returns hidden states and attention maps where asked for them, as real values.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    encoder_on : function of a torch.device
        Gives the FakeEncoder of one forward pass.
    steps : sequence of float64 arrays, shape (hidden,)
        Real value of activation 1 of each channel, at the input of every layer and at the output.
    """
    base, architecture, padding = encoder_of(model), architecture_of(model), model.config.pad_token_id or 0
    pooler = getattr(base, "pooler", None)

    def forward(input_ids, attention_mask=None, token_type_ids=None, output_hidden_states=False,
                output_attentions=False, **_):
        # Autocast would round the integers to bfloat16.
        with torch.autocast(input_ids.device.type, enabled=False):
            x = embed(base.embeddings, architecture, padding, steps[0], input_ids, token_type_ids)
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            traces = encoder_on(x.device).trace(x, mask.long().sum(dim=1))
            states = [x, *(trace["output"] for trace in traces)]
            wanted = range(len(states)) if output_hidden_states else [len(states) - 1]
            hidden = [states[index] * torch.tensor(steps[index], dtype=torch.float32, device=x.device)
                      for index in wanted]
            maps = [trace["weights"] / trace["sums"].clamp(min=1)[..., None] for trace in traces
                    ] if output_attentions else None
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=hidden[-1], pooler_output=None if pooler is None else pooler(hidden[-1]),
            hidden_states=tuple(hidden) if output_hidden_states else None, attentions=maps and tuple(maps))

    base.forward = forward


def compute_in_float(model):
    """Undo :func:`train_in_integers`; does nothing if there is nothing to undo."""
    encoder_of(model).__dict__.pop("forward", None)


def embed(embeddings, architecture, padding_id, steps, input_ids, token_type_ids=None):
    """Twin of :meth:`compressor.host.BertHost.embed`: float32 integers, shape (batch, tokens, hidden).

    Both compute in float64 and differ at most in its last bits before they round.

    Parameters
    ----------
    embeddings : torch.nn.Module
        The embeddings of the transformers model.
    architecture : compressor.architectures.Architecture
    padding_id : int
    steps : float64 array, shape (hidden,)
        Real value of activation 1 of each channel.
    input_ids, token_type_ids : int64 tensors, shape (batch, tokens)
        Token types 0 where None.
    """
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    if architecture.positions_follow_padding:
        real = input_ids != padding_id
        positions = torch.where(real, real.cumsum(dim=1) + padding_id, padding_id)
    x = embeddings.word_embeddings(input_ids).double() + embeddings.position_embeddings(positions).double()
    if architecture.token_types:
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        x = x + embeddings.token_type_embeddings(types).double()
    norm = embeddings.LayerNorm
    x = torch.nn.functional.layer_norm(x, x.shape[-1:], norm.weight.double(), norm.bias.double(), norm.eps)
    one = torch.ones((), dtype=torch.float64, device=x.device)
    return requantize(x / torch.tensor(steps, device=x.device), one)
