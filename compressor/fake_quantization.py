"""The torch twin of the integer linear layers: float tensors that carry exact integers."""

import torch

from compressor.folding import Folding
from compressor.intops import ACTIVATION_MAX
from compressor.intops.linear import accumulator_bound
from compressor.reload import encoder_of, module_path, to_model


class QuantizedLinear(torch.nn.Module):
    """One linear layer that computes the golden model's integers; float in and out.

    The input is quantized at ``input_scale``, the output is the integer times ``output_scale``.
    Bit-exact with :meth:`compressor.intops.IntegerLinear.compute`: products and sums of integers
    are exact in float32 below 2**24 and in float64 below 2**53, and the constructor chooses by the
    bound of the layer's sums.

    Parameters
    ----------
    layer : compressor.layer_weights.LayerWeights
    folding : compressor.folding.Folding, optional
        What the layer absorbed for the operators beside it; nothing unless given.
    """

    def __init__(self, layer, folding=None):
        super().__init__()
        folding = folding or Folding.of(layer.weight.shape)
        for name in ("column_factor", "input_zero", "row_factor", "output_center"):
            self.register_buffer(name, torch.tensor(getattr(folding, name), dtype=torch.float64))
        self.input_scale, self.output_scale = layer.input_scale, layer.output_scale
        products = int(accumulator_bound(layer.weight, layer.bias * 0).max())
        exact = torch.float32 if products < 1 << 24 else torch.float64
        self.register_buffer("weight", torch.tensor(layer.weight, dtype=exact))
        self.register_buffer("bias", torch.tensor(layer.bias, dtype=torch.float64))
        ratio = torch.tensor(layer.multiplier, dtype=torch.float64) * 2.0 ** -torch.tensor(
            layer.shift, dtype=torch.float64)
        self.register_buffer("ratio", ratio)

    def quantize(self, x):
        """Integers of the input in -127 to 127, as float64."""
        steps = x.double() / (self.input_scale * self.column_factor) - self.input_zero
        return (steps + 0.5).floor().clamp(-ACTIVATION_MAX, ACTIVATION_MAX)

    def integers(self, x):
        """Output integers in -127 to 127, as float64, of input integers of shape (..., K)."""
        sums = (x.to(self.weight.dtype) @ self.weight.T).double() + self.bias
        # A 32-bit sum times a 16-bit multiplier has 48 bits, so this is exact in float64.
        return (sums * self.ratio + 0.5).floor().clamp(-ACTIVATION_MAX, ACTIVATION_MAX)

    def forward(self, x):
        y = self.integers(self.quantize(x)) * (self.output_scale * self.row_factor) + self.output_center
        return y.to(x.dtype)


def to_quantized_model(bundle):
    """The bundle's model with every linear layer of the encoder replaced by its integer twin.

    What is not linear (attention, GELU, LayerNorm, embeddings, head) stays float32.
    """
    model = to_model(bundle)
    encoder = encoder_of(model)
    for name, layer in bundle.layers.items():
        encoder.set_submodule(module_path(model, name), QuantizedLinear(layer, bundle.folding(name)))
    return model.eval()
