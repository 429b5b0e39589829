"""Choice of int8 scales from samples of float tensors. NumPy only.

Every choice minimizes the mean square error that quantization adds to the sample.
"""

from dataclasses import dataclass

import numpy as np

from compressor.intops import ACTIVATION_MAX, saturate
from compressor.intops.gelu import gelu

EXPONENT_MAX = 3
"""Largest exponent of an activation that a linear layer reads: its column of weights grows by 8."""

GELU_LOW = -0.17
"""Just below the least value of GELU."""

GELU_MARGIN = 1.25
"""Room above the largest pre-activation seen in calibration; clipping costs more than a coarser step."""

_SAMPLE_VALUES = 1 << 16
_CLIPS = np.geomspace(1 / 8, 1, 25)


def thin(x, values=_SAMPLE_VALUES):
    """About ``values`` values of an array, whole rows at an even stride, as float64."""
    return x[:: max(1, x.size // values)].astype(np.float64)


def square_error(x, step):
    """Mean square error of ``x`` quantized to int8 in steps of ``step``.

    >>> square_error(np.array([0.0, 1.0, 1.25]), 1.0)
    0.020833333333333332
    """
    codes = saturate(np.floor(x / step + 0.5), ACTIVATION_MAX)
    return float(np.square(codes * step - x).mean())


def tensor_scale(sample):
    """Real value of activation 1 for a tensor, from a sample of shape (rows, channels).

    >>> round(tensor_scale(np.linspace(-1.27, 1.27, 255)[:, None]), 6)
    0.01
    """
    largest = float(np.abs(sample).max(initial=0.0))
    if largest == 0:
        return 1.0
    x = thin(sample.reshape(-1))
    return float(min(largest / ACTIVATION_MAX * _CLIPS, key=lambda step: square_error(x, step)))


def exponents_for(base, largest, exponent_max):
    """Least exponents e with ``largest <= 127 * base * 2**e``, 0 to ``exponent_max``, int64.

    >>> exponents_for(0.01, np.array([0.5, 1.28, 100.0]), 3).tolist()
    [0, 1, 3]
    """
    ratio = np.maximum(largest, 1e-30) / (ACTIVATION_MAX * base)
    return np.clip(np.ceil(np.log2(ratio) - 1e-9), 0, exponent_max).astype(np.int64)


def channel_scales(sample, largest, exponent_max=EXPONENT_MAX):
    """Scales of a tensor whose channels may differ by powers of two.

    Parameters
    ----------
    sample : float array, shape (rows, channels)
    largest : float array, shape (channels,)
        Largest magnitude seen in each channel.

    Returns
    -------
    scale : float
    exponents : int64 array, shape (channels,)
        Activation 1 of a channel means ``scale * 2**exponent``.

    >>> x = np.array([[1.27, 10.16], [-1.27, -10.16]])
    >>> scale, exponents = channel_scales(x, np.abs(x).max(axis=0))
    >>> round(scale, 6), exponents.tolist()
    (0.01, [0, 3])
    """
    top = float(largest.max())
    if top == 0:
        return 1.0, np.zeros(len(largest), np.int64)
    bases = top / ACTIVATION_MAX * np.geomspace(1, 2.0 ** -(exponent_max + 2), 8 * exponent_max + 17)
    _, base, exponents = _best_exponents(thin(sample), largest, ((b, exponent_max) for b in bases))
    return base, exponents


def aligned_scales(sample, largest, reference, spread, shift_max):
    """Scales a power of two away from a reference, for a tensor that is added to another by shifts.

    Parameters
    ----------
    sample, largest
        As for :func:`channel_scales`.
    reference : float
        Scale of the other tensor.
    spread : int
        Largest exponent of the other tensor.
    shift_max : int
        Largest alignment shift: all exponents of both tensors lie in a range of that size.

    Returns
    -------
    power : int
        The scale is ``reference * 2**power``.
    exponents : int64 array, shape (channels,)

    >>> x = np.array([[0.3, 40.0]])
    >>> power, exponents = aligned_scales(x, x[0], 0.01, 2, 7)
    >>> power, exponents.tolist()
    (-2, [0, 7])
    """
    x = thin(sample)
    candidates = ((reference * 2.0**power, shift_max - power + min(0, power))
                  for power in range(spread - shift_max, shift_max + 1))
    _, base, exponents = _best_exponents(x, largest, candidates)
    return round(np.log2(base / reference)), exponents


def _best_exponents(x, largest, candidates):
    """Error, base and exponents of the best of (base, exponent_max), the earlier among near equals."""
    best = None
    for base, exponent_max in candidates:
        for clip in (1.0, 0.7):
            exponents = exponents_for(base, largest * clip, exponent_max)
            error = square_error(x, base * 2.0**exponents)
            if best is None or error < 0.999 * best[0]:
                best = (error, float(base), exponents)
    return best


@dataclass(frozen=True, kw_only=True)
class GeluScales:
    """Arguments of :func:`compressor.intops.gelu.gelu_table`."""

    input_scale: float
    input_center: float
    output_scale: float
    output_zero: int


def gelu_scales(highest):
    """Scales of a GELU table for pre-activations up to ``highest``.

    Inputs below -3.5 saturate there, where GELU is above -0.001; outputs run from -0.17 up.

    >>> scales = gelu_scales(6.0)
    >>> round(scales.input_scale, 4), scales.output_zero
    (0.0433, 121)
    """
    top, low = max(highest * GELU_MARGIN, 0.5), -3.5
    output_scale = (float(gelu(top)) - GELU_LOW) / (2 * ACTIVATION_MAX)
    return GeluScales(
        input_scale=(top - low) / (2 * ACTIVATION_MAX), input_center=(top + low) / 2,
        output_scale=output_scale,
        output_zero=ACTIVATION_MAX - int(np.ceil(-GELU_LOW / output_scale)))


def outlier_channels(highest):
    """Channels that get the second GELU table, so that the squared steps of all channels sum to least.

    Parameters
    ----------
    highest : float array, shape (channels,)
        Largest pre-activation of each channel.

    Returns
    -------
    bool array, shape (channels,)
        The channels with the largest values; at least one channel is not among them.

    >>> outlier_channels(np.array([1.0, 24.0, 1.2, 0.8])).tolist()
    [False, True, False, False]
    """
    order = np.argsort(highest, kind="stable")
    ranges = np.maximum(highest[order], 0.5) - GELU_LOW
    usual = np.arange(1, len(order) + 1)
    cost = usual * ranges**2 + (len(order) - usual) * ranges[-1] ** 2
    outliers = np.ones(len(order), bool)
    outliers[order[: usual[cost <= cost.min()].max()]] = False
    return outliers

