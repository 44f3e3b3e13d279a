"""The page at `/`, as people see it: a real daemon, a real Chroma and a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Route, expect

from ingestor.web.page import VIEWS
from tests.browser import PATIENCE_MS, browser, looking
from tests.daemon import Daemon, Site, free_port, provider_settings
from tests.embedding_server import EmbeddingServer

REFUSED = "unspeakable"
"""A word that the model refuses, until it does not."""
HOSTILE = "<img src=x onerror=alert(1)>\"'&.md"
HOSTILE_TEXT = """---
"<b onclick=alert(2)>": "\\"><script>alert(3)</script>"
---
# <script>alert(4)</script>

Perilous harbours </p><svg onload=alert(5)> {{ 7 * 7 }} are \u202eno joke.
"""
TEXTS = {
    "tales/lighthouse.md": "---\nauthor: Ada\nyear: 2021\n---\n# The lighthouse\n\nThe keeper lights the lamp.\n",
    "tales/deep/whale.md": "---\nauthor: Bo\nyear: 2022\n---\n# The whale\n\nA whale swims past the keeper's lamp.\n",
    "cooking/soup.txt": "A soup of leeks and potatoes, for the keeper of the lamp.\n",
    "cooking/fish.md": """---
note: she said "fresh"
checked: true
tags: [at sea, cold]
---

