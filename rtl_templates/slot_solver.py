"""Which multiplier computes which nonzero, for pools whose rows are not balanced.

Every row *owns* n multipliers, as in a balanced unit. A row with fewer nonzeros lends multipliers to
rows with more. For n = 2 a row's first multiplier is lent only to the first borrowing port of another
row, its second only to the second one; that suffices for every pattern with at most 8 nonzeros (rows
that need two get one of each kind, rows that need or lend one may choose), and no port has more
than three candidates: the most that a LUT6 can select *and* add.
"""

from itertools import combinations, permutations, product, zip_longest

import numpy as np

SIZE = 4
"""Rows and columns of a block."""

ADDER_COST, MUX_COST = 17, (0, 0, 4, 8, 8)
"""LUTs of one more term in a row, and of a byte multiplexer by its number of columns."""

STARTS, SWEEPS = 4, 8


def any_pattern_ports(slots):
    """Ports, shape (4 rows, ports, candidates), that serve every pattern of at most 4 * slots nonzeros.

    Own multipliers come first in each pair of ports: the unit gates those for free.

    >>> any_pattern_ports(2)[0]
    ((0,), (2, 4, 6), (1,), (3, 5, 7))
    """
    rows = []
    for row in range(SIZE):
        others = [other for other in range(SIZE) if other != row]
        if slots == 1:
            rows.append(((row,), *((other,) for other in others)))
        elif slots == 2:
            rows.append(tuple(ports for kind in range(2) for ports in
                              ((2 * row + kind,), tuple(2 * other + kind for other in others))))
        else:
            rows.append(tuple((row * slots + j,) for j in range(slots)))
    return tuple(rows)


def usages(counts, slots):
    """All ways to give ``counts[row]`` multipliers to each row, through different ports.

    Yields
    ------
    tuple (4 rows) of tuple of (port, multiplier)
        A row uses its own multipliers; only when all are used does it borrow.
    """
    ports = any_pattern_ports(slots)
    borrowing = {1: (1, 2, 3), 2: (1, 3), 4: ()}[slots]
    options = []
    for row, count in enumerate(counts):
        own = [(q, p[0]) for q, p in enumerate(ports[row]) if q not in borrowing]
        if count <= slots:
            options.append(list(combinations(own, count)))
            continue
        options.append([(*own, *zip(chosen, lent, strict=True))
                        for chosen in combinations(borrowing, count - slots)
                        for lent in product(*(ports[row][q] for q in chosen))])
    for usage in product(*options):
        taken = [m for row in usage for _, m in row]
        if len(set(taken)) == len(taken):
            yield usage


def place_any(mask, slots):
    """Rows and columns of the multipliers for one arbitrary pattern, in the ports of any hardware.

    Parameters
    ----------
    mask : uint8 array, shape (16,) or (4, 4)
        At most 4 * slots ones.

    Returns
    -------
    rows, columns : tuple of int, length 4 * slots
        Row -1 where a multiplier is not used.

    >>> place_any(np.array([1, 1, 1, 0] + [0] * 12), 1)[0]
    (0, 0, 0, -1)
    """
    mask = np.asarray(mask, np.uint8).reshape(SIZE, SIZE)
    if mask.sum() > SIZE * slots:
        raise ValueError(f"a pattern of {mask.sum()} nonzeros does not fit a unit of {SIZE * slots} "
                         f"multipliers; use more slots")
    usage = next(usages(mask.sum(axis=1).tolist(), slots))
    return _rows_and_columns([[m for _, m in row] for row in usage],
                             [np.nonzero(row)[0] for row in mask], slots)


