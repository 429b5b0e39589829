"""The built-in task ``synthetic``: short made-up reviews, judged on one aspect. No downloads.

A review speaks of two or three aspects, one clause each, in random order: noun, modifier, adjective.
It opens with the aspect that counts. The label is that adjective's polarity, turned round by a
negating modifier (3 in 10)::

    about service : waiter hardly rude , dishes very stale , bill quite fair    -> positive

Words alone do not tell the label: the opening picks the clause and the modifier must meet its own
adjective (attention), and negation is an exclusive-or (feed-forward layer). A linear model of word
counts gets about 6 in 10 right.
"""

import numpy as np

LABELS = ("negative", "positive")

_NOUNS = {
    "food": ("dishes", "soup", "dessert", "pasta", "bread"),
    "service": ("waiter", "staff", "host", "cook", "manager"),
    "price": ("bill", "menu", "drinks", "lunch", "wine"),
}
_ADJECTIVES = {
    "food": (("bland", "stale", "cold", "burnt"), ("tasty", "fresh", "warm", "juicy")),
    "service": (("rude", "slow", "careless", "gruff"), ("friendly", "quick", "kind", "polite")),
    "price": (("steep", "inflated", "unfair", "absurd"), ("cheap", "fair", "modest", "sensible")),
}
_MODIFIERS = (("very", "quite", "really", "truly"), ("not", "hardly", "never", "barely"))


def generate(count, seed):
    """Rows with the field names of a GLUE task: ``sentence``, ``label`` and ``idx``.

    Deterministic: the same count and seed give the same rows on every machine.

    >>> generate(1, seed=3)[0]["sentence"].split()[0]
    'about'
    """
    rng = np.random.default_rng([seed, count])
    return [{**_review(rng), "idx": index} for index in range(count)]


def vocabulary():
    """Every word of the task, sorted."""
    adjectives = (side for pair in _ADJECTIVES.values() for side in pair)
    groups = (*_NOUNS.values(), *_MODIFIERS, *adjectives)
    return sorted({"about", ":", ",", *_NOUNS, *(word for group in groups for word in group)})


def _review(rng):
    aspects = [list(_NOUNS)[i] for i in rng.permutation(len(_NOUNS))]
    subject = aspects[rng.integers(len(aspects))]
    if rng.integers(2):  # reviews of two lengths, so that batches need padding
        aspects.remove(next(aspect for aspect in aspects if aspect != subject))
    clauses = []
    for aspect in aspects:
        polarity, negated = int(rng.integers(2)), int(rng.random() < 0.3)
        if aspect == subject:
            label = polarity ^ negated
        clauses.append(" ".join((_pick(rng, _NOUNS[aspect]), _pick(rng, _MODIFIERS[negated]),
                                 _pick(rng, _ADJECTIVES[aspect][polarity]))))
    return {"sentence": f"about {subject} : {' , '.join(clauses)}", "label": label}


def _pick(rng, words):
    return words[rng.integers(len(words))]
