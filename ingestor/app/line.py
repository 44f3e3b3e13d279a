"""Line: a source that is followed, as the settings have it."""

from ingestor.adapters.rules import RULES_FILE
from ingestor.adapters.watcher import Watcher
from ingestor.app.parts import path_below
from ingestor.core.paths import is_at_or_below
from ingestor.engine.daemon import Line
from ingestor.engine.pipeline import Pipeline
from ingestor.settings import Settings


def line_of(settings: Settings, pipeline: Pipeline) -> Line:
    """The way of a source's documents from a watch of its folder into its collection."""
    left_out = [
        below
        for folder in (settings.data_dir, settings.chroma_path)
        if (below := path_below(settings.watch_dir, folder))
    ]
    watch = Watcher(
        settings.watch_dir,
        polling=settings.watch.polling,
        follow_symlinks=settings.watch.follow_symlinks,
        ignore=lambda path: any(is_at_or_below(path, folder) for folder in left_out),
    )
    follower = pipeline.follower(watch, quiet_seconds=settings.watch.quiet_seconds, rules_file=RULES_FILE)
    return Line(pipeline, follower, watch)
