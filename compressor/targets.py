"""Which linear layers of an encoder are pruned, and the role each one plays.

Roles come from module objects, not from parts of names: "output.dense" is also the end of
"attention.output.dense". BERT, RoBERTa (same modules) and DistilBERT are known.
"""

from dataclasses import dataclass

from torch import nn

from compressor.architectures import ARCHITECTURES
from compressor.layer_weights import ROLES as ROLE_PATHS

ROLES = tuple(ROLE_PATHS)
"""The six linear layers of an encoder layer, in execution order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetLayer:
    """One linear layer: its role and the module. Its weight is ``(rows, K)``."""

    role: str
    module: nn.Linear


def target_layers(model, roles=ROLES):
    """The linear layers with these roles, in execution order.

    Parameters
    ----------
    model : PreTrainedModel
        With or without a head.
    roles : sequence of str
        From :data:`ROLES`.

    Returns
    -------
    dict of str to TargetLayer
        Keys are module paths relative to the encoder model (``encoder.layer.0.attention.self.query``):
        the same for every head.

    Raises
    ------
    ValueError
        If the model has no encoder layers of a known kind.
    """
    encoder = getattr(model, "base_model", model)
    found = {}
    for path, layer in encoder.named_modules():
        names = _layer_names(layer)
        for role in ROLES if names else ():
            if role in roles:
                full = f"{path}.{names[role]}" if path else names[role]
                found[full] = TargetLayer(role=role, module=layer.get_submodule(names[role]))
    if not found:
        raise ValueError(f"{type(model).__name__} has no encoder layers of a known kind; "
                         "BERT, RoBERTa and DistilBERT models are supported")
    return found


def _layer_names(module):
    for names in (one.linears for one in ARCHITECTURES.values()):
        if all(_has_linear(module, name) for name in names.values()):
            return names
    return None


def _has_linear(module, name):
    for part in name.split("."):
        module = getattr(module, part, None)
        if not isinstance(module, nn.Module):
            return False
    return isinstance(module, nn.Linear)
