"""Serving: the collection that is there, by the recipe that it was built with instead of that of the settings."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ingestor.adapters.chroma_catalog import ChromaCatalog, CollectionRow
from ingestor.adapters.former_embedder import FormerEmbedder
from ingestor.app.beside import unfinished
from ingestor.app.choice import embedding_for
from ingestor.app.embedder import embedder_of, recipe_of
from ingestor.app.switch import pending
from ingestor.core.errors import ConfigError
from ingestor.core.model import Recipe
from ingestor.core.profiles import profile_for, recipe_for
from ingestor.ports import Embedder
from ingestor.settings import EmbeddingSettings, Settings

if TYPE_CHECKING:
    from chromadb.api import ClientAPI


@dataclass(frozen=True, slots=True)
class Serving:
    """How the collection that is there is opened, and asked."""

    settings: Settings
    """With its name, its distance, and its model where that can be had."""
    recipe: Recipe
    reason: str = ""
    """Why its model cannot be had; empty when it can."""
    is_former: bool = False
    """Whether the settings name another recipe or distance."""
    has_other_model: bool = False
    """Whether its vectors come from another model, or of other texts, than the settings name."""

    def embedder(self) -> Embedder | None:
        """What embeds for it, whatever happens; None for the model that the settings name, which has to be had."""
        if not self.has_other_model:
            return None
        if self.reason:
            return FormerEmbedder(self.recipe, None, self.reason)
        try:
            return FormerEmbedder(self.recipe, embedder_of(self.settings.embedding))
        except ConfigError as error:
            return FormerEmbedder(self.recipe, None, error.sentence)


def serving_of(settings: Settings, row: CollectionRow) -> Serving:
    """What a collection says of itself. One that was not made by ingestor is taken for what the settings say."""
    told = row.metadata
    provider, model = str(told.get("embedding_provider", "")), str(told.get("embedding_model", ""))
    dimensions = int(told.get("embedding_dimensions", 0))
    if not provider:
        return Serving(settings, recipe_of(settings.embedding))
    space = str((row.configuration.get("hnsw") or row.configuration.get("spann") or {}).get("space", "l2"))
    reason, chosen = "", settings.embedding
    try:
        chosen = _chosen(settings, provider, model, dimensions)
        query_prefix = recipe_for(profile_for(provider, model), dimensions).query_prefix
    except ConfigError as error:
        reason, query_prefix = error.sentence, ""
    recipe = Recipe(provider, model, dimensions, str(told.get("document_prefix", "")), query_prefix)
    hnsw = settings.chroma.hnsw
    chroma = settings.chroma.model_copy(update={"hnsw": hnsw.model_copy(update={"space": space})})
    configured = recipe_of(settings.embedding)
    is_same_model = replace(recipe, query_prefix="") == replace(
        configured, query_prefix="", dimensions=configured.dimensions or dimensions
    )
    return Serving(
        settings.model_copy(update={"chroma": chroma, "embedding": chosen}),
        recipe,
        reason,
        is_former=not is_same_model or space != hnsw.space,
        has_other_model=not is_same_model,
    )


def asked(settings: Settings, client: "ClientAPI") -> Serving | None:
    """What a question is put to while the settings are ahead of the collection; None when they are not.

    They are while a rebuild is unfinished, or a switch: then nothing may be made under the name of the collection.
    """
    switch = pending(settings)
    if switch is None and unfinished(settings) is None:
        return None
    rows = ChromaCatalog(client).rows()
    of_name = [row for row in rows if row.name == settings.chroma.collection]
    of_switch = [row for row in rows if switch is not None and row.id in {switch.next_id, switch.serving_id}]
    if not of_name + of_switch:
        return None
    row = (of_name + of_switch)[0]
    found = serving_of(settings, row)
    varied = found.settings.varied(
        ledger_file=settings.ledger_file, collection=row.name, embedding=found.settings.embedding
    )
    return replace(found, settings=varied)


def _chosen(settings: Settings, provider: str, model: str, dimensions: int) -> EmbeddingSettings:
    """The settings of the model; those that there are where they name it already."""
    configured = recipe_of(settings.embedding)
    if (configured.provider, configured.model) == (provider, model) and configured.dimensions in {0, dimensions}:
        return settings.embedding
    return embedding_for(settings, f"{provider}/{model}", dimensions or None)