def solve_pool(masks, slots, seed=0):
    """Placement of a fixed pool that keeps ports and multiplexers small.

    Coordinate descent over the entries from a few seeded starts: each entry in turn takes the lending
    and the order of columns that add the fewest LUTs to what the other entries need.

    Parameters
    ----------
    masks : uint8 array, shape (entries, 4, 4)

    Returns
    -------
    rows, columns : tuples, shape (entries, 4 * slots)
    ports : tuple, shape (4 rows, ports, candidates)
        Only what some entry uses.
    """
    rng = np.random.default_rng(seed)
    choices = [[(usage, [np.nonzero(row)[0].tolist() for row in mask])
                for usage in usages(mask.sum(axis=1).tolist(), slots)] for mask in masks]
    best = min((_descend(choices, slots, rng) for _ in range(STARTS)), key=lambda result: result[0])
    placements = best[1]
    rows, columns, ports = [], [], [[set() for _ in row] for row in any_pattern_ports(slots)]
    for usage, ordered in placements:
        used = _rows_and_columns([[m for _, m in row] for row in usage], ordered, slots)
        rows.append(used[0])
        columns.append(used[1])
        for row, taken in enumerate(usage):
            for port, multiplier in taken:
                ports[row][port].add(multiplier)
    return tuple(rows), tuple(columns), tuple(map(_used_ports, ports))


def _used_ports(ports):
    """Ports with candidates; those of one candidate stay at even places, where the unit gates for free."""
    even, odd = ([tuple(sorted(c)) for c in ports[start::2] if c] for start in (0, 1))
    return tuple(c for pair in zip_longest(even, odd) for c in pair if c)


def _descend(choices, slots, rng):
    column_use = np.zeros((SIZE * slots, SIZE), int)
    port_use = np.zeros((SIZE, SIZE, SIZE * slots), int)
    current = [None] * len(choices)

    def count(placement, sign):
        for row, (taken, columns) in enumerate(zip(*placement, strict=True)):
            for (port, multiplier), column in zip(taken, columns, strict=True):
                column_use[multiplier, column] += sign
                port_use[row, port, multiplier] += sign

    for _ in range(SWEEPS):
        moved = False
        for index in rng.permutation(len(choices)):
            if current[index]:
                count(current[index], -1)
            found = min((_best_order(usage, columns, column_use, port_use, rng)
                         for usage, columns in choices[index]), key=lambda result: result[0])[1]
            moved |= found != current[index]
            current[index] = found
            count(found, 1)
        if not moved:
            break
    muxes = sum(MUX_COST[n] for n in (column_use > 0).sum(axis=1))
    terms = int((port_use.sum(axis=2) > 0).sum())
    return ADDER_COST * terms + muxes, current


def _best_order(usage, columns, column_use, port_use, rng):
    """Cost that a usage adds, and the usage with the best order of columns in every row."""
    width = (column_use > 0).sum(axis=1)
    # Rarely used choices cost a little more than common ones, so that they die out.
    rarity = 0.5 / (1 + column_use) + 0.01 * rng.random(column_use.shape)
    added = np.where(column_use > 0, 0, np.take(MUX_COST, np.minimum(width + 1, SIZE))[:, None]
                     - np.take(MUX_COST, width)[:, None]) + rarity
    cost, ordered = 0.0, []
    for row, taken in enumerate(usage):
        for port, multiplier in taken:
            cost += 0 if port_use[row, port].any() else ADDER_COST
            cost += 0.5 / (1 + port_use[row, port, multiplier])
        order = min(permutations(columns[row]),
                    key=lambda order: sum(added[m, c] for (_, m), c in zip(taken, order, strict=True)))
        cost += sum(added[m, c] for (_, m), c in zip(taken, order, strict=True))
        ordered.append(list(order))
    return cost, (usage, ordered)


def _rows_and_columns(multipliers, columns, slots):
    rows, columns_of = [-1] * (SIZE * slots), [0] * (SIZE * slots)
    for row in range(SIZE):
        for multiplier, column in zip(multipliers[row], columns[row], strict=True):
            rows[multiplier], columns_of[multiplier] = row, int(column)
    return tuple(rows), tuple(columns_of)
