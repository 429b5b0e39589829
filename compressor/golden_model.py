"""The golden model of a bundle from words to logits: host part in float, whole encoder in integers."""

from dataclasses import dataclass

import numpy as np

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
        if not bundle.operators:
            raise ValueError("the bundle has no operators; export it without --linear-only")
        scales = bundle.operators[SCALES_PATH]
        host = BertHost.from_state_dict(
            bundle.host["state_dict"], config=bundle.model["config"],
            encoder_input=ActivationScales.from_dict(scales, "input"),
            encoder_output=ActivationScales.from_dict(scales, "output"))
        return cls(host=host, encoder=bundle.encoder)

    def inputs(self, batch):
        """What the encoder gets.

        Parameters
        ----------
        batch : dict of int64 tensors, shape (sentences, tokens)
            ``input_ids``, ``token_type_ids`` (or none), ``attention_mask``; padding on the right.

        Returns
        -------
        x : int8 array, shape (sentences, tokens, hidden)
        lengths : int64 array, shape (sentences,)
            Valid tokens.
        """
        ids = np.asarray(batch["input_ids"])
        types = batch.get("token_type_ids")
        x = self.host.embed(ids, None if types is None else np.asarray(types))
        return x, np.asarray(batch["attention_mask"]).sum(axis=1)

    def logits(self, batch):
        """Logits of a batch, float64, shape (sentences, labels); see :meth:`inputs`."""
        x, lengths = self.inputs(batch)
        return self.host.classify(self.encoder.compute(x, lengths))
