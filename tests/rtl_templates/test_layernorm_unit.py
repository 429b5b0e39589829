"""LayerNormUnit against the golden IntegerLayerNorm, bit for bit and to the cycle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.intops.layernorm import IntegerLayerNorm
from rtl_templates.layernorm_spec import LayerNormSpec
from rtl_templates.layernorm_unit import LayerNormUnit
from rtl_templates.word_format import pack_words, unpack_words
from tests.rtl_templates.unit_testing import BufferModel, run_commands


def random_norm(rng, hidden, output_shift=None, epsilon=None):
    """A LayerNorm whose outputs mostly neither vanish nor clip, unless other numbers are asked for."""
    shift = int(rng.integers(8, 24)) if output_shift is None else output_shift
    size = min(2.0**15 - 1, 30 * np.sqrt(hidden) * 2.0**(shift - 15))
    gamma = rng.uniform(-size, size, hidden).astype(np.int64)
    beta = rng.uniform(-20, 20, hidden) * 2.0**shift
    return IntegerLayerNorm(
        gamma=gamma, beta=np.clip(beta, 1 - 2**30, 2**30 - 1).astype(np.int64),
        residual_shift=rng.integers(0, 8, hidden), branch_shift=rng.integers(0, 8, hidden),
        output_shift=shift, epsilon=int(2**rng.uniform(0, 30)) if epsilon is None else epsilon)


def random_tokens(rng, tokens, hidden):
    """Tokens of different magnitudes and offsets."""
    center = rng.integers(-100, 101, (tokens, 1))
    spread = rng.integers(0, 128, (tokens, 1))
    return np.clip(center + rng.integers(-spread, spread + 1, (tokens, hidden)), -127, 127)


def check(spec, cases, gap=0, reset_at=None):
    """Run (golden, residual, branch) one after the other, banks in turn; compare words and cycles.

    Tables of the first two are loaded; with ``reset_at`` the first runs once more before all others.
    """
    unit = LayerNormUnit(spec)
    lanes = spec.lanes
    areas, commands, expected = [], [], []
    address = 0
    for index, (golden, residual, branch) in enumerate(cases):
        columns, groups = residual.shape[1] // 4, -(-len(residual) // lanes)
        stride = columns + index % 3
        command = {"groups": groups, "columns": columns, "bank": index % 2}
        for name, values in (("residual", residual), ("branch", branch), ("destination", None)):
            area = np.full((groups, stride, 4 * lanes), 0x5A, np.uint8)
            if values is not None:
                area[:, :columns] = pack_words(values, lanes)
            command |= {name: address, f"{name}_stride": stride}
            address += area.shape[0] * stride
            areas.append(area.reshape(-1, 4 * lanes))
        commands.append(command)
        expected.append(golden.compute(residual, branch))
    buffer = BufferModel(unit, np.concatenate(areas), {"residual_read": "residual_data",
                                                       "branch_read": "branch_data"}, spec.read_latency)
    before = buffer.words.copy()
    tables = [(i % 2, spec.table(golden)) for i, (golden, _, _) in enumerate(cases[:2])]
    again = [] if reset_at is None else commands[:1]
    cycles = run_commands(unit, buffer, again + commands, tables, gap, reset_at)
    assert cycles == [spec.cycles(c["groups"], c["columns"]) for c in commands]
    for command, golden in zip(commands, expected, strict=True):
        columns, groups, stride = command["columns"], command["groups"], command["destination_stride"]
        start = command["destination"]
        area = buffer.words[start:start + groups * stride].reshape(groups, stride, -1)
        got = unpack_words(np.ascontiguousarray(area[:, :columns]), lanes, len(golden))
        wrong = np.argwhere(got != golden)
        assert not len(wrong), (f"{len(wrong)} of {golden.size} values differ; token, channel {wrong[0]}: "
                                f"{got[tuple(wrong[0])]}, expected {golden[tuple(wrong[0])]}")
        assert (area[:, columns:] == 0x5A).all()
        before[start:start + groups * stride] = buffer.words[start:start + groups * stride]
    assert (before == buffer.words).all()  # nothing is written outside the destinations
    if reset_at is None:
        words = sum(c["groups"] * c["columns"] for c in commands)
        assert [len(buffer.written), *map(len, buffer.enabled.values())] == [words] * 3
    if spec.channels < 4:
        assert not set(buffer.enabled["residual_read"]) & set(buffer.enabled["branch_read"])


@pytest.mark.parametrize(("lanes", "channels", "hidden", "read_latency"), [
    (2, 1, 64, 2), (2, 2, 64, 1), (2, 4, 64, 3), (4, 2, 20, 2), (8, 1, 4, 2), (8, 4, 44, 2), (3, 1, 12, 4)])
def test_matches_golden(lanes, channels, hidden, read_latency):
    """Passes shorter and longer than the statistics take, full and partial last groups, both banks."""
    rng = np.random.default_rng(hidden * channels)
    spec = LayerNormSpec(lanes=lanes, columns=hidden // 4, address_bits=12, channels=channels,
                         read_latency=read_latency)
    cases = [(random_norm(rng, hidden), *(random_tokens(rng, tokens, hidden) for _ in range(2)))
             for tokens in (3 * lanes, lanes + 1)]
    check(spec, cases)


def extreme_tokens(lanes, hidden):
    """Residual and branch: equal values, all at either limit, half and half, one outlier, one less."""
    ones = np.ones(hidden, np.int64)
    half = np.where(np.arange(hidden) % 2, 127, -127)
    outlier = np.where(np.arange(hidden) == hidden // 2, 127, -127)
    step = np.where(np.arange(hidden) == 0, 1, 0)
    rows = [(0 * ones, 0 * ones), (127 * ones, 127 * ones), (-127 * ones, -127 * ones),
            (127 * ones, -127 * ones), (half, half), (outlier, outlier), (-outlier, -outlier),
            (step, 0 * ones), (0 * ones, -step),
            (5 * ones, 5 * ones + step)]
    rows += rows[:-len(rows) % lanes]
    return tuple(np.stack(part) for part in zip(*rows, strict=True))


@pytest.mark.parametrize(("hidden", "channels", "epsilon", "output_shift", "gamma", "beta", "shift"), [
    (1024, 4, 1, 24, 32767, 2**30 - 1, 7), (1024, 4, 2**40 - 1, 1, -32767, 1 - 2**30, 7),
    (4, 1, 1, 47, 32767, 2**30 - 1, 0), (4, 2, 1, 23, -32767, 0, 7), (36, 2, 1, 16, 300, 5 << 16, 0)])
def test_extremes(hidden, channels, epsilon, output_shift, gamma, beta, shift):
    """Every width at its limit, zero variance, and variances so small that epsilon decides."""
    lanes = 2
    full = np.full(hidden, 1, np.int64)
    golden = IntegerLayerNorm(gamma=gamma * full, beta=beta * full, residual_shift=shift * full,
                              branch_shift=shift * full, output_shift=output_shift, epsilon=epsilon)
    spec = LayerNormSpec(lanes=lanes, columns=hidden // 4, address_bits=14, channels=channels)
    check(spec, [(golden, *extreme_tokens(lanes, hidden))])


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), columns=st.integers(1, 16), lanes=st.sampled_from([1, 2, 4, 8]),
       channels=st.sampled_from([1, 2, 4]), spare=st.integers(0, 3), gap=st.integers(0, 3))
def test_random_norms(seed, columns, lanes, channels, spare, gap):
    """All shifts and magnitudes; hidden sizes that are no power of two or below the largest of the unit."""
    rng = np.random.default_rng(seed)
    hidden = 4 * columns
    spec = LayerNormSpec(lanes=lanes, columns=columns + spare, address_bits=11, channels=channels,
                         read_latency=int(rng.integers(1, 4)))
    cases = []
    for _ in range(2):
        golden = random_norm(rng, hidden, output_shift=int(rng.integers(1, 48)),
                             epsilon=int(2**rng.uniform(0, 39.9)))
        tokens = int(rng.integers(1, 3 * lanes + 1))
        cases.append((golden, *(random_tokens(rng, tokens, hidden) for _ in range(2))))
    check(spec, cases, gap)


@pytest.mark.parametrize("reset_at", [1, 30, 100])
def test_reset_in_the_middle_is_clean(reset_at):
    """A command dropped in either pass leaves nothing behind."""
    rng = np.random.default_rng(reset_at)
    spec = LayerNormSpec(lanes=2, columns=6, address_bits=8, channels=2)
    cases = [(random_norm(rng, 24), *(random_tokens(rng, 4, 24) for _ in range(2))) for _ in range(2)]
    check(spec, cases, reset_at=reset_at)


@pytest.mark.parametrize(("change", "message"), [
    ({"channels": 3}, "channels must be 1, 2 or 4"), ({"lanes": 0}, "lanes must be 1 to 64, not 0"),
    ({"columns": 257}, "columns must be 1 to 256, not 257"),
    ({"read_latency": 0}, "read_latency must be 1 to 8, not 0")])
def test_spec_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        LayerNormSpec(**{"lanes": 2, "columns": 4, "address_bits": 8} | change)


def test_table_is_checked():
    spec = LayerNormSpec(lanes=2, columns=4, address_bits=8)
    with pytest.raises(ValueError, match="20 channels; the unit holds 16"):
        spec.table(random_norm(np.random.default_rng(0), 20))
    with pytest.raises(TypeError, match="not dict"):
        spec.table({})