Fish in quarantine.
""",
    "新闻/仲裁.txt": "两国把海洋划界争端提交国际仲裁庭。\n",
    "photo.txt": "\0binary\0",
    HOSTILE: HOSTILE_TEXT,
    **{f"notes/{number:02}.txt": f"Note {number} on the {number}th day.\n" for number in range(45)},
}
INDEXED = len(TEXTS) - 1


def expect_soon() -> None:
    expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=256, reject_marker=REFUSED) as server:
        yield server


@pytest.fixture(scope="module")
def site(provider: EmbeddingServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    expect_soon()
    settings = provider_settings(provider) | {"INGESTOR_HTTP__ENABLED": "true", "INGESTOR_HTTP__PORT": str(free_port())}
    with Site(tmp_path_factory.mktemp("page"), settings) as made:
        for path, text in TEXTS.items():
            put(made, path, text)
        yield made


@pytest.fixture(scope="module")
def daemon(site: Site) -> Daemon:
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        reading.wait_equal(lambda path: path != "photo.txt")
    return daemon


@pytest.fixture(scope="module")
def origin(daemon: Daemon) -> str:
    return daemon.http_url()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


def put(site: Site, path: str, text: str) -> Path:
    file = site.folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def asked(**question: str | list[str]) -> str:
    return f"/?{urlencode(question, doseq=True)}"


def test_a_question_finds_its_passage_and_its_address_can_be_shared_and_gone_back_from(
    chromium: Browser, origin: str
) -> None:
    with looking(chromium, origin) as look:
        page = look.visit("/")
        expect(page.get_by_role("searchbox", name="Question")).to_be_focused()
        page.get_by_role("searchbox", name="Question").fill("who lights the lamp")
        page.keyboard.press("Enter")
        first = page.locator(".hit").first
        expect(first.locator("h3")).to_have_text("The lighthouse")
        expect(first.locator(".where")).to_contain_text("tales/lighthouse.md:5-7")
        expect(first.locator("mark").first).to_have_text("lights")
        expect(first.locator(".rank")).to_have_text("1")
        expect(first.locator(".score")).to_have_text(re.compile(r"0\.\d{3}"))
        expect(page).to_have_url(origin + asked(q="who lights the lamp", n="10"))
        expect(page.get_by_role("status").first).to_contain_text("10 hits")
        shared = page.url
        page.get_by_role("link", name="Documents").click()
        expect(page.get_by_role("heading", name="Documents")).to_be_visible()
        page.go_back()
        expect(first.locator("h3")).to_have_text("The lighthouse")
        page.go_back()
        expect(page.locator(".hit")).to_have_count(0)
    with looking(chromium, origin) as look:
        look.page.goto(shared)
        expect(look.page.locator(".hit h3").first).to_have_text("The lighthouse")


def test_the_first_paint_has_state_and_results_without_a_script(chromium: Browser, origin: str) -> None:
    with looking(chromium, origin, scripts=False) as look:
        page = look.visit("/")
        page.get_by_role("searchbox", name="Question").fill("国际仲裁")
        page.get_by_role("button", name="Search").click()
        expect(page.locator(".hit .path").first).to_have_text("新闻/仲裁.txt:1-1")
        expect(page.locator(".hit").first.locator("mark").first).to_contain_text("国际仲裁")
        expect(page.locator("#documents")).to_have_text(str(INDEXED))


def test_folder_type_and_metadata_narrow_what_is_found(chromium: Browser, origin: str) -> None:
    def places(**question: str | list[str]) -> list[str]:
        page = look.visit(asked(q="the lamp of the keeper", **question))
        return sorted(place.partition(":")[0] for place in page.locator(".hit .path").all_inner_texts())

    with looking(chromium, origin) as look:
        assert places(folder="tales") == ["tales/deep/whale.md", "tales/lighthouse.md"]
        assert places(folder="tales/deep/") == ["tales/deep/whale.md"]
        assert places(folder="tal") == []
        expect(look.page.locator(".empty")).to_contain_text("No document lies in this folder")
        expect(look.page.get_by_role("main")).not_to_contain_text("the nearest first")
        assert places(meta="author = Ada") == ["tales/lighthouse.md"]
        assert places(meta=["year = 2022", "author=Bo"], type="text/markdown") == ["tales/deep/whale.md"]
        assert places(meta="year = 2022", folder="cooking") == []
        look.visit(asked(q="lamp", meta="nonsense"))
        expect(look.page.get_by_role("alert").first).to_contain_text("'nonsense' is not of the form key = value")
        page = look.visit(asked(q="the lamp of the keeper"))
        page.get_by_role("link", name="author = Ada").click()
        expect(page.locator(".hit")).to_have_count(1)
        expect(page.locator("[name=meta]").first).to_have_value("author = Ada")


def test_metadata_stands_beside_a_hit_in_order_and_as_it_is_written(chromium: Browser, origin: str) -> None:
    with looking(chromium, origin) as look:
        page = look.visit(asked(q="the lamp of the keeper", folder="tales"))
        expect(page.locator(".hit").first).to_be_visible()
        for tags in [each.locator(".tag").all_inner_texts() for each in page.locator(".hit").all()]:
            assert tags == sorted(tags)
        page = look.visit(asked(q="quarantine"))
        page.get_by_role("link", name="checked = true").click()
        expect(page.locator(".hit")).to_have_count(1)
        expect(page.locator(".hit .path")).to_have_text("cooking/fish.md:7-7")
        expect(page.locator("[name=meta]").first).to_have_value("checked = true")
        assert page.locator(".hit .tag").all_inner_texts() == [
            "checked = true",
            'note = she said "fresh"',
            "tags = at sea, cold",
            "tags.at sea = true",
            "tags.cold = true",
        ]


def test_a_file_that_comes_and_goes_shows_without_a_reload(chromium: Browser, origin: str, site: Site) -> None:
    with looking(chromium, origin) as look:
        page = look.visit("/?view=documents&text=fresh")
        page.evaluate("window.isSame = true")
        expect(page.get_by_text("No documents")).to_be_visible()
        file = put(site, "tales/fresh.txt", "Fresh fish at the harbour.\n")
        expect(page.locator("#activity")).to_contain_text("added tales/fresh.txt")
        expect(page.locator("#documents")).to_have_text(str(INDEXED + 1))
        expect(page.locator("td.path")).to_have_text("tales/fresh.txt")
        expect(page.locator(".headline")).to_contain_text("1 document")
        file.unlink()
        expect(page.locator("#activity")).to_contain_text("deleted tales/fresh.txt")
        expect(page.locator("#documents")).to_have_text(str(INDEXED))
        expect(page.locator("td.path")).to_have_count(0)
        assert page.evaluate("window.isSame")


def test_a_problem_tells_why_and_what_to_do_and_is_tried_again(
    chromium: Browser, origin: str, site: Site, provider: EmbeddingServer
) -> None:
    with looking(chromium, origin) as look:
        page = look.visit("/?view=problems")
        expect(page.locator(".problem")).to_have_count(1)
        expect(page.locator(".problem")).to_contain_text("the file is binary")
        expect(page.locator(".problem .remedy")).to_contain_text("convert it to text")
        put(site, "tales/refused.txt", f"An {REFUSED} tale.\n")
        expect(page.locator(".problem")).to_have_count(2)
        expect(page.locator(".tabs .count")).to_have_text("2")
        page.get_by_role("button", name="Try tales/refused.txt again").press("Enter")
        expect(page.locator("#told")).to_have_text("Queued again: 1")
        expect(page.locator("#said")).to_be_visible()
        expect(page.locator("#said")).to_have_text("Queued again: 1")
        page.wait_for_timeout(1_500)  # the list is drawn anew
        expect(page.get_by_role("button", name="Try tales/refused.txt again")).to_be_focused()
        expect(page.locator(".problem")).to_have_count(2)
        provider.reject_marker = ""
        try:
            page.get_by_role("button", name="Try all again").click()
            expect(page.locator(".problem")).to_have_count(1)
        finally:
            provider.reject_marker = REFUSED
            (site.folder / "tales/refused.txt").unlink()
        expect(page.locator("#documents")).to_have_text(str(INDEXED))


def test_the_map_has_a_dot_for_each_record_and_tells_its_text_to_a_pointer_and_to_keys(
    chromium: Browser, origin: str
) -> None:
    with looking(chromium, origin) as look:
        page = look.visit("/?view=map")
        canvas = page.locator("canvas")
        expect(canvas).to_be_visible()
        expect(page.locator("#sampled")).to_have_text(f"{INDEXED} records, all of the collection")
        expect(page.locator("#legend li").first).to_have_text("notes")
        drawn = canvas.evaluate(
            "each => each.getContext('2d').getImageData(0, 0, each.width, each.height).data.filter(n => n).length"
        )
        assert drawn > 1_000
        canvas.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#point")).to_be_visible()
        first = page.locator("#point .where").inner_text()
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#point .where")).not_to_have_text(first)
        expect(page.locator("#walked")).to_contain_text(page.locator("#point .where").inner_text())
        page.keyboard.press("Escape")
        expect(page.locator("#point")).to_be_hidden()
        place = page.evaluate(
            """async () => {
              const picture = await (await fetch("/api/picture")).json();
              const dot = picture.points.findIndex((point) => point.source === "cooking/soup.txt");
              const frame = document.querySelector("canvas").getBoundingClientRect();
              const reach = (axis) => Math.max(...picture.points.map((each) => Math.abs(each[axis])));
              const stretch = (axis) => Math.min(2, 1 / reach(axis));
              const { x, y } = picture.points[dot];
              return [
                frame.left + frame.width / 2 + x * stretch("x") * (frame.width / 2 - 22),
                frame.top + frame.height / 2 - y * stretch("y") * (frame.height / 2 - 22),
              ];
            }"""
        )
        page.mouse.move(*place)
        expect(page.locator("#point")).to_contain_text("cooking/soup.txt:1-1")
        expect(page.locator("#point")).to_contain_text("A soup of leeks")
        page.mouse.click(*place)
        expect(page.locator(".hit .path").first).to_have_text("cooking/soup.txt:1-1")


def test_documents_are_paged_and_narrowed(chromium: Browser, origin: str) -> None:
    with looking(chromium, origin) as look:
        page = look.visit("/?view=documents")
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(50)
        page.get_by_role("link", name="Next").click()
        expect(rows).to_have_count(len(TEXTS) - 50)
        expect(page.locator(".pages")).to_contain_text(f"51 to {len(TEXTS)} of {len(TEXTS)}")
        look.visit("/?view=documents&offset=5000")
        expect(page.locator(".pages")).to_contain_text(f"51 to {len(TEXTS)} of {len(TEXTS)}")
        page.get_by_role("link", name="Previous").click()
        expect(rows).to_have_count(50)
        page.locator("select[name=state]").select_option("problem")
        page.get_by_role("button", name="Filter").click()
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text("photo.txt")
        expect(rows).to_contain_text("the file is binary")


def test_nothing_that_files_say_is_taken_for_anything_but_text(chromium: Browser, origin: str) -> None:
    with looking(chromium, origin) as look:
        page = look.visit(asked(q="perilous harbours <script>alert(6)</script>", folder='"><script>alert(7)</script>'))
        expect(page.locator("[name=folder]")).to_have_value('"><script>alert(7)</script>')
        page = look.visit(asked(q="perilous harbours <script>alert(6)</script>"))
        hit = page.locator(".hit").first
        expect(hit.locator("h3")).to_have_text("<script>alert(4)</script>")
        expect(hit.locator(".path")).to_contain_text(HOSTILE)
        expect(hit).to_contain_text("</p><svg onload=alert(5)> {{ 7 * 7 }} are \\u202eno joke.")
        expect(hit.locator(".tag")).to_have_text('<b onclick=alert(2)> = "><script>alert(3)</script>')
        for place in (asked(view="documents", text="<img"), asked(view="map", q="x")):
            look.visit(place)
            expect(page.locator("#picture:not([hidden]), tbody")).to_be_visible()
        page.evaluate("document.querySelector('canvas').focus()")
        for _ in range(INDEXED // 2):
            page.keyboard.press("ArrowRight")
        expect(page.locator("#activity")).to_contain_text(HOSTILE)
        assert page.evaluate("document.querySelectorAll('img, main svg[onload], aside svg, main script').length") == 0


def test_light_and_dark_follow_the_system_until_somebody_chooses(chromium: Browser, origin: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with looking(chromium, origin, scheme="dark") as look:
        page = look.visit("/")
        dark = page.evaluate(ground)
        page.get_by_role("link", name="Light or dark").click()
        light = page.evaluate(ground)
        assert light != dark
        page.reload()
        assert page.evaluate(ground) == light
    with looking(chromium, origin) as look:
        assert look.visit("/").evaluate(ground) == light
    with looking(chromium, origin, scripts=False) as look:
        page = look.visit("/?q=lamp")
        page.get_by_role("link", name="Light or dark").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        expect(page.locator(".hit")).to_have_count(10)


def test_the_language_is_the_browsers_until_somebody_chooses(chromium: Browser, origin: str) -> None:
    with looking(chromium, origin, locale="zh-CN") as look:
        page = look.visit(asked(q="国际仲裁"))
        expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
        expect(page.get_by_role("link", name="分布图")).to_be_visible()
        expect(page.locator("#activity")).to_contain_text("守护进程就绪")
        expect(page.locator("#activity")).to_contain_text("网页已就绪")
        expect(page.locator("#activity")).to_contain_text("该文件是二进制文件")
        expect(page.locator("[data-part=state]")).to_contain_text(re.compile(r"进程 \d+，启动于"))
        look.visit("/?view=problems")
        expect(page.locator(".problem .when")).to_contain_text(re.compile(r"已尝试 \d+ 次，首次"))
        look.visit(asked(q="国际仲裁"))
        page.get_by_role("link", name="English").click()
        expect(page.get_by_role("link", name="Map")).to_be_visible()
        expect(page.locator("[name=q]")).to_have_value("国际仲裁")
        expect(page).to_have_url(origin + asked(q="国际仲裁"))
        page.reload()
        expect(page.locator("html")).to_have_attribute("lang", "en")


def test_everything_is_reached_by_keys_alone(chromium: Browser, origin: str) -> None:
    def focused() -> str:
        told = page.evaluate("document.activeElement.textContent.trim() || document.activeElement.name")
        assert isinstance(told, str)
        return told

    with looking(chromium, origin) as look:
        page = look.visit("/?view=problems")
        page.keyboard.press("Tab")
        assert focused() == "Skip to the content"
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.keyboard.press("Enter")
        expect(page.get_by_role("main")).to_be_focused()
        page.keyboard.press("Tab")
        assert focused() == "Try all again"
        page.wait_for_timeout(500)
        assert focused() == "Try all again"
        assert not [url for url in asked if "/?" in url], "a jump to the content draws nothing anew"
        page.keyboard.press("/")
        expect(page.get_by_role("searchbox", name="Question")).to_be_focused()
        page.keyboard.type("keeper of the lamp / whale")
        page.keyboard.press("Enter")
        expect(page.locator(".hit").first).to_be_visible()
        reached = []
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.append(focused())
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", reached
            if reached[-1] == "The whale":
                break
        page.keyboard.press("Enter")
        expect(page.locator("td.path")).to_have_text("tales/deep/whale.md")


def test_who_moves_by_keys_keeps_a_place_and_is_told_where(chromium: Browser, origin: str) -> None:
    with looking(chromium, origin) as look:
        page = look.visit("/")
        page.keyboard.type("lamp")
        page.keyboard.press("Enter")
        expect(page.locator(".hit").first).to_be_visible()
        expect(page.get_by_role("main")).to_be_focused()
        page.get_by_role("link", name="Map").press("Enter")
        expect(page.locator("#picture")).to_be_visible()
        expect(page.get_by_role("link", name="Map")).to_be_focused()
        expect(page.locator("#told")).to_have_text("Map")


def test_who_types_on_while_an_answer_is_slow_loses_nothing_and_sees_that_it_comes(
    chromium: Browser, origin: str
) -> None:
    held: list[Route] = []
    with looking(chromium, origin) as look:
        page = look.visit("/?q=lamp")
        page.route("**/?q=whale*", lambda route: held.append(route))  # noqa: PLW0108 - a builtin is no handler
        box = page.get_by_role("searchbox", name="Question")
        box.fill("whale")
        box.press("Enter")
        expect(page.locator(".hits")).to_have_css("opacity", "0.5")
        box.fill("whales and")
        held[0].continue_()
        expect(page.locator(".hit .where").first).to_contain_text("tales/deep/whale.md")
        expect(page.locator(".hits")).to_have_css("opacity", "1")
        expect(box).to_be_focused()
        page.keyboard.type(" ships")
        expect(box).to_have_value("whales and ships")


READABLE = 4.5
DISCERNIBLE = 3.0
"""Least contrast of text, and of the edge of a field, in WCAG 2.2 (1.4.3 and 1.4.11)."""
CONTRASTS = """() => {
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
    .getContext("2d", { willReadFrequently: true });
  const painted = (colours) => {
    colours.forEach((colour) => {
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1);
    });
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (colours) => {
    const [red, green, blue] = painted(colours)
      .map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (each) => getComputedStyle(each).backgroundColor;
  const grounds = (each) => (each ? [...grounds(each.parentElement), ground(each)] : ["#fff"]);
  const contrast = (colour, place) => {
    const [one, other] = [luminance(grounds(place)), luminance([...grounds(place), colour])];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  };
  const texts = [...document.querySelectorAll("body *")].filter(
    (each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) &&
      each.checkVisibility() && !each.closest(".unseen, .skip"));
  const fields = [...document.querySelectorAll(".field")];
  return {
    texts: texts.map((each) => [contrast(getComputedStyle(each).color, each), each.textContent.trim()]),
    fields: fields.map((each) => [contrast(getComputedStyle(each).borderTopColor, each.parentElement), each.name]),
    hints: fields.map((each) => [contrast(getComputedStyle(each, "::placeholder").color, each), each.placeholder]),
  };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_and_field_stands_out_from_its_ground(
    chromium: Browser, origin: str, scheme: Literal["light", "dark"]
) -> None:
    with looking(chromium, origin, scheme=scheme) as look:
        for place in ("/", asked(q="lamp"), asked(q="lamp", meta="no"), *map("/?view={}".format, VIEWS[1:])):
            page = look.visit(place)
            expect(page.locator("#activity li").first).to_be_visible()
            expect(page.locator("#picture:not([hidden])")).to_have_count(int("map" in place))
            seen = page.evaluate(CONTRASTS)
            assert min(seen["texts"])[0] >= READABLE, (place, min(seen["texts"]))
            assert not [each for each in seen["fields"] if each[0] < DISCERNIBLE], place
            assert not [each for each in seen["hints"] if each[0] < READABLE], place


@pytest.mark.parametrize("view", ["search", "documents", "map", "problems"])
def test_a_small_screen_shows_all_without_scrolling_sideways(chromium: Browser, origin: str, view: str) -> None:
    with looking(chromium, origin, width=360, locale="zh-CN") as look:
        page = look.visit(asked(view=view, q="perilous harbours"))
        expect(page.locator(".hit, #picture:not([hidden]), tbody, .problem").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate(
            "[...document.querySelectorAll('.scrolled')].every((each) => each.scrollWidth <= each.clientWidth)"
        )
        if view == "search":
            expect(page.get_by_role("button", name="搜索")).to_be_visible()
        nameless = page.evaluate(
            """[...document.querySelectorAll('a, button, input:not([type=hidden]), select, canvas')].filter(
              (each) => !(each.labels?.length || each.ariaLabel || each.textContent.trim())).length"""
        )
        assert nameless == 0


def test_a_daemon_that_goes_away_and_comes_back_is_told_without_a_reload(
    chromium: Browser, origin: str, site: Site, daemon: Daemon
) -> None:
    with looking(chromium, origin) as look:
        page = look.visit(asked(q="lamp"))
        page.evaluate("window.isSame = true")
        expect(page.locator("#activity")).to_contain_text("Daemon ready")
        look.excused = "net::ERR_"
        assert daemon.terminate() == 0
        expect(page.locator("#away")).to_be_visible()
        expect(page.locator(".hit")).to_have_count(10)
        page.get_by_role("link", name="Documents").click()
        expect(page.locator("#away")).to_be_visible()
        site.start("run").wait_ready()
        expect(page.locator("#away")).to_be_hidden()
        page.get_by_role("link", name="Documents").click()
        expect(page.locator("tbody tr")).to_have_count(50)
        expect(page.locator("#activity").get_by_text("Daemon ready")).to_have_count(2)
        assert page.evaluate("window.isSame")


def test_of_several_collections_the_first_is_looked_at_until_another_is_chosen(
    chromium: Browser, provider: EmbeddingServer, tmp_path: Path
) -> None:
    settings = provider_settings(provider) | {"INGESTOR_HTTP__ENABLED": "true", "INGESTOR_HTTP__PORT": "0"}
    with Site(tmp_path, settings | {"INGESTOR_WATCH__RESCAN_SECONDS": "2"}) as site:
        site.folder.rmdir()
        for name, texts in {"notes": ["A lamp.", "A whale."], "papers": ["A comet."]}.items():
            (tmp_path / name).mkdir()
            for place, text in enumerate(texts):
                (tmp_path / name / f"{place}.txt").write_text(text, encoding="utf-8")
        named = '[[sources]]\nfolder = "notes"\n[[sources]]\nfolder = "papers"\ncollection = "papers"\n'
        (tmp_path / "ingestor.toml").write_text(named, encoding="utf-8")
        daemon = site.start("run").wait_ready()
        with looking(chromium, daemon.http_url()) as look:
            page = look.visit("/")
            expect(page.locator("#documents")).to_have_text("3")
            look.visit(asked(q="lamp"))
            expect(page.locator(".hit")).to_have_count(2)
            look.visit("/?view=map")
            expect(page.locator("#sampled")).to_have_text("2 records, all of the collection")
            page.get_by_role("combobox", name="Collection").select_option("papers")
            page.get_by_role("button", name="Show").click()
            expect(page.locator("#sampled")).to_have_text("1 record, all of the collection")
            page.locator("canvas").focus()
            page.keyboard.press("ArrowRight")
            page.keyboard.press("Enter")
            expect(page.locator(".hit .path")).to_have_text("0.txt:1-1")
            expect(page.locator(".hit")).to_contain_text("A comet.")
            expect(page.locator("#activity")).to_contain_text("Folder compared afresh")
            expect(page.locator("#activity")).not_to_contain_text("rescan_seconds")
            expect(page.locator("#activity .what").filter(has_text="1.txt")).to_contain_text("notes")


def test_how_a_daemon_is_stands_in_one_word_as_the_terminal_has_it(
    chromium: Browser, provider: EmbeddingServer, tmp_path: Path
) -> None:
    settings = provider_settings(provider) | {"INGESTOR_HTTP__ENABLED": "true", "INGESTOR_HTTP__PORT": "0"}
    with Site(tmp_path, settings) as site:
        good = put(site, "good.txt", "A lamp.\n")
        daemon = site.start("run").wait_ready()
        with looking(chromium, daemon.http_url()) as look:
            health = look.visit("/").locator("#health")
            expect(health).to_have_text("In step")
            bad = put(site, "bad.txt", "\0binary\0")
            expect(health).to_have_text("Problems")
            bad.unlink()
            expect(health).to_have_text("In step")
            aside = site.folder.rename(site.folder.with_name("aside"))
            expect(health).to_have_text("Not followed")
            expect(look.page.get_by_role("note")).to_contain_text("gone or out of reach")
            aside.rename(site.folder)
            expect(health).to_have_text("In step")
            assert good.exists()


def test_with_a_token_everybody_signs_in_first(chromium: Browser, provider: EmbeddingServer, tmp_path: Path) -> None:
    token = "a long enough token of no meaning"  # noqa: S105 - of a server that lives for this test
    settings = {
        "INGESTOR_HTTP__ENABLED": "true",
        "INGESTOR_HTTP__PORT": str(free_port()),
        "INGESTOR_HTTP__TOKEN": token,
    }
    with Site(tmp_path, provider_settings(provider) | settings) as guarded:
        put(guarded, "one.txt", "One lamp.\n")
        with looking(chromium, guarded.start("run").wait_ready().http_url(), locale="zh-CN") as look:
            page = look.visit("/?q=lamp")
            expect(page.get_by_role("button", name="登录")).to_be_visible()
            page.get_by_label("令牌").fill("a guess")
            look.excused = "401"
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_contain_text("令牌不正确")
            page.get_by_label("令牌").fill(token)
            page.keyboard.press("Enter")
            expect(page.locator("#documents")).to_have_text("1")
            assert page.url.endswith("/?q=lamp")
            look.page.context.clear_cookies()
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # it looks whether all is as it was
            page.get_by_label("令牌").fill(token)
            page.keyboard.press("Enter")
            expect(page.locator(".hit")).to_have_count(1)
            page.get_by_role("button", name="退出登录").click()
            expect(page.get_by_label("令牌")).to_be_visible()
            look.visit("/?view=documents")
            expect(page.get_by_label("令牌")).to_be_visible()
