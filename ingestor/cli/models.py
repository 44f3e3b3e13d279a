"""`ingestor models`: which embedding models are known, what they can do and cost, and how to select each."""

import shlex
from typing import TYPE_CHECKING, Any

from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import errors_explained, out, padded, priced, print_json, shown
from ingestor.language import translated

if TYPE_CHECKING:
    from ingestor.core.profiles import ModelProfile, ProviderProfile

_MARK = "*"
_PROVIDER = "INGESTOR_EMBEDDING__PROVIDER"
_MODEL = "INGESTOR_EMBEDDING__MODEL"
_LIMITS = ("tokens/text", "texts/call", "tokens/call")
_LIMIT_CELLS = 13


def models(config: ConfigOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the embedding models that are known: limits, price, licence, and how to select each."""
    with errors_explained(debug=debug):
        chosen = settings_of(config, debug=debug).settings.embedding
        from ingestor.core.profiles import MODELS, PROVIDERS, profile_for

        configured = profile_for(chosen.provider, chosen.model_name)
        if as_json:
            print_json(
                {
                    "configured": _as_json(configured),
                    "models": [_as_json(known) | {"is_configured": _is_same(known, configured)} for known in MODELS],
                }
            )
            return
        for provider in PROVIDERS.values():
            if not provider.is_server:
                _print_hosted(provider, [known for known in MODELS if known.provider == provider.provider], configured)
        servers = [provider for provider in PROVIDERS.values() if provider.is_server]
        _print_servers(servers, configured)
        names = {server.provider for server in servers}
        _print_open([known for known in MODELS if known.provider in names], configured)
        _print_configured(configured)


def _is_same(known: "ModelProfile", configured: "ModelProfile") -> bool:
    return (known.provider, known.published_name) == (configured.provider, configured.published_name)


def _as_json(profile: "ModelProfile") -> dict[str, Any]:
    allowed = profile.allowed_dimensions
    return {
        "provider": profile.provider,
        "model": profile.model,
        "published_name": profile.published_name,
        "task": profile.task,
        "languages": profile.languages,
        "licence": profile.licence,
        "default_dimensions": profile.default_dimensions or None,
        "allowed_dimensions": {"from": allowed[0], "to": allowed[-1]} if isinstance(allowed, range) else list(allowed),
        "max_batch_inputs": profile.max_batch_inputs,
        "max_text_tokens": profile.max_text_tokens,
        "max_batch_tokens": profile.max_batch_tokens,
        "price_per_million_tokens": profile.price_per_million_tokens,
        "currency": profile.currency,
        "document_prefix": profile.document_prefix,
        "query_prefix": profile.query_prefix,
        "select": _select(profile),
        "sources": list(profile.sources),
    }


def _select(profile: "ModelProfile") -> str:
    return f"{_PROVIDER}={profile.provider} {_MODEL}={shlex.quote(profile.model)}"


def _print_hosted(provider: "ProviderProfile", known: list["ModelProfile"], configured: "ModelProfile") -> None:
    key = translated(f", key: {provider.key_variable}") if provider.key_variable else ""
    out.print_verbatim(f"[bold]{provider.provider}[/]  {provider.base_url or translated('in this process')}{key}")
    heads = f"{padded('model', 24)}{padded('dimensions', 10, is_right=True)}{_limit_heads()}"
    out.print_verbatim(f"  {heads}  {translated('price/million tokens')}")
    for profile in known:
        mark = _MARK if _is_same(profile, configured) else " "
        out.print_verbatim(
            f"{mark} [cyan]{profile.model:<24}[/]{profile.default_dimensions:>10}{_limits(profile)}  {_price(profile)}"
        )
        _print_nature(profile)
        out.print_verbatim(f"    {_select(profile)}")
    out.print()


def _print_servers(servers: list["ProviderProfile"], configured: "ModelProfile") -> None:
    out.print("[bold]your own server[/]  no price, no key; limits beside the model's own")
    heads = f"{padded('provider', 12)}{padded('usual base URL', 28)}{_limit_heads()}"
    out.print_verbatim(f"  {heads}  {translated('other dimensions')}")
    for server in servers:
        mark = _MARK if server.provider == configured.provider else " "
        lengths = translated("yes" if server.accepts_dimensions else "no")
        out.print_verbatim(f"{mark} [cyan]{server.provider:<12}[/]{server.base_url:<28}{_limits(server)}  {lengths}")
    out.print()


def _print_open(known: list["ModelProfile"], configured: "ModelProfile") -> None:
    """Each open model once, with the name that it has at each server."""
    out.print("[bold]models for your own server[/]  for example:")
    out.print_verbatim(f"    {_select(known[0])}")
    out.print("  at any other OpenAI-compatible endpoint:")
    out.print_verbatim(f"    {_PROVIDER}=openai INGESTOR_EMBEDDING__BASE_URL=… {_MODEL}=…")
    for published_name in dict.fromkeys(profile.published_name for profile in known):
        served = [profile for profile in known if profile.published_name == published_name]
        freest = max(served, key=lambda profile: (len(profile.allowed_dimensions), profile.max_text_tokens))
        mark = _MARK if published_name == configured.published_name else " "
        limits = translated(f"{freest.default_dimensions} dimensions, {freest.max_text_tokens:,} tokens/text")
        out.print_verbatim(f"{mark} [cyan]{published_name}[/]  {limits}")
        _print_nature(freest)
        for name in dict.fromkeys(profile.model for profile in served):
            servers = ", ".join(profile.provider for profile in served if profile.model == name)
            out.print_verbatim(f"    {servers}: {name}")
    out.print()


def _print_nature(profile: "ModelProfile") -> None:
    nature = "; ".join(map(translated, (profile.task, profile.languages, profile.licence)))
    out.print_verbatim(f"    {nature}")
    allowed = profile.allowed_dimensions
    if len(allowed) > 1:
        lengths = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
        out.print_verbatim(f"    INGESTOR_EMBEDDING__DIMENSIONS: {translated(lengths)}")


def _print_configured(configured: "ModelProfile") -> None:
    told = f"configured: {configured.provider} {shown(configured.model)}"
    if not configured.is_known:
        told = f"configured, but not in this list: {configured.provider} {shown(configured.model)}"
    out.print(f"{_MARK} {told}")
    out.print(
        f"    {configured.max_text_tokens:,} tokens/text, {configured.max_batch_inputs:,} texts/call,"
        f" {configured.max_batch_tokens:,} tokens/call, price: {_price(configured)}"
    )


def _limit_heads() -> str:
    return "".join(padded(head, _LIMIT_CELLS, is_right=True) for head in _LIMITS)


def _limits(profile: "ModelProfile | ProviderProfile") -> str:
    limits = (profile.max_text_tokens, profile.max_batch_inputs, profile.max_batch_tokens)
    return "".join(f"{'-' if limit is None else f'{limit:,}':>{_LIMIT_CELLS}}" for limit in limits)


def _price(profile: "ModelProfile") -> str:
    return priced(profile.price_per_million_tokens, profile.currency)
