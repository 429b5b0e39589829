"""Drives the streams of a component in Amaranth's simulator."""

from amaranth.sim import Simulator


def simulate(dut, *testbenches, background=()):
    """Run testbenches to their end, beside background ones."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    for process in background:
        simulator.add_testbench(process, background=True)
    for process in testbenches:
        simulator.add_testbench(process)
    simulator.run()


def pattern(rng, share):
    """Endless coin flips: true in about ``share`` of the calls."""
    def flip():
        return bool(rng.random() < share)
    return flip


def always():
    return True


async def send(ctx, stream, payloads, offer=always):
    """Send payloads; ``offer()`` tells, cycle by cycle, whether the next one is offered."""
    payload = stream.payload.as_value() if hasattr(stream.payload, "as_value") else stream.payload
    for value in payloads:
        while not offer():
            await ctx.tick()
        ctx.set(stream.valid, 1)
        ctx.set(payload, value)
        accepted = 0
        while not accepted:
            _, _, accepted = await ctx.tick().sample(stream.ready)
        ctx.set(stream.valid, 0)


async def receive(ctx, stream, count, accept=always):
    """List of (cycle, payload); ``accept()`` tells, cycle by cycle, whether ready is given."""
    received, cycle, held = [], 0, None
    while len(received) < count:
        ready = accept()
        ctx.set(stream.ready, ready)
        payload = stream.payload.as_value() if hasattr(stream.payload, "as_value") else stream.payload
        _, _, valid, value = await ctx.tick().sample(stream.valid, payload)
        assert held is None or (valid and value == held), "a payload was taken back or changed"
        held = value if valid and not ready else None
        if valid and ready:
            received.append((cycle, value))
        cycle += 1
        assert cycle < 20000, f"only {len(received)} of {count} payloads came"
    ctx.set(stream.ready, 0)
    return received
