"""The driver on simulated hardware: predictions and hidden states of the golden model, and every error."""

import subprocess
import sys

import numpy as np
import pytest

from compressor.bundle import load_bundle
from compressor.reload import encode, to_tokenizer
from hwgen.build_directory import BuildError
from hwgen.driver import (
    Accelerator,
    DeviceError,
    DriverError,
    InputTooLongError,
    RunTimeoutError,
    WrongBitstreamError,
)
from hwgen.driver.run_image import RunImage
from hwgen.plan import PlanError
from rtl_templates.register_map import Status, address_of
from sim.harness import MemoryTiming, SimulationError
from sim.simulated_device import SimulatedDevice
from tests.bundles import random_activations
from tests.sim.driver_testing import MODEL, PAIRS, SENTENCES, TOKENS, make_built, save_model

LONG = " ".join(["word3"] * TOKENS)
"""With [CLS] and [SEP] two tokens too many."""


@pytest.fixture(scope="module")
def second(tmp_path_factory, driver_build):
    """Another bundle with a build for the same accelerator."""
    return make_built(tmp_path_factory.mktemp("second"), hardware=driver_build.directory, seed=7)


@pytest.fixture
def device(driver_build):
    opened = SimulatedDevice(driver_build.directory)
    yield opened
    opened.close()


@pytest.fixture
def accelerator(driver_build, device):
    with Accelerator(driver_build.directory, device, batch=2) as opened:
        yield opened.load()


def golden_logits(built, sentences):
    batches = encode(to_tokenizer(load_bundle(built.bundle)), sentences, TOKENS)
    return np.concatenate([built.golden.logits(batch) for batch in batches])


def random_inputs(sequences, tokens=TOKENS):
    rng = np.random.default_rng(3)
    x = np.stack([random_activations(tokens, MODEL["hidden"], rng) for _ in range(sequences)])
    return x, rng.integers(1, tokens + 1, sequences)


def test_predictions_are_the_golden_models(driver_build, accelerator):
    """5 sentences in 3 runs."""
    found, expected = accelerator.predict(SENTENCES), golden_logits(driver_build, SENTENCES)
    assert np.array_equal(found.logits, expected)
    assert found.labels.tolist() == expected.argmax(axis=1).tolist()
    assert found.label_names == [("negative", "positive")[label] for label in found.labels]


def test_pairs_of_sentences(driver_build, accelerator):
    assert np.array_equal(accelerator.predict(PAIRS).logits, golden_logits(driver_build, PAIRS))


def test_hidden_states_equal_on_every_word(driver_build, accelerator):
    x, lengths = random_inputs(3)
    expected = driver_build.golden.encoder.compute(x, lengths)
    assert np.array_equal(accelerator.hidden_states(x, lengths), expected)
    counters = accelerator.counters()
    assert 0 < counters["busy_cycles"] < counters["cycles"]


def test_shorter_sequences_are_padded(driver_build, accelerator):
    x, lengths = random_inputs(2, tokens=TOKENS - 4)
    found, expected = accelerator.hidden_states(x, lengths), driver_build.golden.encoder.compute(x, lengths)
    assert found.shape == x.shape
    for one, golden, length in zip(found, expected, lengths, strict=True):
        assert np.array_equal(one[:length], golden[:length])


def test_random_waits_change_nothing(driver_build):
    with Accelerator(driver_build.directory, SimulatedDevice(
            driver_build.directory, timing=MemoryTiming(stalls=3))) as opened:
        found = opened.load().predict(SENTENCES[:2])
    assert np.array_equal(found.logits, golden_logits(driver_build, SENTENCES[:2]))


def test_bundles_one_after_another(driver_build, second, accelerator):
    """The same hardware runs another bundle, from its file or from a build for it, and the first again."""
    for model, golden in ((second.bundle, second), (None, driver_build), (second.directory, second),
                          (driver_build.bundle, driver_build)):
        found = accelerator.load(model).predict(SENTENCES[:2])
        assert np.array_equal(found.logits, golden_logits(golden, SENTENCES[:2]))


def test_an_image_made_from_a_bundle_is_the_builds(driver_build, second):
    made = RunImage.of_bundle(second.bundle, driver_build.directory)
    built = RunImage.of_build(second.directory)
    assert made.program.pack() == built.program.pack()
    assert np.array_equal(made.weights, built.weights)
    assert np.array_equal(made.pool, built.pool)
    assert made.numbers == built.numbers


def test_a_build_loads_without_torch(driver_build):
    script = ("import sys, hwgen.driver; from hwgen.driver.run_image import RunImage; "
              f"RunImage.of_build({str(driver_build.directory)!r}); "
              "print({'torch', 'amaranth', 'transformers', 'jinja2'} & set(sys.modules))")
    assert subprocess.run([sys.executable, "-c", script], check=True, text=True,
                          capture_output=True).stdout == "set()\n"


def test_another_bitstream(driver_build, other_driver_build, accelerator):
    """The configuration register tells; the accelerator stays usable."""
    configurations = [RunImage.of_build(one.directory).configuration
                      for one in (other_driver_build, driver_build)]
    expected = r"is for configuration {:08x}, the device has {:08x}: load".format(*configurations)
    with pytest.raises(WrongBitstreamError, match=expected):
        accelerator.load(other_driver_build.directory)
    accelerator.predict(SENTENCES[:1])
    device = SimulatedDevice(driver_build.directory)
    with pytest.raises(WrongBitstreamError, match=expected):
        Accelerator(other_driver_build.directory, device)
    assert device.process.poll() is not None  # closed with the accelerator that could not be


