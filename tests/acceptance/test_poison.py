"""Files whose texts the endpoint answers as in an outage: every other one is indexed by the first sync."""

import json
from pathlib import Path

import pytest

from tests.checker import belongs
from tests.daemon import Site, assert_equal, provider_settings
from tests.embedding_server import EmbeddingServer, Fault, FaultKind

pytestmark = pytest.mark.slow

GOOD, POISON = 60, 4
WORD = "DROP TABLE"
SAID = "the vault is sealed"
BODY = json.dumps({"error": {"message": SAID, "type": "api_error", "code": None}})
FAULTS = {
    "500": (Fault(FaultKind.STATUS, status=500, body=BODY), SAID),
    "403": (Fault(FaultKind.STATUS, status=403, body=BODY), SAID),
    "404": (Fault(FaultKind.STATUS, status=404, body=BODY), SAID),
    "firewall": (Fault(FaultKind.STATUS, status=403, body=f"<html><title>{SAID}</title></html>"), SAID),
    "challenge": (Fault(FaultKind.STATUS, status=302, headers={"Location": "/challenge"}, body="x"), "/challenge"),
    "reset": (Fault(FaultKind.RESET), "ReadError"),
    "page": (Fault(FaultKind.BODY, body=f"<html><title>{SAID}</title></html>"), f"a web page: {SAID}"),
    "batch": (
        Fault(FaultKind.STATUS, status=500, body="input is too large to process. increase the physical batch size"),
        "-ub",
    ),
    "wrong dimension": (Fault(FaultKind.WRONG_DIMENSION), "65 dimensions where 64"),
}


@pytest.mark.parametrize(("fault", "said"), FAULTS.values(), ids=FAULTS)
def test_sixty_good_files_are_indexed_by_the_first_sync_whatever_four_others_get(
    tmp_path: Path, fault: Fault, said: str
) -> None:
    with (
        EmbeddingServer(poison={WORD: fault}) as server,
        Site(tmp_path, provider_settings(server, EMBEDDING__MAX_BATCH_INPUTS=10)) as site,
    ):
        for number in range(GOOD + POISON):
            is_bad = number % 16 == 7
            name, words = (f"bad-{number}", WORD) if is_bad else (f"good-{number}", "Nothing is wrong")
            (site.folder / f"{name}.txt").write_text(f"{words} in file number {number}.", encoding="utf-8")

        done = site.command("sync")

        assert done.code == 3, done.err
        assert_equal(site.folder, site.at_rest(), wanted=lambda path: belongs(path) and "bad" not in path)
        problems = site.command("problems", "--json").json()
        assert len(problems) == POISON
        for problem in problems:
            assert "bad" in problem["path"]
            assert said in f"{problem['reason']} {problem['remedy']}"
            assert problem["remedy"]
        sent = [text for request in server.received for text in request.texts if "Nothing is wrong" in text]
        assert max(map(sent.count, sent)) <= 8
        told = site.command("status", "--json").json()["embedding"]
        if fault.kind is not FaultKind.BODY:  # of whose answers the server counts nothing
            assert told["tokens"] == server.counters.tokens + server.sample_tokens
