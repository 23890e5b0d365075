"""The report page in a browser: it needs nothing else, says what the results say, by keyboard and on a small screen."""

import base64
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

from report.page import write_page
from report.results import KernelResult, TestResult
from report.table import SIGNS
from report.verdict import compare
from tests.harness.page_results import HOSTILE, SHOWN, STORY, WORDS, capture, hostile_kernel, kernels

playwright = pytest.importorskip("playwright.sync_api", reason="./kdrift selftest installs the browser's driver")
RUN = {
    "started": "2026-01-01T00:00:00+00:00",
    "duration_s": 61.5,
    "arguments": ["-k", HOSTILE],
    "python": "3.11.2",
    "exit_status": 1,
}
WIDTHS = [400, 1600]
FAILED = "#6.1/tests/keepalive/test_part_0.py::test_promise_number_7_is_kept_by_the_kernel"
# What is wider inside than outside, with all that can be opened open, and each part of the page in sight once.
TOO_WIDE = """async place => {
    for (const box of document.querySelectorAll(`${place} details`)) {
        box.open = true;
        box.scrollIntoView();
        await new Promise(requestAnimationFrame);
    }
    const boxes = document.querySelectorAll(`html, ${place}, ${place} details, ${place} section`);
    const wide = [...boxes].filter(box => box.scrollWidth > box.clientWidth);
    return wide.map(box => `${box.nodeName} ${box.textContent.slice(0, 60)}`);
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """open_page(kernels, width, address): the page of these results. A complaint of it fails the test, or a request."""
    complaints, requests, contexts = [], [], []

    def open_page(results: list[KernelResult], width: int = 1600, address: str = "", validate: bool = False):
        path = written(tmp_path, results, validate)
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}))
        contexts[-1].set_default_timeout(10_000)
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri() + address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url.partition("#")[0] for url in requests} == {(tmp_path / "index.html").as_uri()}


def written(directory: Path, results: list[KernelResult], validate: bool = False) -> Path:
    old, *others = results
    write_page(directory / "index.html", RUN, results, [compare(old, new) for new in others] if validate else [])
    return directory / "index.html"


def press(page, key: str) -> str:
    """The sign that has the focus after a key."""
    page.keyboard.press(key)
    return page.evaluate("document.activeElement.getAttribute('href')")


def click(page, link) -> None:
    """Open a test's dialog by its link: the click changes the address, and the dialog follows in an event of its own."""
    link.click()
    page.wait_for_selector("dialog[open]")


def close(page) -> None:
    """Close the dialog. The focus is back and the address is the page's own when this returns."""
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="hidden")
    page.wait_for_url(lambda url: "#" not in url)


def test_every_sign_is_reached_and_opened_by_keyboard(open_page):
    page = open_page(kernels(3, 12))
    page.get_by_placeholder("filter tests").focus()
    here = page.evaluate("document.activeElement.outerHTML")
    while 'a class="sign' not in here:
        page.keyboard.press("Tab")
        here = page.evaluate("document.activeElement.outerHTML")

    opened, row = [], press(page, "Home")
    while row:
        sign = row
        while True:
            opened.append(sign)
            page.keyboard.press("Enter")
            page.wait_for_selector("dialog[open]")
            assert page.locator("dialog .id").inner_text() == unquote(sign).partition("/")[2]
            close(page)
            assert page.evaluate("document.activeElement.getAttribute('href')") == sign
            if (following := press(page, "ArrowRight")) == sign:
                break
            sign = following
        press(page, "Home")
        row = following if (following := press(page, "ArrowDown")) != row else None

    assert opened == page.locator("#matrix a.sign").evaluate_all(
        "signs => signs.map(sign => sign.getAttribute('href'))"
    )
    assert len(opened) == sum(len(kernel.tests) for kernel in kernels(3, 12)) == 45


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(open_page, width):
    """Nor is anything cut off: a plot, a ladder and a table of more than eight kernels scroll by themselves."""
    page = open_page([*kernels(7, 40), hostile_kernel()], width, validate=True)

    assert page.evaluate(TOO_WIDE, "body") == []

    for sign in ("failed[href*=promise]", "failed[href*=test_y]", "known"):
        click(page, page.locator(f"#matrix a.sign.{sign}").first)
        assert page.evaluate(TOO_WIDE, "dialog") == []
        close(page)


def test_the_page_opens_within_a_second(open_page):
    """8 kernels with 300 tests each, 35 failures among them: by the browser's own clock, the best of three."""
    page = open_page(kernels(8, 300), validate=True)
    took = []
    for _ in range(3):
        page.reload()
        took.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))

    assert 0 < min(took) < 1000, took


def test_hostile_text_stays_text(open_page):
    """Nothing that a test printed becomes an element; control characters and marks of direction are made visible."""
    page = open_page([hostile_kernel(), hostile_kernel()], validate=True)
    click(page, page.locator("#matrix a.sign").first)
    page.locator("dialog details").evaluate_all("boxes => boxes.forEach(box => { box.open = true })")
    page.wait_for_selector("dialog >> text=Cannot draw this capture")

    assert page.locator("img, b, dialog script").count() == 0
    for place in (
        "dialog .promise",
        "dialog .message",
        "dialog li",
        "#environment dd",
        "#verdict .headline",
        ".card strong",
    ):
        texts = page.locator(place).evaluate_all("all => all.map(each => each.textContent)")
        assert any(SHOWN in text for text in texts), (place, texts)


@pytest.mark.parametrize("validate", [False, True])
def test_the_verdict_comes_first_in_its_own_words(open_page, validate):
    results = kernels(2, 80)
    page = open_page(results, validate=validate)
    first = page.locator("main h2").first.inner_text().partition("\n")[2].strip()

    assert first == (compare(*results).lines()[0] if validate else "6.0: 100 passed")
    assert page.locator("#verdict li a.test").count() == (7 if validate else 5)


