"""Following: from the watch's hints to queued changes, and the supervision of the watch itself.

The watch is started before the first scan, so that nothing falls between both. Hints settle, then the paths are looked
at, and those that differ from the ledger are queued. Whenever the watch doubts itself, or there are more hints than
`MAX_HINTS` paths, a reconcile of the whole folder takes their place.

Invariant: whatever events are lost, the folder is compared with the ledger at least every `rescan_seconds`.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath

import structlog

from ingestor.core.attaching import SETTINGS_FILE, SIDECAR_END
from ingestor.core.errors import DocumentError, ServiceUnavailable, TransientError
from ingestor.core.model import Change, Doubt, DoubtKind, Glance, Hint, Priority, Stat, Version
from ingestor.core.reconciling import differs
from ingestor.core.settling import GONE_SECONDS, Heard, Settling, unrest_seconds
from ingestor.engine.in_work import InWork, seen
from ingestor.engine.intake import Intake
from ingestor.engine.news import happens_within
from ingestor.engine.reconcile import MAX_TOLD, Reconciler
from ingestor.engine.tally import Tally
from ingestor.ports import Lane, Ledger, Runtime, Source, Watch

MAX_HINTS = 50_000
"""Paths that settle at once; beyond that a scan is cheaper than looking at each."""
SUPERVISE_SECONDS = 1.0
"""How often the watch is asked whether it doubts itself."""
RESTART_SECONDS = 1.0
MAX_RESTART_SECONDS = 60.0
"""Pause between two restarts of the watch: doubles from the first to the second while doubts come at once again."""
AT_ONCE_SECONDS = SUPERVISE_SECONDS
"""A watch that is doubted before it is asked a second time may never be had."""
_REST = 9
"""After a restart the watch rests this many times as long as the restart took: it takes a tenth of the time at most."""
HELD_SECONDS = 30.0
"""Pause between two comparisons of the folder while deletions wait for approval."""
NOT_NOW = "not at the moment"
"""What `Follower.watching` begins with while there is no watch."""

_log = structlog.get_logger(__name__)


class Follower:
    """Runs the watch and feeds the queue."""

    def __init__(  # noqa: PLR0913 - the parts it joins
        self,
        source: Source,
        watch: Watch,
        reconciler: Reconciler,
        ledger: Ledger,
        lane: Lane,
        *,
        runtime: Runtime,
        tally: Tally,
        in_work: InWork,
        intake: Intake,
        cutting: str,
        quiet_seconds: float,
        rescan_seconds: float,
        rules_file: str,
        wake: Callable[[], None],
    ) -> None:
        self._source = source
        self._watch = watch
        self._reconciler = reconciler
        self._ledger = ledger
        self._lane = lane
        self._runtime = runtime
        self._tally = tally
        self._in_work = in_work
        self._intake = intake
        self._cutting = cutting
        self._quiet_seconds = quiet_seconds
        self._rescan_seconds = rescan_seconds
        self._rules_files = frozenset({rules_file, SETTINGS_FILE})
        self._wake = wake
        self._settling = Settling(capacity=MAX_HINTS)
        self._news = asyncio.Event()
        self._doubt: Doubt | None = None
        self._trouble = ""
        """Why there is no watch at the moment."""
        self._is_looking = False
        """Whether what was heard of is being looked at, or the folder compared."""
        self._told_limitation = ""
        self.reconciled = asyncio.Event()
        """Set when the folder has been compared with the ledger for the first time."""
        self.begun = asyncio.Event()
        """Set then, too, or when it could not be: its disk may be away for long."""

    @property
    def watching(self) -> str:
        """How the folder is watched, for people: the mode, what limits it, or why there is no watch at the moment."""
        if self._trouble:
            return f"{NOT_NOW}: {self._trouble}"
        return ": ".join(filter(None, (self._watch.mode, self._watch.limitation)))

    @property
    def is_watching(self) -> bool:
        """Whether there is a watch at the moment, and nothing is known against it."""
        return self.begun.is_set() and not self._trouble

    @property
    def is_behind(self) -> bool:
        """Whether something was heard of that is not answered yet: not found equal, and not queued either.

        Before the first comparison nobody knows what there is to be heard of.
        """
        return not self.reconciled.is_set() or self._is_looking or self._doubt is not None or len(self._settling) > 0

    @property
    def restless(self) -> Sequence[str]:
        """The files that change all the time, and are looked at once a minute at most; the first `MAX_TOLD`."""
        return self._settling.restless(self._runtime.monotonic_seconds())[:MAX_TOLD]

    def rest_seconds(self, path: str) -> float:
        """How much longer a file that changes again and again is left alone; mostly 0."""
        return self._settling.left_to_rest_seconds(path, self._runtime.monotonic_seconds())

    async def run(self) -> None:
        """Follow the folder until cancelled."""
        loop = asyncio.get_running_loop()
        pause_seconds = 0.0
        try:
            while True:
                began_seconds = self._runtime.monotonic_seconds()
                followed_at_seconds = None
                try:
                    await self._runtime.in_thread(self._watch.start, lambda hint: _post(loop, self._hear, hint))
                    self._tell_limitation()
                    await self._reconcile_all()
                    followed_at_seconds = self._runtime.monotonic_seconds()
                    self._trouble = ""
                    doubt = await self._follow()
                except TransientError as error:
                    doubt = Doubt(str(error), DoubtKind.UNAVAILABLE)
                self._tally.restarts[doubt.kind] += 1
                now_seconds = self._runtime.monotonic_seconds()
                cost_seconds = (followed_at_seconds or now_seconds) - began_seconds
                # A root that is missing is asked for again and again, which costs next to nothing.
                is_at_once = followed_at_seconds is not None and now_seconds < followed_at_seconds + AT_ONCE_SECONDS
                least_seconds = max(RESTART_SECONDS, _REST * cost_seconds)
                pause_seconds = min(max(least_seconds, 2 * pause_seconds * is_at_once), MAX_RESTART_SECONDS)
                if doubt.reason != self._trouble:
                    _log.warning("watch.restarting", reason=doubt.reason, pause_seconds=round(pause_seconds, 1))
                self._trouble = doubt.reason
                self.begun.set()
                await self._runtime.in_thread(self._watch.stop)
                await self._runtime.sleep(pause_seconds)
        finally:
            self._watch.stop()

    def _tell_limitation(self) -> None:
        limitation = self._watch.limitation
        if limitation and limitation != self._told_limitation:
            _log.warning("watch.limited", watching=self._watch.mode, reason=limitation)
        self._told_limitation = limitation

    def rescan(self, reason: str) -> None:
        """Have the whole folder compared with the ledger soon, because the collection is not what was written."""
        self._doubt = Doubt(reason, DoubtKind.COLLECTION)
        self._news.set()

    def _hear(self, hint: Hint) -> None:
        kind = "folder" if hint.is_folder else "closed" if hint.is_closed else "changed"
        self._tally.hints[kind] += 1
        self._tally.hinted_seconds = self._runtime.now_seconds()
        heard = [hint]
        if hint.path.endswith(SIDECAR_END):
            # A sidecar speaks for the file that it is attached to, which may be resting or in the middle of a write. A
            # folder with the name of a sidecar is a fault of that file, and is a folder besides.
            heard = [Hint(hint.path.removesuffix(SIDECAR_END)), *heard[: hint.is_folder]]
        now_seconds = self._runtime.monotonic_seconds()
        if not all(self._settling.hear(each, now_seconds) for each in heard):
            self._doubt = Doubt(f"more than {MAX_HINTS} paths changed at once", DoubtKind.HINTS)
        self._news.set()

    async def _follow(self) -> Doubt:
        """Follow until there is a doubt that needs a new watch, and return it."""
        rescan_at_seconds = self._next_rescan_seconds()
        while True:
            now_seconds = self._runtime.monotonic_seconds()
            if self._doubt is not None or now_seconds >= rescan_at_seconds:
                # The watch is sound: only hints were too many, or it is time.
                if self._doubt is None:
                    _log.info("watch.rescan", reason="rescan_seconds")
                    await self._see_what_has_drifted()
                else:
                    _log.info("watch.rescan", reason=self._doubt.reason)
                    self._tally.rescans[self._doubt.kind] += 1
                    await self._reconcile_all()
                rescan_at_seconds = self._next_rescan_seconds()
            doubt = await self._runtime.in_thread(self._watch.doubt)
            if doubt is not None:
                return doubt
            # Whatever the last comparison held: one of a part may have met the approval, and left the rest to this.
            if await self._reconciler.is_approved():
                self._doubt = Doubt("deletions were approved", DoubtKind.APPROVED)
                continue
            rescan_at_seconds = min(rescan_at_seconds, self._next_rescan_seconds())
            supervise_at_seconds = self._runtime.monotonic_seconds() + SUPERVISE_SECONDS
            while (now_seconds := self._runtime.monotonic_seconds()) < supervise_at_seconds:
                self._news.clear()
                await self._look_at(self._settling.take_ready(now_seconds))
                ready_seconds = self._settling.next_ready_seconds()
                until_seconds = (
                    supervise_at_seconds if ready_seconds is None else min(ready_seconds, supervise_at_seconds)
                )
                await happens_within(self._news, until_seconds - self._runtime.monotonic_seconds())

    async def _see_what_has_drifted(self) -> None:
        """Compare all because it is time, and count what differs although no hint had told of it."""
        expected, told = self._tally.expected, self._settling.reach
        await self._reconcile_all()
        told_since = self._settling.reach
        if told is not None and told_since is not None:
            self._tally.drift += max(0, self._tally.expected - expected - told - told_since)

    async def _reconcile_all(self) -> None:
        with self._looking():
            # Hints that came before the scan are answered by it; those that come during it are kept.
            self._settling.clear()
            self._doubt = None
            await self._reconciler.reconcile()
            self._wake()
        self.reconciled.set()
        self.begun.set()

    def _next_rescan_seconds(self) -> float:
        if self._reconciler.held:
            # The files may come back, and then there is nothing left to approve.
            return self._runtime.monotonic_seconds() + min(HELD_SECONDS, self._rescan_seconds)
        # A tenth of jitter: many daemons on one disk must not scan it together.
        jitter = 0.9 + 0.2 * self._runtime.fraction()
        return self._runtime.monotonic_seconds() + self._rescan_seconds * jitter

    async def _look_at(self, ready: Sequence[Heard]) -> None:
        if not ready:
            return
        with self._looking():
            await self._answer(ready)

    @contextmanager
    def _looking(self) -> Iterator[None]:
        self._is_looking = True
        try:
            yield
        finally:
            self._is_looking = False

    async def _answer(self, ready: Sequence[Heard]) -> None:
        folders = {heard.hint.path for heard in ready if heard.hint.is_folder}
        files = [heard for heard in ready if not heard.hint.is_folder]
        # A folder of that name is a fault of the folder that it lies in, until it goes.
        folders |= {_folder_of(heard.hint.path) for heard in ready if _name_of(heard.hint.path) in self._rules_files}
        await self._look_at_files(files)
        await self._reconciler.reconcile_parts(folders)
        self._wake()

    async def _look_at_files(self, files: Sequence[Heard]) -> None:
        """Queue what differs, or is in work by a task that goes by something else.

        The files are looked at first and the ledger is asked then, for the reason that `Reconciler` has; from its
        answer on nothing is awaited before all are judged.
        """
        stats = await self._runtime.in_thread(self._stats, [heard.hint.path for heard in files])
        entries = await self._lane.run(self._ledger.glances_of, list(stats))
        now_seconds = self._runtime.now_seconds()
        present: dict[str, Version] = {}
        gone: dict[str, Glance | None] = {}
        unknown: list[str] = []
        for heard in files:
            path = heard.hint.path
            stat, glance, turn = stats[path], entries.get(path), self._in_work.get(path)
            if not (turn.misses(seen(stat)) if turn else differs(stat, glance, self._cutting)):
                if stat is None and turn is None:
                    unknown.append(path)
                continue
            monotonic_seconds = self._runtime.monotonic_seconds()
            wait_seconds = unrest_seconds(
                heard,
                stat,
                quiet_seconds=self._quiet_seconds,
                now_seconds=now_seconds,
                monotonic_seconds=monotonic_seconds,
            )
            if stat is not None:
                wait_seconds = max(wait_seconds, self._settling.rest_seconds(heard, stat, monotonic_seconds))
            if wait_seconds > 0:
                self._settling.postpone(heard, monotonic_seconds, wait_seconds)
            elif stat is None:
                gone[path] = glance
            else:
                self._settling.queued(path, stat, monotonic_seconds)
                present[path] = stat.version
        if gone and (doubt := await self._runtime.in_thread(self._watch.doubt)) is not None:
            # The root may be another one by now: what is missing there is for the comparison to judge, which can hold
            # deletions back.
            raise ServiceUnavailable(doubt.reason)
        await self._intake.take_present(present, Priority.LIVE)
        await self._intake.take_gone(gone, pause_seconds=GONE_SECONDS)
        if unknown:
            # What waits in the queue to be tried again need not wait: there is nothing to try any more.
            change = Change("", Priority.GONE, enqueued_seconds=now_seconds, not_before_seconds=now_seconds)
            await self._lane.run(self._ledger.urge, unknown, change)

    def _stats(self, paths: Sequence[str]) -> dict[str, Stat | None]:
        found: dict[str, Stat | None] = {}
        for path, look in zip(paths, self._source.looks(paths), strict=True):
            if isinstance(look, TransientError):
                raise look
            # The worker looks again, and makes a Problem of it with its reason.
            found[path] = _UNTELLABLE if isinstance(look, DocumentError) else look
        return found


_UNTELLABLE = Stat(size_bytes=-1, mtime_ns=0, ctime_ns=0, device=0, inode=0, is_regular=False)


def _post(loop: asyncio.AbstractEventLoop, hear: Callable[[Hint], None], hint: Hint) -> None:
    try:
        loop.call_soon_threadsafe(hear, hint)
    except RuntimeError:
        # The loop is closed: the process is ending, and the next start scans.
        _log.debug("watch.late_hint", path=hint.path)


def _name_of(path: str) -> str:
    return PurePosixPath(path).name


def _folder_of(path: str) -> str:
    folder = str(PurePosixPath(path).parent)
    return "" if folder == "." else folder
