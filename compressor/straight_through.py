"""Integer steps with gradients: exact integers forward, the slope of the unrounded function backward.

The straight-through estimator (Bengio et al., arXiv:1308.3432, section 4): rounding counts as the
identity, saturation passes no gradient beyond its limits. The fake-quantized operators use nothing else.
"""

import torch

from compressor.intops import ACTIVATION_MAX


def requantize(sums, ratio, bias=None):
    """Twin of :func:`compressor.intops.requantize`: ``saturate(floor((sums + bias) * ratio + 1/2))``.

    Exact: a 32-bit sum times a 16-bit multiplier has 48 bits, and float64 holds 53.

    Parameters
    ----------
    sums : float32 or float64 tensor, shape (..., channels)
        Integers of at most 32 bits.
    ratio : float64 tensor, broadcasts against ``sums``
        ``multiplier * 2**-shift``.
    bias : float64 tensor, shape (channels,), optional
        Integers.

    Returns
    -------
    float32 tensor, shape (..., channels)
        Integers in -127 to 127. Gradients flow where the result is not saturated.

    >>> requantize(torch.tensor([3.0, -3.0, 9000.0]), torch.tensor(0.5, dtype=torch.float64)).tolist()
    [2.0, -1.0, 127.0]
    """
    return _Requantize.apply(sums, ratio, bias)


def straight_through(real, value, gain=None):
    """``value`` forward; backward, the gradient times ``gain`` (1 unless given) goes to ``real``.

    >>> x = torch.tensor([0.4, 1.6], requires_grad=True)
    >>> y = straight_through(x, x.detach().round())
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([0.0, 2.0], [1.0, 1.0])
    """
    return _StraightThrough.apply(real, value, gain)


def look_up(x, index, table, slope):
    """``table[index]`` forward; backward, the gradient times ``slope[index]`` goes to ``x``.

    ``x`` and ``index`` have one shape, ``table`` and ``slope`` are float32 of one length.
    """
    return _LookUp.apply(x, index, table, slope)


def power_of_two(exponent):
    """Exact ``2**exponent``, float64, of an integer tensor of -1022 to 1023.

    Made of bits: torch's powers are only within rounding.

    >>> power_of_two(torch.tensor([-3, 0, 40])).tolist()
    [0.125, 1.0, 1099511627776.0]
    """
    return (exponent.long() + 1023 << 52).view(torch.float64)


class _Requantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, sums, ratio, bias):
        exact = sums.double() * ratio if bias is None else (sums + bias).mul_(ratio)
        kept = exact.abs() <= ACTIVATION_MAX + 0.5
        ctx.save_for_backward(kept, ratio, sums if ctx.needs_input_grad[1] else None)
        ctx.bias_dtype = None if bias is None else bias.dtype
        return exact.add_(0.5).floor_().clamp_(-ACTIVATION_MAX, ACTIVATION_MAX).float()

    @staticmethod
    def backward(ctx, grad):
        kept, ratio, sums = ctx.saved_tensors
        grad = grad * kept
        for_sums = grad * ratio.to(grad.dtype)
        for_ratio = None if sums is None else (grad * sums).sum_to_size(ratio.shape).to(ratio.dtype)
        for_bias = for_sums.flatten(0, -2).sum(0).to(ctx.bias_dtype) if ctx.needs_input_grad[2] else None
        return for_sums, for_ratio, for_bias


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, real, value, gain):
        ctx.save_for_backward(gain)
        ctx.dtype = real.dtype
        return value.view_as(value)

    @staticmethod
    def backward(ctx, grad):
        gain, = ctx.saved_tensors
        return (grad if gain is None else grad * gain).to(ctx.dtype), None, None


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, index, table, slope):
        ctx.save_for_backward(index, slope)
        return table[index]

    @staticmethod
    def backward(ctx, grad):
        index, slope = ctx.saved_tensors
        return grad * slope[index], None, None, None
