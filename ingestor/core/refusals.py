"""Refusals: the limits that a provider names when it refuses a call.

Every pattern is the wording of a server seen in the wild: DashScope ("batch size is invalid, it should not be larger
than 10"), text-embeddings-inference and SiliconFlow ("batch size 100 > maximum allowed batch size 32"), OpenAI ("array
with maximum length 2048", "Requested 375703 tokens, max 300000 tokens per request", "tokens per min (TPM): Limit
1000000", "Please try again in 2.812s"), Mistral ("Too many tokens in batch. Max is 16384"), and Chinese gateways
("最大不得超过64条").

Invariant: what is not understood is None, and nothing is guessed.
"""

import math
import re
from dataclasses import dataclass
from typing import Final

from ingestor.core.waits import duration_seconds

_NUMBER: Final = r"(\d[\d,]*(?:\.\d+)?)"
_INPUTS: Final = re.compile(
    rf"should not be larger than {_NUMBER}|maximum allowed batch size {_NUMBER}|array with maximum length {_NUMBER}"
    rf"|max batch ?size ?[=:] ?{_NUMBER}|(?:不得|不能)?超过 ?{_NUMBER} ?[条个]",
    re.IGNORECASE,
)
_TOKENS: Final = re.compile(
    rf"max(?:imum)?(?: of)? {_NUMBER} tokens per request|too many tokens in batch\. max is {_NUMBER}", re.IGNORECASE
)
_TEXT_TOKENS: Final = re.compile(
    rf"maximum context length is {_NUMBER} tokens|must have less than {_NUMBER} tokens", re.IGNORECASE
)
_REQUESTS_PER_MINUTE: Final = re.compile(
    rf"requests per min(?:ute)?(?: \(RPM\))?[:.]? limit:? {_NUMBER}", re.IGNORECASE
)
_TOKENS_PER_MINUTE: Final = re.compile(rf"tokens per min(?:ute)?(?: \(TPM\))?[:.]? limit:? {_NUMBER}", re.IGNORECASE)
_FAULTS_OF_A_TEXT: Final = {
    "batch": re.compile(r"too large to process.{0,80}physical batch size", re.IGNORECASE | re.DOTALL),
    "nan": re.compile(r"unsupported value: NaN", re.IGNORECASE),
}
"""What servers say of a single text under a status of their own failure: llama.cpp, Ollama."""
_JOINTS: Final = str.maketrans("", "", "_-. ")
_AGAIN: Final = re.compile(r"try again in ((?:\d+h)?(?:\d+m)?(?:\d+(?:\.\d+)?(?:ms|s))?)(?![\w.]*\w)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The limits that a refusal names."""

    max_inputs: int | None
    """Texts a call."""
    max_tokens: int | None
    """Tokens a call."""
    max_text_tokens: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    retry_after_seconds: float | None


def refusal_of(words: str) -> Refusal:
    """The limits in a provider's own words."""
    return Refusal(
        max_inputs=_number(_INPUTS, words),
        max_tokens=_number(_TOKENS, words),
        max_text_tokens=_number(_TEXT_TOKENS, words),
        requests_per_minute=_number(_REQUESTS_PER_MINUTE, words),
        tokens_per_minute=_number(_TOKENS_PER_MINUTE, words),
        retry_after_seconds=_again_seconds(words),
    )


def fault_of_a_text(words: str) -> str:
    """Which fault of a single text a server's words are known for, whatever the status; empty for none."""
    return next((fault for fault, pattern in _FAULTS_OF_A_TEXT.items() if pattern.search(words)), "")


def is_rate_code(code: str) -> bool:
    """Whether a code, in lower case, means that calls come too fast, whatever the status."""
    plain = code.translate(_JOINTS)
    return any(word in plain for word in ("ratelimit", "toomanyrequests")) or plain.startswith("throttling")


def _number(pattern: re.Pattern[str], words: str) -> int | None:
    """The number that a pattern finds; none that would allow nothing."""
    found = pattern.search(words)
    if found is None:
        return None
    text = next(group for group in found.groups() if group is not None)
    number = float(text.replace(",", ""))
    return int(number) or None if math.isfinite(number) else None


def _again_seconds(words: str) -> float | None:
    found = _AGAIN.search(words)
    return duration_seconds(found[1]) if found else None
