"""The order of training rows: shuffled, with rows of similar length side by side."""

import numpy as np
from torch.utils.data import Sampler

_BATCHES_IN_GROUP = 50


class LengthGroupedSampler(Sampler):
    """Row indices for batches of similar length: less padding, so fewer tokens to compute.

    Rows are shuffled, sorted by length within groups of 50 batches, and the batches shuffled. The
    order depends on seed and epoch alone: an interrupted run finds it again.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of every row.
    batch : int
        Rows in a batch.
    seed : int
    """

    def __init__(self, lengths, *, batch, seed):
        self.lengths = np.asarray(lengths)
        self.batch = batch
        self.seed = seed
        self.epoch = 0

    def __len__(self):
        return len(self.lengths)

    def __iter__(self):
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        group = self.batch * _BATCHES_IN_GROUP
        for start in range(0, len(order), group):
            part = order[start:start + group]
            order[start:start + group] = part[np.argsort(self.lengths[part], kind="stable")]
        whole = len(order) // self.batch
        batches = order[:whole * self.batch].reshape(whole, self.batch)
        rng.shuffle(batches)
        yield from batches.reshape(-1).tolist()
        yield from order[whole * self.batch:].tolist()
