"""Small builds for tests of the driver, with the golden model beside them."""

from dataclasses import dataclass
from pathlib import Path

from compressor.bundle import load_bundle, save_bundle
from compressor.golden_model import GoldenModel
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from rtl_templates.array_spec import PoolStorage
from tests.bundles import random_encoder_bundle

TOKENS = 11
REQUEST = PlanRequest(rows=2, lanes=8, bus_bits=64, tokens=TOKENS, storage=PoolStorage.RAM)
MODEL = {"layers": 1, "heads": 2, "hidden": 16, "ffn": 32}
SENTENCES = ["word3 word4 word5", "word7", "word8 word9 word1 word2", "word11 word12", "word2 word2"]
PAIRS = [("word8 word9", "word10 word1 word2"), ("word3", "word4")]


@dataclass(frozen=True)
class Built:
    """A bundle file, its build, and its golden model."""

    bundle: Path
    directory: Path
    golden: GoldenModel


def save_model(path, *, seed=0, **changes):
    """A random bundle file."""
    path.parent.mkdir(exist_ok=True)
    save_bundle(random_encoder_bundle(**{**MODEL, **changes}, seed=seed), path)
    return path


def make_built(folder, *, hardware=None, seed=0, request=REQUEST):
    """A random bundle and its build: RAM pool, R = 2, T = 8, 11 tokens unless said otherwise."""
    path = save_model(folder / "pruned.pt", seed=seed)
    build(path, folder / "build", request, hardware=hardware)
    return Built(path, folder / "build", GoldenModel.of(load_bundle(path)))
