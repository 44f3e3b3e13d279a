"""A model that becomes another one behind its name, and texts that wait until somebody decides."""

import json

import numpy as np
import pytest

from ingestor.core.errors import ServiceUnavailable, Undecided
from ingestor.core.model import Recipe
from ingestor.engine.gate import (
    CHECK_SECONDS,
    SAME_COSINE,
    SAMPLE_NOTE,
    SAMPLE_TEXT,
    UNDECIDED_NOTE,
    Gate,
    undecided,
)
from ingestor.ports import Vector
from tests import embedding_server
from tests.doubles_ledger import MemoryLedger
from tests.doubles_runtime import FakeRuntime

RECIPE = Recipe("openai", "m", 64)


class Model:
    """Gives the sample a vector, and counts how often it is asked."""

    def __init__(self) -> None:
        self.vector: Vector = np.random.default_rng(7).normal(size=64).astype(np.float32)
        self.asked = 0
        self.error: ServiceUnavailable | None = None

    async def sample(self, text: str) -> Vector:
        assert text == SAMPLE_TEXT
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.vector


@pytest.fixture
def model() -> Model:
    return Model()


def gate_of(model: Model, ledger: MemoryLedger, runtime: FakeRuntime, recipe: Recipe = RECIPE) -> Gate:
    return Gate(ledger, runtime.lane("ledger"), runtime, recipe, model.sample)


def test_the_sample_of_the_server_of_the_tests_is_the_product_s() -> None:
    assert embedding_server.SAMPLE_TEXT == SAMPLE_TEXT


async def test_a_model_is_asked_at_the_start_and_once_a_day(model: Model) -> None:
    ledger, runtime = MemoryLedger(), FakeRuntime()
    gate = gate_of(model, ledger, runtime)
    for _ in range(5):
        assert await gate.held() is None
    assert model.asked == 1
    await runtime.sleep(CHECK_SECONDS)
    assert await gate.held() is None
    assert model.asked == 2
    assert await gate_of(model, ledger, runtime).held() is None
    assert model.asked == 3


async def test_what_jitters_is_the_same_model_and_what_turns_is_another(model: Model) -> None:
    ledger, runtime = MemoryLedger(), FakeRuntime()
    await gate_of(model, ledger, runtime).held()
    whole = model.vector
    scale = float(np.abs(whole).max()) / 127
    for jittered in (whole.astype(np.float16), np.round(whole / scale) * scale, whole * 3):
        model.vector = jittered.astype(np.float32)
        assert await gate_of(model, ledger, runtime).held() is None
    model.vector = np.roll(whole, 1)
    held = await gate_of(model, ledger, runtime).held()
    assert isinstance(held, Undecided)
    assert "another model answers to the name m" in str(held)
    assert "ingestor rebuild" in held.remedy
    assert "ingestor approve" in held.remedy
    model.vector = whole
    assert isinstance(await gate_of(model, ledger, runtime).held(), Undecided), "somebody has to decide all the same"
    assert SAME_COSINE < 1


async def test_another_length_is_another_model_and_another_recipe_is_compared_with_its_own(model: Model) -> None:
    ledger, runtime = MemoryLedger(), FakeRuntime()
    await gate_of(model, ledger, runtime, Recipe("openai", "m", 0)).held()
    model.vector = np.ones(32, dtype=np.float32)
    assert await gate_of(model, ledger, runtime, Recipe("openai", "n", 0)).held() is None
    model.vector = np.ones(64, dtype=np.float32)
    assert "64 dimensions, and had 32" in str(await gate_of(model, ledger, runtime, Recipe("openai", "n", 0)).held())


async def test_a_decision_opens_the_gate_and_takes_the_model_of_that_day_for_the_right_one(model: Model) -> None:
    ledger, runtime = MemoryLedger(), FakeRuntime()
    gate = gate_of(model, ledger, runtime)
    await gate.held()
    model.vector = np.roll(model.vector, 1)
    await runtime.sleep(CHECK_SECONDS)
    assert isinstance(await gate.held(), Undecided)
    for note in (UNDECIDED_NOTE, SAMPLE_NOTE):
        ledger.set_note(note, "")
    assert await gate.held() is None
    kept = json.loads(ledger.note(SAMPLE_NOTE) or "{}")
    assert kept
    assert await gate.held() is None
    assert model.asked == 3


async def test_a_sample_without_an_answer_holds_nobody_up_and_is_asked_for_again_soon(model: Model) -> None:
    ledger, runtime = MemoryLedger(), FakeRuntime()
    gate = gate_of(model, ledger, runtime)
    model.error = ServiceUnavailable("away")
    for _ in range(3):
        assert await gate.held() is None
    assert model.asked == 1
    await runtime.sleep(60)
    model.error = None
    await gate.held()
    assert model.asked == 2
    assert ledger.note(SAMPLE_NOTE)


async def test_what_was_left_undecided_stays_so_over_a_start_and_asks_nobody(model: Model) -> None:
    ledger, runtime = MemoryLedger(), FakeRuntime()
    ledger.set_note(UNDECIDED_NOTE, undecided("it costs much", "agree"))
    held = await gate_of(model, ledger, runtime).held()
    assert held is not None
    assert held.sentence == "it costs much - agree"
    assert model.asked == 0
