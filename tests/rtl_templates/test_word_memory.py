"""Word memory: latency and choice of the bank on both ports."""

import numpy as np
import pytest

from rtl_templates.word_memory import BANK_WORDS, WordMemory
from tests.rtl_templates.stream_bench import simulate

WIDTH = 24


@pytest.mark.parametrize("depth", [1, 40, BANK_WORDS, 2 * BANK_WORDS + 3])
def test_both_ports_against_a_model(depth):
    """Addresses at the ends of the banks, every kind of access in every order, all words read back."""
    rng = np.random.default_rng(depth)
    dut = WordMemory(WIDTH, depth)
    ends = [end + offset for end in range(0, depth + BANK_WORDS, BANK_WORDS) for offset in range(-3, 4)]
    addresses = sorted({address for address in ends if 0 <= address < depth})
    checked = {"word": 0, "shared_word": 0}

    async def testbench(ctx):
        model, due = {}, {}
        for cycle in range(1500):
            target, source = (int(rng.choice(addresses)) for _ in range(2))
            write, value = bool(rng.random() < 0.4), int(rng.integers(1 << WIDTH))
            ctx.set(dut.address, source)
            ctx.set(dut.shared_address, target)
            ctx.set(dut.write, write)
            ctx.set(dut.data, value)
            reads = [("word", source)] if not write or source != target else []
            reads += [] if write else [("shared_word", target)]
            due[cycle + dut.LATENCY] = [(port, model[address]) for port, address in reads if address in model]
            for port, expected in due.pop(cycle, ()):
                assert ctx.get(getattr(dut, port)) == expected
                checked[port] += 1
            if write:
                model[target] = value
            await ctx.tick()
        assert set(model) == set(addresses)

    simulate(dut, testbench)
    assert min(checked.values()) > 500
