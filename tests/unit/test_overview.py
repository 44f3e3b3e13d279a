"""What the page tells of the daemon's state."""

from ingestor.app.status import Cost
from ingestor.web.drawing import drawn
from ingestor.web.overview import Rate, cost_of
from ingestor.web.words import words_of


def test_a_rate_is_what_was_done_in_the_last_minute() -> None:
    rate = Rate()
    assert rate.of(100, 0.0) is None
    assert rate.of(110, 30.0) == 20
    assert rate.of(130, 60.0) == 30
    assert rate.of(130, 200.0) is None


def test_a_rate_begins_anew_where_the_count_does() -> None:
    rate = Rate()
    rate.of(100, 0.0)
    assert rate.of(5, 10.0) is None
    assert rate.of(10, 20.0) == 30


def test_a_page_is_drawn_in_the_readers_language_and_theme() -> None:
    refused, asked = (
        drawn("login.html", words=words_of("zh"), theme="dark", field="token", is_refused=is_refused)
        for is_refused in (True, False)
    )
    assert 'lang="zh-CN" data-theme="dark"' in asked
    assert "令牌不正确" in refused
    assert "令牌不正确" not in asked


def test_costs_are_summed_by_currency_and_grouped_by_thousands() -> None:
    costs = [Cost(1_234.5, "CNY", 0, None), Cost(0.5, "CNY", 0, None), Cost(0.25, "USD", 0, None)]
    assert cost_of([*costs, Cost(None, "USD", 0, None)]) == "1,235.0000 CNY + 0.2500 USD"
    assert cost_of([Cost(2.0, "", 0, None)]) == "2.0000"
    assert cost_of([Cost(0.0, "CNY", 0, None)]) == ""
