"""The report in a real browser: it draws, answers the mouse and the keyboard, and asks nothing of the network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser.chromium import Chromium, Tab

pytestmark = pytest.mark.slow

SHOWN = "(selector) => [...document.querySelectorAll(selector)].filter(e => e.getClientRects().length)"


def count_shown(tab: Tab, selector: str) -> int:
    found = tab.run(f"({SHOWN})({json.dumps(selector)}).length")
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("kind", ["healthy", "failed", "cut_off", "comparison"])
def test_the_page_loads_without_a_complaint_and_without_the_network(
    browser: Chromium, pages: dict[str, Path], kind: str
) -> None:
    tab = browser.open(pages[kind])
    assert tab.complaints() == []
    assert [url for url in tab.requests() if not url.startswith(("file:", "data:"))] == []


def test_the_page_s_policy_refuses_what_it_did_not_bring(browser: Chromium, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["healthy"])
    tab.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:9/x.png\" onerror=\"window.hit = 1\">')"
    )
    tab.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hit = 2'}))")
    assert tab.run("window.hit") is None
    assert any("Content Security Policy" in text for text in tab.complaints())


def test_the_charts_have_lines_a_density_and_the_fault_s_window(browser: Chromium, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["failed"])
    for name in ("p50", "p95", "p99"):
        assert tab.run(f"document.querySelector('.log .line.{name}').getTotalLength()") > 100
    assert count_shown(tab, "#chart-0 .row.latency rect.window") == 3
    assert tab.run("document.querySelector('.density').getBoundingClientRect().width") > 300
    assert count_shown(tab, ".limit-label") >= 4


def test_the_read_out_follows_the_mouse(browser: Chromium, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["failed"])
    assert tab.run("document.querySelector('.readout').hidden") is True
    x, y = tab.middle("#chart-0 .log .plot")
    tab.hover(x, y)
    text = tab.run("document.querySelector('.readout').textContent")
    assert "at 30 s" in text
    assert "p95" in text
    assert "requests50" in text
    lines = tab.run(
        "[...document.querySelectorAll('#chart-0 .cross')].filter(l => l.style.display !== 'none').map(l => l.getAttribute('x1'))"
    )
    assert len(lines) >= 4
    assert len(set(lines)) == 1, "one moment across all charts"
    tab.hover(1, 1)
    assert tab.run("document.querySelector('.readout').hidden") is True
    assert tab.complaints() == []


def test_the_read_out_says_what_the_samples_say(browser: Chromium, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["failed"])
    tab.run("document.querySelector('#chart-0 .plots').focus()")
    tab.key("Home")
    assert tab.run("document.querySelector('.readout b').textContent") == "at 0 s"
    for _ in range(3):
        tab.key("ArrowRight")
    assert tab.run("document.querySelector('.readout b').textContent") == "at 3 s"
    row = tab.run("JSON.parse(document.getElementById('data').textContent)[0].rows[3]")
    shown = tab.run("[...document.querySelectorAll('.readout dd')].map(e => e.textContent)")
    assert shown[1] == f"{row[4]:.3g} ms"
    assert shown[4] == str(row[1])
    tab.key("Escape")
    assert tab.run("document.querySelector('.readout').hidden") is True


def test_the_read_out_stays_inside_at_both_ends(browser: Chromium, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["failed"], width=390)
    tab.run("document.querySelector('#chart-0 .plots').focus()")
    for key in ("Home", "End"):
        tab.key(key)
        box = tab.run("(b => [b.left, b.right])(document.querySelector('.readout').getBoundingClientRect())")
        assert 0 <= box[0] < box[1] <= 390


def test_the_scale_can_be_changed(browser: Chromium, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["failed"])
    first = "#chart-0 "
    assert (count_shown(tab, first + ".log"), count_shown(tab, first + ".linear")) == (1, 0), (
        "a stall shows in decades first"
    )
    tab.click("label[for=scale-0-linear]")
    assert (count_shown(tab, first + ".log"), count_shown(tab, first + ".linear")) == (0, 1)
    tab.click("label[for=scale-0-log]")
    assert (count_shown(tab, first + ".log"), count_shown(tab, first + ".linear")) == (1, 0)


def test_everything_but_the_read_out_works_without_scripts(browser: Chromium, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["failed"], scripts=False)
    shown = browser.call("DOMSnapshot.captureSnapshot", tab.session, computedStyles=["display"])
    assert any("41.2 %" in text for text in shown["strings"])
    root = browser.call("DOM.getDocument", tab.session)["root"]["nodeId"]

    def box(selector: str) -> dict[str, object]:
        node = browser.call("DOM.querySelector", tab.session, nodeId=root, selector=selector)["nodeId"]
        return browser.call("DOM.getBoxModel", tab.session, nodeId=node)["model"]

    assert float(str(box("#chart-0 .log .plot")["width"])) > 500
    label = browser.call("DOM.querySelector", tab.session, nodeId=root, selector="label[for=scale-0-linear]")["nodeId"]
    browser.call("DOM.scrollIntoViewIfNeeded", tab.session, nodeId=label)
    quad = browser.call("DOM.getContentQuads", tab.session, nodeId=label)["quads"][0]
    x, y = (quad[0] + quad[4]) / 2, (quad[1] + quad[5]) / 2
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", tab.session, type=kind, x=x, y=y, button="left", clickCount=1)
    assert float(str(box("#chart-0 .linear .plot")["width"])) > 500


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 390])
@pytest.mark.parametrize("kind", ["healthy", "failed", "comparison"])
def test_nothing_sticks_out_at_any_width(
    browser: Chromium, pages: dict[str, Path], kind: str, width: int, scheme: str
) -> None:
    tab = browser.open(pages[kind], width=width, dark=scheme == "dark")
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.screenshot().startswith(b"\x89PNG")


CONTRAST = """
(() => {
  const light = (c) => { const [r, g, b] = c.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const rgb = (text) => { const m = text.match(/[\\d.]+/g).map(Number); return m.length > 3 && m[3] < 1 ? null : m.slice(0, 3); };
  const ground = (e) => rgb(getComputedStyle(e).backgroundColor);
  const behind = (e) => e ? ground(e) ?? behind(e.parentElement) : [255, 255, 255];
  const worst = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length) continue;
    if (['SCRIPT', 'STYLE'].includes(e.tagName) || e.closest('.skip')) continue;
    const style = getComputedStyle(e);
    const ink = rgb(e instanceof SVGElement ? style.fill : style.color);
    if (!ink) continue;
    const [a, b] = [light(ink), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) worst.push(`${e.tagName}.${e.getAttribute('class')} "${e.textContent.slice(0, 30)}" ${ratio.toFixed(2)}`);
  }
  return worst;
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["healthy", "failed", "cut_off", "comparison"])
def test_text_can_be_read(browser: Chromium, pages: dict[str, Path], kind: str, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of at least 4.5 to 1 against the colour behind."""
    tab = browser.open(pages[kind], dark=scheme == "dark")
    assert tab.run(CONTRAST) == []


def test_the_page_can_be_used_by_ear(browser: Chromium, pages: dict[str, Path]) -> None:
    """Every drawing that means something has a name in the accessibility tree, headings go down one at a time."""
    tab = browser.open(pages["failed"])
    nodes = browser.call("Accessibility.getFullAXTree", tab.session)["nodes"]
    drawings = [node for node in nodes if not node["ignored"] and node.get("role", {}).get("value") in ("image", "img")]
    assert drawings
    assert all(node.get("name", {}).get("value") for node in drawings)
    levels = tab.run("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert tab.run("document.documentElement.lang") == "en"


def test_it_prints(browser: Chromium, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["failed"])
    pdf = browser.call("Page.printToPDF", tab.session, printBackground=True)["data"]
    assert pdf.startswith("JVBERi"), "a PDF"
    browser.call("Emulation.setEmulatedMedia", tab.session, media="print")
    assert count_shown(tab, "nav") == 0
    assert count_shown(tab, ".row.log .plot") >= 1
