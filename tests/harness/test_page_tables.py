"""The report page's tables in a browser: what each cell showed on each kernel, by one click with its packets."""

import base64
from urllib.parse import unquote

import pytest

from report.page import parameters_besides
from tests.harness.page_results import SHOWN, STORY, WORDS, capture, hostile_kernel, kernels, tabled
from tests.harness.test_page import browser, click, close, open_page, press  # noqa: F401

FILE = "tests/tcp/test_subject_0.py::test_answer_of_a_state"


@pytest.fixture
def tables(open_page):  # noqa: F811
    """tables(results, ...): the page with all matrices drawn."""
    def opened(results, **options):
        page = open_page(results, **options)
        page.locator("#tables details").evaluate_all("boxes => boxes.forEach(box => { box.open = true })")
        page.wait_for_function("document.querySelectorAll('#tables details > div').length"
                               " === document.querySelectorAll('#tables details').length")
        return page

    return opened


def cell(page, row: str, column: str, matrix: int = 0):
    """The links of a cell, by the names of its row and column."""
    grid = page.locator("#tables .wide table").nth(matrix)
    heads = grid.locator("thead th").evaluate_all("heads => heads.map(head => head.title)")
    return grid.locator("tr.test", has=page.locator(f"th[title='{row}']")).locator("th, td").nth(heads.index(column)).locator("a.cell")


def test_without_a_table_there_is_no_section(open_page):  # noqa: F811
    page = open_page(kernels(2, 3))
    assert not page.locator("#tables").is_visible()
    assert page.locator("nav a:visible").all_inner_texts() == ["verdict", "tests", "measurements", "environment"]


def test_each_parameter_set_is_a_matrix_and_each_cell_says_what_was_seen(tables):
    page = tables(tabled(3))
    assert page.locator("nav a:visible", has_text="tables").count() == 1
    assert page.locator("#tables h3").all_inner_texts() == ["ipv4", "ipv6"]
    assert page.locator("#tables .tally").inner_text().split("\n") == ["40 cells", "8 measured", "✗ 1 not as expected", "9 differ"]
    assert cell(page, "CLOSED", "segment 0").all_inner_texts() == ["RST"]
    assert cell(page, "CLOSED", "segment 0").get_attribute("title") == "CLOSED, segment 0 on 6.0 to 6.2: RST; expected RST"
    assert page.locator("#tables td.measured").count() == 8


def test_a_cell_that_differs_has_what_each_kernel_showed(tables):
    """Kernels that showed the same stand together: one text on the last of three, then one on each."""
    page = tables(tabled(3))
    last, each = cell(page, "CLOSED", "segment 4, old data"), cell(page, "LISTEN", "segment 2")
    assert last.locator(".label").all_inner_texts() == ["6.0, 6.1", "6.2"]
    assert last.locator(".text").all_inner_texts() == ["ACK, CLOSE-WAIT, ECONNRESET", "RST"]
    assert each.locator(".label").all_inner_texts() == ["6.0", "6.1", "6.2"]
    click(page, last.first)
    assert "passed on 6.1" in page.locator("dialog .bar").inner_text()
    assert page.locator("dialog .others .sign").count() == 3      # of this row alone
    assert page.locator("dialog .chosen li").all_inner_texts() == ["6.0, 6.1: ACK, CLOSE-WAIT, ECONNRESET", "6.2: RST"]


def test_a_cell_that_is_not_as_expected_is_marked_and_its_row_has_the_sign(tables):
    page = tables(tabled(3))
    wrong = cell(page, "SYN-RECEIVED", "segment 0", matrix=1).last
    assert wrong.inner_text() == "6.2\n✗wrong"
    assert page.locator("#tables a.cell.wrong").count() == 1
    assert page.locator("#tables tr.test > th a.sign").evaluate_all("signs => signs.map(sign => sign.textContent)") == ["F"]
    click(page, wrong)
    assert page.locator("dialog .cells tr.wrong").all_inner_texts() == ["segment 0\t✗wrong\tRST"]


def test_only_what_differs_what_is_wrong_and_what_is_asked_for_is_left(tables):
    page = tables(tabled(3))
    rows, heads = page.locator("#tables tr.test:visible"), page.locator("#tables thead th:not(.corner):visible")
    page.locator("#tables .toggle", has_text="differs").click()
    assert (rows.count(), page.locator("#tables .shown").inner_text()) == (8, "9 of 40 cells")
    assert set(heads.all_inner_texts()) == {"segment 0", "segment 2", "segment 3, old data", "segment 4, old data"}
    strong = page.locator("#tables td:visible:not(.faint)")
    assert strong.count() == strong.and_(page.locator(".differs")).count() == 9

    page.locator("#tables .toggle", has_text="differs").click()
    page.locator("#tables .toggle", has_text="not as expected").click()
    assert (rows.count(), heads.all_inner_texts()) == (1, ["segment 0"])

    page.locator("#tables .toggle", has_text="not as expected").click()
    page.get_by_placeholder("filter cells").fill("LISTEN segment challenge IPV6")
    assert page.locator("#tables h3:visible").all_inner_texts() == ["ipv6"]
    assert set(page.locator("#tables td:visible:not(.faint) .text").all_inner_texts()) >= {"challenge ACK, ESTABLISHED, TCPChallengeACK +1"}
    page.get_by_placeholder("filter cells").fill("no such word")
    assert not page.locator("#tables details").is_visible()