def test_nothing_is_left_out_of_the_verdict(open_page):
    """What is gone, new, skipped on both, left out or not judged has a list of its own, and each test is in one of them."""
    def skipped(name, who):
        return TestResult(f"t.py::test_{name}", "skipped", skip=who, message="no tun")

    old = KernelResult("6.0", "6.0", tests=[TestResult("t.py::test_gone"), skipped("new", "kernel"), skipped("both", "kernel"),
                                            TestResult("t.py::test_left")])
    new = KernelResult("6.1", "6.1", tests=[skipped("gone", "kernel"), TestResult("t.py::test_new"), skipped("both", "kernel"),
                                            skipped("host", "host")],
                       unrun=["t.py::test_left"])
    page = open_page([old, new], validate=True)

    titles = page.locator("#verdict article > details > summary").all_inner_texts()
    assert [title.strip() for title in titles] == [
        "Incomplete (1)", "Gone: the new kernel lacks a feature (1)", "New: the old kernel lacks a feature (1)",
        "Skipped on both: both kernels lack a feature (1)", "Not judged (2)"]
    links = page.locator("#verdict li a.test")
    assert {links.nth(number).get_attribute("href").rpartition("test_")[2] for number in range(links.count())} == {
        "gone", "new", "both", "left", "host"}


def test_signs_are_those_of_the_table(open_page):
    """They can be told apart without colour, and toggles take tests without a wanted outcome away."""
    page = open_page(kernels(2, 80))
    for outcome, (sign, _style) in SIGNS.items():
        assert set(page.locator(f"#matrix .sign.{outcome}").all_inner_texts()) == {sign}
    assert page.locator("#matrix tr.test").count() == 80

    page.locator("#tests .toggle", has_text="passed").click()
    page.locator("#tests .toggle", has_text="known").click()

    # Eight are something else than passed on the second kernel, one of them known.
    assert page.locator("#matrix tr.test:visible").count() == 7
    page.get_by_placeholder("filter tests").fill("number_7 KEEPALIVE")
    assert page.locator("#matrix tr.test:visible").count() == 1


def test_an_address_leads_to_its_test(open_page):
    page = open_page(kernels(2, 10), address=FAILED)
    assert page.locator("dialog[open] .bar").inner_text().split() == [
        "F",
        "failed",
        "on",
        "6.1",
        "\N{MULTIPLICATION SIGN}",
    ]

    close(page)

    assert page.evaluate("document.activeElement.getAttribute('href')") == FAILED


def test_a_capture_is_drawn_as_a_ladder(open_page):
    page = open_page(kernels(2, 10), address=FAILED)

    assert page.locator(".packet > text:not(.time)").all_text_contents() == WORDS
    assert page.locator(".hosts .host").evaluate_all("hosts => hosts.map(host => host.firstChild.data)") == [
        "client",
        "router",
        "server",
    ]
    assert page.locator(".ladder .time").nth(3).text_content() == "1.500000"
    with page.expect_download() as download:
        page.locator("dialog a", has_text="download the pcap file").first.click()
    assert Path(download.value.path()).read_bytes() == base64.b64decode(capture(STORY))

    page.locator("dialog summary", has_text="Packets of server").click()
    page.locator("dialog p", has_text="The last 200 of 300 packets").wait_for()
    assert page.locator("dialog details[open] .ladder").nth(1).locator(".packet").count() == 200


def test_measurements_show_what_moved(open_page):
    page = open_page(kernels(4, 4))
    assert page.locator(".card.moved").count() == page.locator(".card").count() == 5
    assert page.locator(".card").first.locator(".value").all_text_contents() == ["7922.8", "7923.8", "7922.8"]
    assert page.locator(".card").first.locator(".dot.moved").count() == 1

    page.get_by_placeholder("filter measurements").fill("ipv6")

    assert page.locator(".card:visible").count() == 1


def changed(count: int, functions: int, kinds: int) -> list[KernelResult]:
    """Kernels whose tests send other packets and have other counters from one to the next, so many kinds of them."""
    results = kernels(count, functions)
    for number, kernel in enumerate(results):
        kernel.version = f"6.{number}.1-1"
        for index, test in enumerate(kernel.tests):
            test.traffic = {f"client counts Tcp.Number{index % kinds}": 1 + number, "the kernel logs: a line": 1}
            if number:
                test.traffic["client counts Ip.OutTransmits"] = 5
    return results


def test_each_kind_of_change_stands_there_once_with_all_its_tests(open_page):
    page = open_page(changed(2, 80, 3), validate=True)
    section = page.locator("#verdict details", has_text="Changes: 3 behaviour changes: 0 explained, 3 not; 1 vocabulary change").first

    section.locator("details > summary", has_text="Vocabulary").last.click()
    section.locator(".kind").nth(3).wait_for()
    kinds = section.locator(".kind").all_text_contents()
    assert len(kinds) == 4
    assert kinds[-1].startswith("counter Ip.OutTransmits is new (9")
    section.locator(".kind").first.click()
    tests = section.locator("details details li a.test")
    tests.first.wait_for()
    assert f"({tests.count()} tests)" in kinds[0]
    click(page, tests.first)
    assert page.locator("dialog[open] .id").count() == 1


def test_the_kinds_of_a_whole_suite_are_made_when_they_are_looked_at(open_page):
    """1400 tests on each of 8 kernels, 60 kinds of change between the first and each other: the page opens without them."""
    page = open_page(changed(8, 1120, 60), validate=True)

    assert page.locator("#verdict .kind").count() == 0
    page.locator("#verdict summary", has_text="Behaviour (60)").first.click()
    page.locator("#verdict .kind").nth(59).wait_for()
