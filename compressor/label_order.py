"""The order of a classifier's labels: models from elsewhere may have a task's labels in another order."""

import torch

from compressor.reload import architecture_of


def label_order(found, wanted):
    """Which of the outputs ``found`` stands for each label of ``wanted``.

    Names that differ in capitals, spaces and punctuation alone are the same. Where the names are
    others, or none (``LABEL_0``), outputs are taken to be in order.

    Parameters
    ----------
    found, wanted : sequences of str

    Returns
    -------
    list of int

    Examples
    --------
    >>> label_order(["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], ["entailment", "neutral", "contradiction"])
    [2, 1, 0]
    >>> label_order(["LABEL_0", "LABEL_1"], ["negative", "positive"])
    [0, 1]
    """
    found, wanted = ([_plain(name) for name in names] for names in (found, wanted))
    if sorted(found) != sorted(wanted):
        return list(range(len(wanted)))
    return [found.index(name) for name in wanted]


def reorder_labels(model, found, wanted):
    """Put a classifier's outputs, named ``found``, into the order ``wanted``, and name them so."""
    order = label_order(found, wanted)
    if order == sorted(order):
        return
    head = model.get_submodule(architecture_of(model).classifier)
    with torch.no_grad():
        head.weight.copy_(head.weight[order])
        head.bias.copy_(head.bias[order])
    model.config.id2label = dict(enumerate(wanted))
    model.config.label2id = {name: number for number, name in enumerate(wanted)}


def label_names(config):
    """Names of a model's outputs, in their order: list of str."""
    return [name for _, name in sorted(config.id2label.items())]


def _plain(name):
    return "".join(letter for letter in name.lower() if letter.isalnum())
