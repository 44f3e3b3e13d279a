"""Gate: whether new texts may go to the model, or somebody has to decide first.

A first sync that would cost more than the settings allow without a question closes it, and so does a provider that
gives a sample text another vector than before: another model is behind the name, and its vectors must not be mixed
with those that are there.

Invariant: it stays closed over restarts until somebody decides. What needs no new vector passes it: deletions, renames,
texts that were paid for.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Final

import numpy as np
import structlog

from ingestor.core.errors import IngestorError, TransientError, Undecided
from ingestor.core.fingerprint import vector_key
from ingestor.core.model import Recipe
from ingestor.core.similarity import cosine
from ingestor.ports import Lane, Ledger, Runtime, Vector

UNDECIDED_NOTE: Final = "undecided"
"""What keeps the gate closed: the reason and the remedy as JSON; empty while it is open."""
SAMPLE_NOTE: Final = "model_sample"
"""The vector of the sample, and the recipe that it is of, as JSON."""
COST_APPROVED_NOTE: Final = "cost_approved"
"""Not empty once somebody has agreed to what the first sync costs."""
SAMPLE_TEXT: Final = "The folder is the collection. 文件夹就是集合。"
CHECK_SECONDS: Final = 24 * 3600.0
"""Between two samples, each of a dozen tokens."""
SAME_COSINE: Final = 0.99
"""Least cosine of two vectors of one text by one model. One model on other hardware, in other batches or in half
precision stays above 0.9999, in 8 bits above 0.999; two models, even two versions of one, are far below 0.9."""
_AGAIN_SECONDS: Final = 60.0
"""Pause after a sample that got no answer: the calls that follow meet the same, and say so."""
_HELD_SECONDS: Final = 3600.0
"""How long a document that waits at a closed gate is left alone; a decision ends it at once."""

_log = structlog.get_logger(__name__)


class Gate:
    """The gate of one model. `sample` embeds a text, and counts what that costs; None for a model that cannot change.

    Belongs to the event loop; the ledger is asked in its lane.
    """

    def __init__(
        self,
        ledger: Ledger,
        lane: Lane,
        runtime: Runtime,
        recipe: Recipe,
        sample: Callable[[str], Awaitable[Vector]] | None,
    ) -> None:
        self._ledger = ledger
        self._lane = lane
        self._runtime = runtime
        self._recipe = recipe
        self._sample = sample
        self._due_seconds = runtime.monotonic_seconds()
        self._checking = asyncio.Lock()
        self._was_held = False

    async def held(self) -> TransientError | None:
        """Why no new text may be embedded now, if it is so; sees to it that the sample is fresh."""
        try:
            held = await self._noted()
            if held is None:
                if self._was_held:
                    self._due_seconds = self._runtime.monotonic_seconds()  # whatever was decided, of that model
                if await self.check_model():
                    held = await self._noted()
        except TransientError as error:
            return error  # of the ledger: what nobody can look up is not taken for leave
        self._was_held = held is not None
        return held

    async def watch_model(self) -> None:
        """Check the model now and once a day, also while nothing is to be embedded, until cancelled."""
        while True:
            try:
                if await self._noted() is None:
                    await self.check_model()
            except TransientError as error:
                _log.warning("model.not_checked", reason=str(error), remedy=error.remedy)
            await self._runtime.sleep(max(_AGAIN_SECONDS, self._due_seconds - self._runtime.monotonic_seconds()))

    async def check_model(self) -> bool:
        """Compare the vector of the sample with the one that is kept, if that is due; returns whether it was compared.

        Raises what the ledger raises.

        A sample that gets no answer holds nobody up: the calls that follow meet the same fault, and deal with it.
        """
        async with self._checking:
            if self._sample is None or self._runtime.monotonic_seconds() < self._due_seconds:
                return False
            self._due_seconds = self._runtime.monotonic_seconds() + _AGAIN_SECONDS
            try:
                vector = await self._sample(SAMPLE_TEXT)
            except IngestorError as error:
                _log.info("model.not_sampled", reason=str(error))
                return False
            await self._compare(vector)
            self._due_seconds = self._runtime.monotonic_seconds() + CHECK_SECONDS
            return True

    async def _compare(self, vector: Vector) -> None:
        """Close the gate for a vector that another model has made; keep the first one."""
        key = vector_key(self._recipe, SAMPLE_TEXT).hex()
        note = await self._lane.run(self._ledger.note, SAMPLE_NOTE)
        kept = json.loads(note) if note else {}
        if kept.get("key") != key:
            encoded = base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
            await self._lane.run(self._ledger.set_note, SAMPLE_NOTE, json.dumps({"key": key, "vector": encoded}))
            return
        before = np.frombuffer(base64.b64decode(kept["vector"]), dtype="<f4")
        if len(before) == len(vector):
            likeness = float(cosine(before, vector[np.newaxis])[0])
            if likeness >= SAME_COSINE:
                return
            how = f"its vector of a sample text has a cosine of {likeness:.3f} to the one before"
        else:
            how = f"its vectors have {len(vector)} dimensions, and had {len(before)}"
        reason = f"another model answers to the name {self._recipe.model}: {how}"
        remedy = (
            "go back to the former model, or name the new one in embedding.model and run `ingestor rebuild`; "
            "`ingestor approve` accepts that both are mixed"
        )
        await self._lane.run(self._ledger.set_note, UNDECIDED_NOTE, undecided(reason, remedy))
        _log.error("model.changed", reason=reason, remedy=remedy)

    async def _noted(self) -> Undecided | None:
        return held_by(await self._lane.run(self._ledger.note, UNDECIDED_NOTE))


def undecided(reason: str, remedy: str) -> str:
    """The note that closes the gate."""
    return json.dumps({"reason": reason, "remedy": remedy})


def held_by(note: str | None) -> Undecided | None:
    """What a note says that somebody has to decide."""
    if not note:
        return None
    told = json.loads(note)
    return Undecided(told["reason"], remedy=told["remedy"], retry_after_seconds=_HELD_SECONDS)
