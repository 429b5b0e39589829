"""What the host computes in float around the integer encoder: embeddings before, pooler and classifier after.

NumPy only and one definition, used for the golden model and for the hardware alike, so that both start
from the same integers. Compared with transformers within float32 rounding.
"""

from dataclasses import dataclass

import numpy as np

from compressor.quantization import quantize


def layer_norm(x, weight, bias, epsilon):
    """LayerNorm over the last axis in float64.

    >>> layer_norm(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), 0.0).tolist()
    [[-1.0, 1.0]]
    """
    centered = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centered).mean(axis=-1, keepdims=True)
    return centered / np.sqrt(variance + epsilon) * weight + bias


@dataclass(frozen=True, kw_only=True, eq=False)
class BertHost:
    """Embeddings, pooler and classifier of a BERT classifier.

    Parameters
    ----------
    parameters : dict of str to float array
        The model's parameters outside the encoder layers, named as in its state dict without the
        "bert." prefix: "embeddings.word_embeddings.weight", "pooler.dense.weight", "classifier.bias", ...
    epsilon : float
        ``layer_norm_eps`` of the config.
    input_steps, output_steps : float64 arrays, shape (hidden,)
        Real value of activation 1 of each channel of the encoder's input and output.

    Raises
    ------
    ValueError
        If a parameter is missing.
    """

    parameters: dict
    epsilon: float
    input_steps: np.ndarray
    output_steps: np.ndarray

    def __post_init__(self):
        for name in ("word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight",
                     "LayerNorm.weight", "LayerNorm.bias"):
            if f"embeddings.{name}" not in self.parameters:
                raise ValueError(f"embeddings.{name} is missing from the host's parameters")

    @classmethod
    def from_state_dict(cls, state_dict, *, epsilon, encoder_input, encoder_output):
        """Host part of a state dict of tensors or arrays.

        ``encoder_input`` and ``encoder_output`` are
        :class:`compressor.encoder_quantization.ActivationScales`. Encoder layers are left out.
        """
        plain = {name.removeprefix("bert."): value for name, value in state_dict.items()}
        parameters = {name: np.asarray(value, np.float64) for name, value in plain.items()
                      if not name.startswith("encoder.layer.") and not name.endswith("position_ids")}
        return cls(parameters=parameters, epsilon=epsilon, input_steps=encoder_input.steps,
                   output_steps=encoder_output.steps)

    def embed(self, input_ids, token_type_ids=None):
        """The encoder's input.

        Parameters
        ----------
        input_ids, token_type_ids : int arrays, shape (batch, tokens)
            Token types 0 where left out.

        Returns
        -------
        int8 array, shape (batch, tokens, hidden)
            -127 to 127.

        Raises
        ------
        ValueError
            If there are more tokens than position embeddings.
        """
        input_ids = np.asarray(input_ids)
        token_types = np.zeros_like(input_ids) if token_type_ids is None else np.asarray(token_type_ids)
        p = {name.removeprefix("embeddings."): value for name, value in self.parameters.items()}
        positions = p["position_embeddings.weight"]
        if input_ids.shape[1] > len(positions):
            raise ValueError(f"{input_ids.shape[1]} tokens, but the model has {len(positions)} positions")
        x = (p["word_embeddings.weight"][input_ids] + positions[: input_ids.shape[1]]
             + p["token_type_embeddings.weight"][token_types])
        x = layer_norm(x, p["LayerNorm.weight"], p["LayerNorm.bias"], self.epsilon)
        return quantize(x, self.input_steps)

    def hidden(self, output):
        """Real values of the encoder's integers, float64, shape (batch, tokens, hidden)."""
        return np.asarray(output) * self.output_steps

    def classify(self, output):
        """Logits, float64, shape (batch, labels), of the encoder's integers (batch, tokens, hidden).

        Raises
        ------
        ValueError
            If the model has no pooler or no classifier.
        """
        for name in ("pooler.dense.weight", "classifier.weight"):
            if name not in self.parameters:
                raise ValueError(f"{name} is missing from the host's parameters; "
                                 "this model has no classifier")
        p = self.parameters
        pooled = np.tanh(self.hidden(output)[:, 0] @ p["pooler.dense.weight"].T + p["pooler.dense.bias"])
        return pooled @ p["classifier.weight"].T + p["classifier.bias"]
