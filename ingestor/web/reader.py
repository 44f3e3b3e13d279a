"""The reader: in which language, and light or dark, somebody wants to read.

Invariant: what the address chooses goes before what the browser has kept, and that before what it asks for.
"""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request
from starlette.datastructures import QueryParams
from starlette.responses import Response

from ingestor.web.words import Words, language_for, words_of

THEMES: Final = ("light", "dark")
_YEAR_SECONDS: Final = 365 * 24 * 3600
_LANGUAGE_COOKIE: Final = "ingestor_language"
_THEME_COOKIE: Final = "ingestor_theme"


@dataclass(frozen=True, slots=True)
class Reader:
    """How somebody wants to read."""

    words: Words
    theme: str
    """One of `THEMES`; empty: as the system has it."""

    def remembered(self, response: Response, query: QueryParams) -> Response:
        """Keep what the address chooses."""
        for name, cookie, value in (
            ("lang", _LANGUAGE_COOKIE, self.words.language),
            ("theme", _THEME_COOKIE, self.theme),
        ):
            if query.get(name) == value:
                response.set_cookie(cookie, value, max_age=_YEAR_SECONDS, samesite="strict")
        return response


async def _reader(request: Request) -> Reader:
    wished, kept = request.query_params, request.cookies
    language = language_for(
        wished.get("lang") or kept.get(_LANGUAGE_COOKIE, ""), request.headers.get("accept-language", "")
    )
    themes = (wished.get("theme"), kept.get(_THEME_COOKIE))
    return Reader(words_of(language), next((theme for theme in themes if theme in THEMES), ""))


Read = Annotated[Reader, Depends(_reader)]
"""As the type of a parameter: who reads."""
