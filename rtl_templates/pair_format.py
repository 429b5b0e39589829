"""Widths of two lanes' sums in one word. Numbers alone: specs read them where amaranth is not installed."""

LOW_BITS = 18
"""Place of the high lane in the word: at least 17, so that one K-step's sum of the low lane fits below."""

SUM_BITS = (LOW_BITS + 1, 30)
"""Least and most bits of a sum: one wrap to count, and what is left of 48 bits for the high lane."""
