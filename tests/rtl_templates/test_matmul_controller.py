"""Matmul controller: the sequence of K-steps, and the only waits it may make."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl_templates.matmul_controller import MatmulController
from tests.rtl_templates.accelerator_reference import small_spec
from tests.rtl_templates.stream_bench import always, pattern, simulate

SPEC = small_spec(units=4, bus_bits=32)


def expected_issues(commands, tiles):
    """(bank, slot, kstep, base, words, first, last) of every K-step, and the passes."""
    issues, passes, number = [], [], 0
    for command in commands:
        first_word = 0
        for _ in range(command["tiles"]):
            words, ksteps = tiles[number]
            for group in range(command["groups"]):
                base = command["source"] + group * command["source_stride"]
                issues += [(number % 2, number % 4, k, base % 128, words, k == 0, k == ksteps - 1)
                           for k in range(ksteps)]
                destination = command["destination"] + group * command["destination_stride"] + first_word
                passes.append((destination % 128, words, group == command["groups"] - 1))
            first_word += words
            number += 1
    return issues, passes


def run(commands, tiles, tile_share=1.0):
    """Issue times and values, passes, counters."""
    dut = MatmulController(SPEC)
    issues, passes, counts = [], [], {"release": 0, "weight_wait": 0, "drain_wait": 0}
    total = sum(command["groups"] * tiles[i][1] for i, command in enumerate(
        command for command in commands for _ in range(command["tiles"])))

    async def commander(ctx):
        for command in commands:
            for name, value in command.items():
                ctx.set(dut.command.payload[name], value)
            ctx.set(dut.command.valid, 1)
            accepted = False
            while not accepted:
                _, _, accepted = await ctx.tick().sample(dut.command.ready)
            ctx.set(dut.command.valid, 0)

    async def loader(ctx):
        offer = always if tile_share == 1 else pattern(np.random.default_rng(1), tile_share)
        for number, (words, ksteps) in enumerate(tiles):
            while not offer():
                await ctx.tick()
            for name, value in {"bank": number % 2, "slot": number % 4, "last_kstep": ksteps - 1,
                                "words": words}.items():
                ctx.set(dut.tile.payload[name], value)
            ctx.set(dut.tile.valid, 1)
            accepted = False
            while not accepted:
                _, _, accepted = await ctx.tick().sample(dut.tile.ready)
            ctx.set(dut.tile.valid, 0)

    async def watch(ctx):
        cycle = 0
        while len(issues) < total:
            assert cycle < 20000
            _, _, valid, issue, done, finished, *flags = await ctx.tick().sample(
                dut.issue.valid, dut.issue, dut.finished.valid, dut.finished.payload,
                dut.release, dut.weight_wait, dut.drain_wait)
            if valid:
                issues.append((cycle, (issue.bank, issue.slot, issue.kstep, issue.base, issue.words,
                                       bool(issue.first), bool(issue.last))))
            if done:
                assert valid
                passes.append((finished.destination, finished.words, bool(finished.tile_end)))
            for name, flag in zip(counts, flags, strict=True):
                counts[name] += flag
            cycle += 1
        await ctx.tick()
        assert ctx.get(dut.idle)

    simulate(dut, watch, background=[commander, loader])
    return issues, passes, counts


def command(groups, tiles, **fields):
    return {"groups": groups, "tiles": tiles, "source": 3, "destination": 70, "source_stride": 7,
            "destination_stride": 9} | fields


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_sequence(data):
    shares = data.draw(st.sampled_from([1.0, 0.3, 0.05]))
    counts = data.draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3))
    tiles = [(data.draw(st.integers(1, 4)), data.draw(st.sampled_from([1, 2, 5, 16, 24])))
             for _ in range(sum(count for _, count in counts))]
    commands = [command(groups, count, source=10 * i) for i, (groups, count) in enumerate(counts)]
    issues, passes, flags = run(commands, tiles, shares)
    assert ([issue for _, issue in issues], passes) == expected_issues(commands, tiles)
    assert flags["release"] == len(tiles)
    # Results of a pass leave before those of the next come.
    ends = [(cycle, issue[4]) for cycle, issue in issues if issue[6]]
    for (before, words), (after, _) in itertools.pairwise(ends):
        assert after - before >= 4 * words


def test_no_bubbles():
    """K-steps in every cycle across passes, tiles and commands, as long as results leave in time."""
    issues, _, flags = run([command(3, 2), command(2, 1), command(1, 2)],
                           [(4, 16), (3, 24), (4, 17), (2, 18), (1, 16)])
    cycles = [cycle for cycle, _ in issues]
    assert cycles == list(range(cycles[0], cycles[0] + len(cycles)))
    assert flags["drain_wait"] == 0


def test_drain_wait_is_before_the_last_kstep_only():
    """Tiles of 3 K-steps and 4 words: a pass every 16 cycles, its first two K-steps at once."""
    issues, _, flags = run([command(3, 1)], [(4, 3)])
    start = issues[0][0]
    assert [cycle - start for cycle, _ in issues] == [0, 1, 2, 3, 4, 18, 19, 20, 34]
    assert flags["drain_wait"] == 2 * 13


def test_counts_of_a_late_tile():
    _, _, flags = run([command(1, 2)], [(1, 4), (1, 4)], tile_share=0.05)
    assert flags["weight_wait"] > 5
