"""Files that mean harm to what converts them: each is a Problem of its own or is read right; the next one is served."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestor.adapters import conversion
from ingestor.adapters.conversion import Converter
from ingestor.adapters.conversion_child import CANNOT_START
from ingestor.core.errors import DocumentError, OversizeDocument, ServiceUnavailable, UnconvertibleDocument
from ingestor.core.formats import Format
from tests import documents
from tests.daemon import eventually, lives

MEGABYTE = 1 << 20
GOOD = documents.pdf([["some good words"]])
SLOW = documents.pdf([["words " * 10] * 40] * 600)
"""Takes a child several seconds."""
FAITHLESS = """\
import os, sys, time
line = sys.stdin.buffer.readline()
sys.stdin.buffer.read(int(line.split()[1]))
{deed}
"""


def converter_of(
    *, timeout_seconds: float = 60.0, max_memory_bytes: int = 1024 * MEGABYTE, max_text_bytes: int = MEGABYTE
) -> Converter:
    return Converter(
        frozenset(Format),
        timeout_seconds=timeout_seconds,
        max_memory_bytes=max_memory_bytes,
        max_text_bytes=max_text_bytes,
        max_children=2,
    )


@pytest.fixture(scope="module")
def converter() -> Iterator[Converter]:
    converter = converter_of()
    yield converter
    converter.close()


def is_sound(converter: Converter) -> bool:
    return converter.convert(GOOD, Format.PDF).text == "some good words"


def laughs() -> bytes:
    """Entities that would grow to gigabytes."""
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return documents.archive({"word/document.xml": f'<!DOCTYPE x [<!ENTITY l0 "lol">{entities}]><w:p>&l9;</w:p>'})


def noise(size_bytes: int) -> bytes:
    return random.Random(7).randbytes(size_bytes)


@pytest.mark.parametrize(
    ("format_", "make", "said"),
    [
        pytest.param(Format.PDF, lambda: GOOD[: len(GOOD) // 2], "cannot be converted", id="cut short"),
        pytest.param(Format.PDF, lambda: b"%PDF-1.4\n" + noise(20_000), "cannot be converted", id="noise"),
        pytest.param(Format.PDF, lambda: documents.pdf([[], []]), "holds no text", id="pictures alone"),
        pytest.param(Format.DOCX, lambda: b"PK\x03\x04MZ" + noise(5_000), "cannot be converted", id="a program"),
        pytest.param(
            Format.DOCX,
            lambda: documents.docx("<w:p><w:r><w:t>" + "word " * (40 * MEGABYTE) + "</w:t></w:r></w:p>"),
            "cannot be converted",
            id="zip bomb",
        ),
        pytest.param(Format.DOCX, laughs, "no text", id="billion laughs"),
        pytest.param(Format.DOCX, lambda: documents.docx("<w:p>" * 300_000), "cannot be|no text", id="nested"),
        pytest.param(Format.XLSX, lambda: documents.docx(documents.paragraph("x")), "cannot be", id="another archive"),
        pytest.param(Format.EPUB, lambda: documents.archive({"a": "b"}), "cannot be converted", id="no book"),
        pytest.param(Format.IPYNB, lambda: b"[" * MEGABYTE, "cannot be converted", id="nested json"),
        pytest.param(Format.HTML, lambda: b"<div>" * 200_000 + b"x", "no text", id="nested html"),
    ],
)
def test_a_hostile_file_is_a_problem_of_its_own(
    converter: Converter, format_: Format, make: Callable[[], bytes], said: str
) -> None:
    with pytest.raises(UnconvertibleDocument, match=said) as told:
        converter.convert(make(), format_)
    assert told.value.remedy
    assert "\n" not in told.value.sentence
    assert is_sound(converter)


def test_a_locked_pdf_is_told_as_locked(converter: Converter) -> None:
    with pytest.raises(UnconvertibleDocument, match="locked by a password"):
        converter.convert(locked_pdf(), Format.PDF)


def locked_pdf() -> bytes:
    """One that only a password opens: its marks of encryption are there, and no empty password fits them."""
    lock = "/Encrypt << /Filter /Standard /V 1 /R 2 /P -44 /O <" + "41" * 32 + "> /U <" + "42" * 32 + "> >> "
    identity = "/ID [<00112233445566778899aabbccddeeff> <00112233445566778899aabbccddeeff>] "
    return GOOD.replace(b"trailer << ", f"trailer << {lock}{identity}".encode())


def test_a_line_of_ten_megabytes_is_read_right() -> None:
    roomy = converter_of(max_text_bytes=20 * MEGABYTE)
    text = roomy.convert(("<p>" + "word 中文 " * 900_000).encode(), Format.HTML).text
    assert text.split() == ["word", "中文"] * 900_000
    roomy.close()


def test_a_text_that_is_too_large_is_told_and_never_cut_short() -> None:
    tight = converter_of(max_text_bytes=1_000)
    with pytest.raises(OversizeDocument, match=r"3,001 bytes.*1,000 of convert\.max_text_bytes"):
        tight.convert(b"<p>" + b"x" * 3_000, Format.HTML)
    assert is_sound(tight)
    tight.close()


def test_a_file_that_takes_more_memory_than_allowed_is_a_problem_of_its_own() -> None:
    narrow = converter_of(max_memory_bytes=640 * MEGABYTE, max_text_bytes=1024 * MEGABYTE)
    with pytest.raises(UnconvertibleDocument):
        narrow.convert(b"<p>" + b"<b>x</b> " * (12 * MEGABYTE), Format.HTML)
    assert is_sound(narrow)
    narrow.close()


def test_a_file_that_takes_too_long_is_given_up_and_its_child_is_gone() -> None:
    hasty = converter_of(timeout_seconds=1.0)
    with pytest.raises(UnconvertibleDocument, match="longer than 1 s") as told:
        hasty.convert(SLOW, Format.PDF)
    assert "convert.timeout_seconds" in told.value.remedy
    assert hasty.children == []
    assert is_sound(hasty)
    hasty.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_that_is_killed_at_work_takes_one_file_with_it(number: signal.Signals) -> None:
    converter = converter_of()
    errors: list[DocumentError] = []
    thread = threading.Thread(target=lambda: errors.append(failure(converter)))
    thread.start()
    eventually(lambda: converter.children, lambda: "no child was started")
    (pid,) = converter.children
    eventually(lambda: is_confined(pid), lambda: "it never came to its file")
    os.kill(pid, number)
    thread.join()
    assert [str(error) for error in errors] == [f"the pdf file ended its converter: killed by {number.name}"]
    assert is_sound(converter)
    converter.close()


def failure(converter: Converter) -> DocumentError:
    with pytest.raises(DocumentError) as told:
        converter.convert(SLOW, Format.PDF)
    return told.value


def is_confined(pid: int) -> bool:
    """Whether a child has given up what it does not need, and so has begun to read."""
    limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
    return "Max file size             0 " in limits


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_child_that_was_killed_while_it_waited_costs_the_next_file_nothing(
    monkeypatch: pytest.MonkeyPatch, *, is_seen: bool
) -> None:
    converter = converter_of()
    assert is_sound(converter)
    (pid,) = converter.children
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not lives(pid), lambda: "it lives")
    if not is_seen:
        monkeypatch.setattr(conversion._Child, "has_ended", False)
    assert is_sound(converter)
    converter.close()


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        pytest.param("print('nonsense'); sys.stdout.flush(); time.sleep(60)", "ended its converter", id="nonsense"),
        pytest.param('print(\'{"size": 9000000, "pages": []}\')', "ended its converter", id="too much"),
        pytest.param('print(\'{"size": 9, "pages": []}\\nshort\')', "ended its converter", id="too little"),
        pytest.param('print(\'{"size": 2, "pages": ["x"]}\\nab\')', "ended its converter", id="no pages"),
        pytest.param("print('[]')", "ended its converter", id="no object"),
        pytest.param("pass", "exit code 0", id="no answer"),
        pytest.param("os._exit(9)", "exit code 9", id="exit"),
        pytest.param("os.abort()", "SIGABRT", id="abort"),
    ],
)
def test_a_child_that_a_file_has_taken_over_cannot_harm_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str, said: str
) -> None:
    child = tmp_path / "child.py"
    child.write_text(FAITHLESS.format(deed=deed), encoding="utf-8")
    monkeypatch.setattr(conversion, "_CHILD", child)
    converter = converter_of()
    with pytest.raises(UnconvertibleDocument, match=said):
        converter.convert(GOOD, Format.PDF)
    assert converter.children == []
    converter.close()


def test_a_child_that_cannot_start_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_CHILD", tmp_path / "child.py")
    (tmp_path / "child.py").write_text(f"raise SystemExit({CANNOT_START})", encoding="utf-8")
    converter = converter_of()
    with pytest.raises(ServiceUnavailable, match="cannot start"):
        converter.convert(GOOD, Format.PDF)
    converter.close()


def bytes_read(pid: int) -> int:
    """How much a process has read since its start."""
    return int(Path(f"/proc/{pid}/io").read_text(encoding="utf-8").split()[1])


def test_the_children_of_a_parent_that_dies_end_too(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        "import json, sys, threading, time\n"
        "from tests.fault.test_conversion_faults import GOOD, Format, bytes_read, converter_of, documents\n"
        "endless = documents.pdf([['words ' * 10] * 40] * 5_000)\n"
        "converter = converter_of(timeout_seconds=4.0)\n"
        "converter.convert(GOOD, Format.PDF)\n"
        "threading.Thread(target=converter.convert, args=(endless, Format.PDF)).start()\n"
        "converter.convert(GOOD, Format.PDF)\n"
        "while max(map(bytes_read, converter.children)) < len(endless):\n"
        "    time.sleep(0.01)\n"
        "print(json.dumps(converter.children), flush=True)\n"
        "threading.Event().wait()\n",
        encoding="utf-8",
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}
    ) as parent:
        assert parent.stdout is not None
        pids = json.loads(parent.stdout.readline())
        parent.kill()
    assert len(pids) == 2
    # Busy with a file that takes longer than this, and with none.
    eventually(lambda: not any(map(lives, pids)), lambda: f"{[pid for pid in pids if lives(pid)]} live on", seconds=15)


def test_conversions_that_run_end_when_the_converter_is_closed() -> None:
    converter = converter_of()
    errors: list[BaseException] = []

    def convert() -> None:
        try:
            converter.convert(SLOW, Format.PDF)
        except ServiceUnavailable as error:
            errors.append(error)

    thread = threading.Thread(target=convert)
    thread.start()
    eventually(lambda: converter.children, lambda: "no child was started")
    converter.close()
    thread.join()
    assert len(errors) == 1, "it is told as passing, and no Problem"
    assert converter.children == []


def test_a_core_is_never_written(converter: Converter) -> None:
    assert is_sound(converter)
    (pid, *_) = converter.children
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