def test_no_accelerator(driver_build, device):
    device.read = lambda address: 0
    with pytest.raises(WrongBitstreamError, match="register id reads 0x00000000, an accelerator's 0x4e"):
        Accelerator(driver_build.directory, device)


def test_another_register_map(driver_build, device):
    read = device.read
    device.read = lambda address: 1 if address == address_of("version") else read(address)
    with pytest.raises(WrongBitstreamError, match="version 1 of the register map; this driver knows 2"):
        Accelerator(driver_build.directory, device)


def test_a_bundle_that_does_not_fit(accelerator, tmp_path):
    large = save_model(tmp_path / "large.pt", hidden=32, heads=4)
    with pytest.raises(PlanError, match="it needs 32 hidden channels; this accelerator has 16"):
        accelerator.load(large)
    accelerator.predict(SENTENCES[:1])


def test_long_sentences(driver_build, accelerator):
    with pytest.raises(InputTooLongError, match=r"sentence 1 has 13 tokens; the program .* takes 11"):
        accelerator.predict([SENTENCES[0], LONG])
    found = accelerator.predict([LONG], truncate=True)
    assert np.array_equal(found.logits, golden_logits(driver_build, [LONG]))
    x, lengths = random_inputs(1, tokens=TOKENS + 1)
    with pytest.raises(InputTooLongError, match="x has 12 tokens"):
        accelerator.hidden_states(x, lengths)


@pytest.mark.parametrize(("change", "message"), [
    (lambda x, lengths: (x[..., :8], lengths), r"x has shape \[2, 11, 8\]; \(sequences, tokens, 16\)"),
    (lambda x, lengths: (x, lengths * 0), "lengths must be 2 numbers of 1 to 11 tokens"),
    (lambda x, lengths: (x.astype(int) + 300, lengths), "integers of -127 to 127"),
    (lambda x, lengths: (x * 0.5, lengths), "integers of -127 to 127"),
    (lambda x, lengths: (x[:0], lengths[:0]), "x has shape"),
])
def test_bad_words(accelerator, change, message):
    with pytest.raises(ValueError, match=message):
        accelerator.hidden_states(*change(*random_inputs(2)))


@pytest.mark.parametrize("sentences", [[], "one string"])
def test_bad_sentences(accelerator, sentences):
    with pytest.raises(ValueError, match="sentences must be a list of one or more"):
        accelerator.predict(sentences)


def test_nothing_is_loaded(driver_build, device):
    with Accelerator(driver_build.directory, device) as opened, \
            pytest.raises(DriverError, match=r"no bundle is loaded; call load\(\) first"):
        opened.predict(SENTENCES)


def test_a_device_error(driver_build, device, accelerator):
    """A weight stream that is none: the status with its text. Loaded again, the next run is right."""
    accelerator.predict(SENTENCES[:1])
    weights = device.read(address_of("weights_low")) | device.read(address_of("weights_high")) << 32
    device.request(f"put {weights} 16", bytes(16 * [255]))
    with pytest.raises(DeviceError, match=r"status 11 at descriptor \d+: BAD_PACKET: the") as caught:
        accelerator.predict(SENTENCES[:1])
    assert caught.value.status is Status.BAD_PACKET
    found = accelerator.load().predict(SENTENCES[:1])
    assert np.array_equal(found.logits, golden_logits(driver_build, SENTENCES[:1]))


def test_a_timeout(driver_build, device):
    """1 us is 200 cycles. The run goes on; until it is over, nothing else starts."""
    with Accelerator(driver_build.directory, device, timeout_s=1e-6) as opened:
        opened.load()
        with pytest.raises(RunTimeoutError, match=r"within 1e-06 s: RUNNING: .* of 23 after [2-3]\d\d "):
            opened.predict(SENTENCES[:1])
        with pytest.raises(DriverError, match="still running"):
            opened.predict(SENTENCES[:1])
        with pytest.raises(DriverError, match="still running"):
            opened.load()
        assert device.wait(1)
        with pytest.raises(RunTimeoutError):
            opened.predict(SENTENCES[:1])


def test_memory_beyond_the_buffers(device):
    """The simulated device keeps what a real one would not notice: buffers have ends."""
    buffer = device.allocate(100, "input")
    device.request(f"put {buffer.address + 96} 8", bytes(8))  # up to a whole beat
    with pytest.raises(SimulationError, match="no buffer holds 8 bytes at"):
        device.request(f"put {buffer.address + 100} 8", bytes(8))
    buffer.invalidate()
    assert buffer.array[:96].tolist() == [128] * 96
    buffer.free()
    with pytest.raises(SimulationError, match="nothing is allocated at"):
        buffer.free()


def test_a_simulator_that_has_ended(device):
    device.close()
    with pytest.raises(SimulationError, match="the simulator has ended"):
        device.read(0)


def test_where_a_build_is_looked_for(driver_build, tmp_path):
    with pytest.raises(BuildError, match="is not a build and lies in none"):
        Accelerator(tmp_path)
    with pytest.raises(ValueError, match=r"is no bitstream \(.bit, .xclbin\); give one, or a device"):
        Accelerator(driver_build.directory)
    for changes in ({"batch": 0}, {"batch": 1025}, {"timeout_s": 0}):
        with pytest.raises(ValueError, match=next(iter(changes))):
            Accelerator(driver_build.directory, **changes)
