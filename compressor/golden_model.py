"""The golden model of a bundle from words to logits: host part in float, whole encoder in integers."""

from dataclasses import dataclass

from compressor.bundle import Bundle
from compressor.encoder_scales import ActivationScales
from compressor.host import BertHost
from compressor.intops.encoder import IntegerEncoder
from compressor.operator_checks import SCALES_PATH


@dataclass(frozen=True, kw_only=True, eq=False)
class GoldenModel:
    """A classifier whose encoder computes what the hardware computes, bit for bit.

    Parameters
    ----------
    host : BertHost
    encoder : IntegerEncoder
    """

    host: BertHost
    encoder: IntegerEncoder

    @classmethod
    def of(cls, bundle):
        """Golden model of a bundle.

        Raises
        ------
        ValueError
            If the bundle has no operators: its linear layers are quantized, its encoder is not.
        """
        return cls(host=host_of(bundle), encoder=bundle.encoder)

    def inputs(self, batch):
        """What the encoder gets, see :meth:`compressor.host.BertHost.inputs`."""
        return self.host.inputs(batch)

    def logits(self, batch):
        """Logits of a batch, float64, shape (sentences, labels); see :meth:`inputs`."""
        x, lengths = self.inputs(batch)
        return self.host.classify(self.encoder.compute(x, lengths))


def host_of(bundle: Bundle) -> BertHost:
    """The host's part of a bundle: :class:`compressor.host.BertHost`.

    Raises
    ------
    ValueError
        If the bundle has no operators: its linear layers are quantized, its encoder is not.
    """
    if not bundle.operators:
        raise ValueError("the bundle has no operators; export it without --linear-only")
    scales = bundle.operators[SCALES_PATH]
    return BertHost.from_state_dict(
        bundle.host["state_dict"], config=bundle.model["config"],
        encoder_input=ActivationScales.from_dict(scales, "input"),
        encoder_output=ActivationScales.from_dict(scales, "output"))