def test_a_cell_shows_its_packets_alone_and_all_of_its_row_by_a_switch(tables):
    """Packets come each half second from 0.25 s before the first cell on, cells last a second: two packets each."""
    page = tables(tabled(3))
    click(page, cell(page, "CLOSED", "segment 1"))
    page.wait_for_selector("dialog .packet")
    texts = page.locator("dialog .packet > text:not(.time)")
    assert texts.all_text_contents() == WORDS[3:5]
    assert page.locator("dialog .packet .time").all_text_contents() == ["0.250000", "0.750000"]
    assert page.locator("dialog .hosts .host").evaluate_all("hosts => hosts.map(host => host.firstChild.data)")[0] == "client"
    assert page.locator("dialog tr[aria-current]").inner_text().startswith("segment 1\t")

    page.locator("dialog .toggle").first.click()
    assert texts.all_text_contents() == WORDS[:10]
    with page.expect_download() as download:
        page.locator("dialog a", has_text="download the pcap file").first.click()
    assert download.value.path().read_bytes() == base64.b64decode(capture(STORY[:10]))

    click(page, page.locator("dialog .cells a", has_text="segment 0"))
    page.wait_for_function("document.querySelectorAll('dialog .packet').length === 2")
    assert texts.all_text_contents() == WORDS[1:3]


def test_cells_are_reached_and_opened_by_keyboard(tables):
    page = tables(tabled(2))
    assert page.locator("#tables a.cell[tabindex='0']").count() == 2        # one of each matrix
    cell(page, "CLOSED", "segment 0").focus()
    seen = [unquote(press(page, key)).partition("[")[2] for key in ("ArrowRight", "ArrowDown", "End", "Home", "ArrowUp")]
    assert seen == ["ipv4-CLOSED]?segment 1", "ipv4-LISTEN]?segment 1", "ipv4-LISTEN]?segment 4, old data", "ipv4-LISTEN]?segment 0",
                    "ipv4-CLOSED]?segment 0"]
    one, other = [f"#{kernel}/{FILE}[ipv4-CLOSED]?segment 4, old data" for kernel in ("6.0", "6.1")]       # of one cell
    assert [unquote(press(page, key)) for key in ("End", "ArrowLeft", "ArrowRight")] == [other, one, other]
    press(page, "Home")
    here = press(page, "ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert "segment 1:" in page.locator("dialog .chosen p").first.inner_text()
    close(page)
    assert page.evaluate("document.activeElement.getAttribute('href')") == here


def test_an_address_leads_to_its_cell(open_page):  # noqa: F811
    page = open_page(tabled(2), address=f"#6.0/{FILE}%5Bipv6-LISTEN%5D?segment%202")
    page.wait_for_selector("dialog[open]")
    assert page.locator("dialog .chosen p").first.inner_text().startswith("state LISTEN, arriving segment segment 2: ")


@pytest.mark.parametrize("width", [400, 1600])
def test_a_table_scrolls_by_itself_and_its_rows_keep_their_names(tables, width):
    page = tables(tabled(5, 1, 12, 30), width=width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.locator("#tables .wide").first
    box.evaluate("box => box.scrollTo(500, 200)")
    assert box.evaluate("box => [box.scrollLeft, box.scrollTop]") == [500, 200]
    head = page.locator("#tables tr.test > th").first.bounding_box()
    assert head["x"] == pytest.approx(box.bounding_box()["x"], abs=1)
    assert page.locator("#tables thead").first.locator("th").nth(1).bounding_box()["y"] == pytest.approx(box.bounding_box()["y"], abs=1)


def test_large_tables_open_within_a_second(open_page):  # noqa: F811
    """4160 cells on each of 5 kernels: by the browser's own clock, the best of three; no matrix is drawn before it is looked at."""
    page = open_page(tabled(5, 13, 10, 16))
    took = []
    for _ in range(3):
        page.reload()
        took.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    assert 0 < min(took) < 1000, took
    assert page.locator("#tables .shown").inner_text() == "4160 of 4160 cells"
    assert page.locator("#tables a.cell").count() == 0
    page.locator("#tables summary").first.click()
    page.wait_for_selector("#tables a.cell")
    assert page.locator("#tables tr.test").count() == 20


def test_hostile_text_in_a_cell_stays_text(tables):
    page = tables([hostile_kernel(), hostile_kernel()])
    link = page.locator("#tables a.cell")
    assert SHOWN in link.get_attribute("title")
    assert SHOWN in link.locator(".text").text_content()
    click(page, link)
    assert SHOWN in page.locator("dialog .chosen strong").text_content()
    assert page.locator("img, b, dialog script").count() == 0


def test_a_change_leads_to_the_cell(open_page):  # noqa: F811
    results = tabled(2)
    for number, kernel in enumerate(results):
        for test in kernel.tests:
            test.traffic = {f"cell {each['table']}, {each['column']}: {each['seen']}": 1 for each in test.cells} | {"c counts A.B": 1}
            kernel.version = f"6.{number}.1-1"
    page = open_page(results, validate=True)
    page.locator("#verdict summary .kind", has_text="tcp.subject_0, segment 2").first.click()
    click(page, page.locator("#verdict details details li a.test:visible").first)
    assert page.locator("dialog .chosen p").first.inner_text().split(", ")[1].startswith("arriving segment segment 2:")


@pytest.mark.parametrize("row, test, rest", [
    ("LISTEN", "t.py::test[ipv4-LISTEN]", "ipv4"), ("LISTEN", "t.py::test[LISTEN-ipv4]", "ipv4"), ("LISTEN", "t.py::test[LISTEN]", ""),
    ("SYN-SENT", "t.py::test[ipv4-SYN-SENT-x]", "ipv4-x"), ("a", "t.py::test[a-x-a]", "x-a"), ("a [b]", "t.py::test[ipv4-a [b]]", "ipv4"),
    ("µ", r"t.py::test[ipv6-\xb5]", "ipv6"),
])
def test_a_parameter_set_is_what_an_id_has_besides_the_row(row, test, rest):
    assert parameters_besides(row, test) == rest
