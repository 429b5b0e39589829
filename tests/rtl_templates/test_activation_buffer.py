"""Activation buffer: latencies, priorities, and words that stay where they were put."""

import numpy as np

from rtl_templates.activation_buffer import ActivationBuffer
from tests.rtl_templates.accelerator_reference import small_spec
from tests.rtl_templates.stream_bench import simulate

SPEC = small_spec(activation_words=50)


def test_every_port_under_contention():
    """A model of the memory, with results every fourth cycle at most and random LOAD and STORE."""
    rng = np.random.default_rng(1)
    dut = ActivationBuffer(SPEC)
    model, reads, stores = {}, {}, []
    written = {"result": 0, "load": 0}

    async def testbench(ctx):
        pending, load, store, arriving = {}, None, None, False
        for cycle in range(600):
            # Writes take effect WRITE_LATENCY cycles after they were accepted.
            for address, word in pending.pop(cycle, ()):
                model[address] = word
            busy = {address for writes in pending.values() for address, _ in writes}
            result = cycle % 4 == 1 and rng.random() < 0.7
            if load is None and rng.random() < 0.6:
                load = (int(rng.integers(50)), int.from_bytes(rng.bytes(8), "little"))
            quiet = [a for a in model if a not in busy and (load is None or a != load[0])]
            if store is None and quiet and rng.random() < 0.6:
                store = int(rng.choice(quiet))
            fresh = (int(rng.integers(50)), int.from_bytes(rng.bytes(8), "little"))
            if fresh[0] == store or (load and fresh[0] == load[0]):
                result = False
            if load and load[0] == store:
                store = None
            ctx.set(dut.result.valid, result)
            ctx.set(dut.result.p.address, fresh[0])
            ctx.set(dut.result.p.word, fresh[1])
            ctx.set(dut.load.valid, load is not None)
            if load:
                ctx.set(dut.load.p.address, load[0])
                ctx.set(dut.load.p.word, load[1])
            ctx.set(dut.store.valid, store is not None)
            ctx.set(dut.store.payload, store or 0)
            # A result takes the shared port in the cycle after it came.
            assert ctx.get(dut.load.ready) == (not arriving)
            assert ctx.get(dut.store.ready) == (not arriving and load is None)
            accepted = [fresh] * result + [load] * bool(load and not arriving)
            pending.setdefault(cycle + dut.WRITE_LATENCY, []).extend(accepted)
            written["result"] += result
            written["load"] += len(accepted) - result
            if store is not None and not arriving and load is None:
                stores.append((cycle + dut.STORE_LATENCY, model[store]))
                store = None
            if load and not arriving:
                load = None
            arriving = result
            safe = [a for a in model if a not in busy and a not in [w[0] for w in accepted]]
            if safe:
                address = int(rng.choice(safe))
                ctx.set(dut.read_address, address)
                reads[cycle + dut.READ_LATENCY] = model[address]
            if cycle in reads:
                assert ctx.get(dut.read_word) == reads[cycle]
            if stores and stores[0][0] == cycle:
                assert ctx.get(dut.stored.valid)
                assert ctx.get(dut.stored.payload) == stores.pop(0)[1]
            else:
                assert not ctx.get(dut.stored.valid)
            await ctx.tick()

    simulate(dut, testbench)
    assert min(written.values()) > 50
    assert len(reads) > 300
