"""What measured ports count. That they do what the ports behind them do is held by `tests/contract`."""

import asyncio

import numpy as np
import pytest

from ingestor.adapters.runtime import SystemRuntime
from ingestor.core.errors import CHROMA, RateLimited, ServiceUnavailable
from ingestor.core.model import Record
from ingestor.engine.measured import OPERATIONS, MeasuredEmbedder, MeasuredSink
from ingestor.ports import Sink
from tests.doubles_embedder import HashEmbedder
from tests.doubles_sink import MemorySink

RECORD = Record("d:1", "text", {"source": "a.txt"}, "t")


def calls_of(sink: MeasuredSink) -> dict[str, int]:
    return {operation: sum(spread.counts) for operation, spread in sink.seconds.items() if any(spread.counts)}


def test_every_operation_of_the_port_is_measured() -> None:
    operations = {name for name in vars(Sink) if not name.startswith("_")} - {"collection_id", "ours"}
    assert operations == set(OPERATIONS)


def test_calls_of_a_sink_are_counted_by_operation_whatever_their_end() -> None:
    memory = MemorySink(dimensions=2)
    sink = MeasuredSink(memory, SystemRuntime())
    sink.add([RECORD], np.array([[1, 0]], dtype=np.float32))
    sink.count()
    memory.fail("drop", ServiceUnavailable("away"))
    with pytest.raises(ServiceUnavailable) as caught:
        sink.drop(["d:1"])
    assert caught.value.service == CHROMA
    assert calls_of(sink) == {"add": 1, "count": 1, "drop": 1}
    assert sink.failures == {"ServiceUnavailable": 1}


async def test_calls_of_an_embedder_are_counted_and_their_failures_by_class() -> None:
    double = HashEmbedder()
    embedder = MeasuredEmbedder(double, SystemRuntime(), "http://localhost:1/v1")
    await embedder.embed(["one"])
    double.faults.append(RateLimited("slow down"))
    with pytest.raises(RateLimited) as caught:
        await embedder.embed(["two"])
    assert caught.value.service == "http://localhost:1/v1"
    assert sum(embedder.seconds.counts) == 2
    assert embedder.failures == {"RateLimited": 1}


async def test_a_call_that_is_cancelled_has_not_failed() -> None:
    double = HashEmbedder()
    double.gate = asyncio.Event()
    embedder = MeasuredEmbedder(double, SystemRuntime(), "http://localhost:1/v1")
    call = asyncio.create_task(embedder.embed(["one"]))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    assert embedder.failures == {}
