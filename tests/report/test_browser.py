"""The page in a real browser: it renders, everything on it works by hand and by keyboard, and nothing leaves the machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentshift.report.page import write_report


def opened(browser: Any, page: Path) -> Any:
    """Open a page from the disk and wait until it says that it is ready."""
    browser.get(page.as_uri())
    until(lambda: browser.execute_script("return document.documentElement.dataset.ready"), "the page never got ready")
    return browser


def until(true: Callable[[], Any], what: str, seconds: float = 10.0) -> Any:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError(what)


def keys(browser: Any, *pressed: str) -> None:
    """Press keys, wherever the focus is."""
    from selenium.webdriver.common.action_chains import ActionChains

    chain = ActionChains(browser)
    for key in pressed:
        chain.send_keys(key)
    chain.perform()


def press(browser: Any, selector: str) -> None:
    """Press a button."""
    from selenium.webdriver.common.keys import Keys

    browser.execute_script(f"document.querySelector({json.dumps(selector)}).focus()")
    keys(browser, Keys.ENTER)


def names(browser: Any) -> list[str]:
    """Return the names of the cards in order."""
    script = "return [...document.querySelectorAll('.card .who span:first-child')].map(e => e.textContent)"
    found: list[str] = browser.execute_script(script)
    return found


def text(browser: Any, selector: str) -> str:
    """Return the text of one element."""
    found: str = browser.execute_script(f"return document.querySelector({json.dumps(selector)}).textContent")
    return found


def assert_quiet(browser: Any) -> None:
    """No error in the console, and no request but the page itself and its own data."""
    log = browser.get_log("browser")
    assert log == [], log
    asked = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    assert asked, "the browser did not log requests"
    assert [u for u in asked if not u.startswith(("file:///", "data:", "blob:", "chrome:", "about:"))] == []
    assert len({u for u in asked if u.startswith("file:///")}) == 1


@pytest.mark.parametrize("width", [1280, 390])
def test_renders_without_error_or_request(browser: Any, image_run: Path, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    )
    opened(browser, image_run / "report.html")
    cards = len(names(browser))
    assert cards == (24 if width < 600 else 60)
    seen = browser.execute_script(
        "document.querySelectorAll('.card img').forEach(i => i.loading = 'eager');"
        "return Promise.all([...document.querySelectorAll('.card img')].map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert seen == [32] * (2 * cards)
    assert all(browser.execute_script("return [...document.querySelectorAll('.card img')].map(i => i.alt)"))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.querySelectorAll('svg.chart').length") == 3
    assert "Unverified: no real images were given" in text(browser, ".notice")
    assert_quiet(browser)


def test_sorting(browser: Any, image_run: Path) -> None:
    opened(browser, image_run / "report.html")
    rows = {r["name"]: r for r in json.loads(text(browser, "#data"))["samples"]}

    def sorted_by(value: str) -> list[dict[str, Any]]:
        browser.execute_script(
            "const s = document.getElementById('sort'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))", value
        )
        return [rows[n] for n in names(browser)]

    assert [r["gain"] for r in sorted_by("gain")] == sorted((r["gain"] for r in rows.values()), reverse=True)[:60]
    assert [r["gain"] for r in sorted_by("gain-")] == sorted(r["gain"] for r in rows.values())[:60]
    assert [r["after"] for r in sorted_by("after")] == sorted((r["after"] for r in rows.values()), reverse=True)[:60]
    assert [r["seed"] for r in sorted_by("seed")] == list(range(60))
    assert "sorted by seed" in text(browser, "#live")
    press(browser, "#more")
    assert len(names(browser)) == 64
    assert not browser.find_element("id", "more").is_displayed()


def test_slider(browser: Any, image_run: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, image_run / "report.html")
    press(browser, "[data-view=wipe]")
    slider = browser.find_element("id", "wipe")
    clip = "return getComputedStyle(document.querySelector('.card .shots > span:nth-child(2)')).clipPath"
    browser.execute_script("arguments[0].focus()", slider)
    keys(browser, Keys.END)
    assert "100%" in browser.execute_script(clip)  # before everywhere
    keys(browser, Keys.HOME, Keys.ARROW_RIGHT)
    assert " 1%" in browser.execute_script(clip)
    press(browser, "[data-view=pair]")
    assert browser.execute_script(clip) == "none"
    assert_quiet(browser)


def test_keyboard_alone_and_export(browser: Any, image_run: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, image_run / "report.html")
    for _ in range(40):  # reach the first card by Tab alone
        keys(browser, Keys.TAB)
        if browser.execute_script("return document.activeElement.classList.contains('card')"):
            break
    else:
        raise AssertionError("Tab never reaches a card")
    order = names(browser)
    keys(browser, "k", Keys.ARROW_RIGHT, "r", Keys.ARROW_RIGHT, "k", Keys.ARROW_DOWN, "k", "u")
    assert (text(browser, "#count-keep"), text(browser, "#count-drop")) == ("2", "1")
    assert "undecided" in text(browser, "#live")
    kept = sorted(int(order[i].removeprefix("seed")) for i in (0, 2))
    columns = browser.execute_script(
        "const c = [...document.querySelectorAll('.card')]; return c.findIndex(x => x.offsetTop > c[0].offsetTop)"
    )
    assert browser.execute_script("return document.activeElement.getAttribute('aria-label')").startswith(order[2 + columns])
    assert "kept" in browser.execute_script("return document.querySelectorAll('.card')[0].getAttribute('aria-label')")
    # the large view
    keys(browser, Keys.ENTER)
    assert browser.find_element("id", "big").is_displayed()
    assert text(browser, "#big-h") == order[2 + columns]
    keys(browser, Keys.HOME)
    assert browser.execute_script("return document.getElementById('stage').style.getPropertyValue('--wipe')") == "0%"
    keys(browser, "n", "r")
    assert text(browser, "#big-h") == order[3 + columns]
    assert text(browser, "#count-drop") == "2"
    keys(browser, Keys.ESCAPE)
    until(lambda: not browser.find_element("id", "big").is_displayed(), "Escape does not close the large view")
    # saved files
    browser.execute_script("document.getElementById('export-seeds').focus()")
    keys(browser, Keys.ENTER)
    listed = until(lambda: (p := tmp_path / "down" / "seeds.txt").is_file() and p.read_text(), "no seed list was saved")
    from latentshift.noise import parse_seeds

    assert parse_seeds(listed.strip()) == kept
    browser.execute_script("document.getElementById('export-json').focus()")
    keys(browser, Keys.ENTER)
    saved = until(lambda: (p := tmp_path / "down" / "choice.json").is_file() and p.read_text(), "no JSON was saved")
    choice = json.loads(saved)
    assert sorted(r["seed"] for r in choice["kept"]) == kept
    assert len(choice["rejected"]) == 2
    record = json.loads((image_run / "run.json").read_text())
    assert choice["model_sha256"] == record["model_sha256"]
    jsonschema = pytest.importorskip("jsonschema")
    schema = Path(__file__).parents[2] / "docs/schema/choice.json"
    jsonschema.validate(choice, json.loads(schema.read_text()))
    # a reload keeps the choice, a filter shows it, clearing takes it back
    opened(browser, image_run / "report.html")
    assert text(browser, "#count-keep") == "2"
    browser.execute_script(
        "const s = document.getElementById('filter'); s.value = 'keep'; s.dispatchEvent(new Event('change'))"
    )
    assert sorted(int(n.removeprefix("seed")) for n in names(browser)) == kept
    press(browser, "#clear")
    assert text(browser, "#count-keep") == "0"
    assert names(browser) == []
    assert_quiet(browser)


def test_hostile_texts_stay_texts(browser: Any, hostile: Path) -> None:
    write_report(hostile)
    opened(browser, hostile / "report.html")
    assert "owned" in browser.title  # as the text that it is
    assert browser.title.endswith("– latentshift")
    assert browser.execute_script("return document.querySelectorAll('script').length") == 2
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert "</script><img" in text(browser, "h1")
    browser.execute_script("document.querySelector('.card .shots').click()")
    assert "</script><img" in text(browser, "#big-facts")
    assert_quiet(browser)


def test_policy_refuses_what_is_injected(browser: Any, image_run: Path) -> None:
    """Were a text to get through after all, the page's own policy would not run it."""
    opened(browser, image_run / "report.html")
    browser.execute_script(
        "const d = document.createElement('div'); d.innerHTML = '<img src=x onerror=\"window.bad = 1\">';"
        "document.body.append(d);"
        "const s = document.createElement('script'); s.textContent = 'window.bad = 2'; document.body.append(s)"
    )
    time.sleep(0.3)
    assert browser.execute_script("return window.bad === undefined")
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def test_points_move_with_the_slider(browser: Any, point_run: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    write_report(point_run)
    opened(browser, point_run / "report.html")
    picture = "return document.getElementById('plane-after').toDataURL()"
    ends = browser.execute_script(picture)
    browser.execute_script("document.getElementById('travel').focus()")
    keys(browser, Keys.HOME)
    assert browser.execute_script(picture) != ends
    label = browser.execute_script("return document.getElementById('plane-before').getAttribute('aria-label')")
    assert "40 points before" in label
    browser.execute_script("document.querySelector('.card').focus()")
    keys(browser, "k")
    assert text(browser, "#count-keep") == "1"
    assert_quiet(browser)


def test_themes_have_contrast(browser: Any, image_run: Path) -> None:
    """WCAG AA: 4.5 to 1 for every text, in light and in dark."""
    script = (Path(__file__).parent / "contrast.js").read_text()
    found = {}
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        opened(browser, image_run / "report.html")
        theme, low = browser.execute_script(script)
        assert low == []
        found[scheme] = theme
    assert found == {"light": "light", "dark": "dark"}
    press(browser, "#theme")
    assert browser.execute_script("return document.documentElement.dataset.theme") == "light"


@pytest.mark.parametrize(("which", "seconds", "megabytes"), [("image_run", 1.0, 2.0), ("many_run", 3.0, 25.0)])
def test_size_and_time(browser: Any, request: pytest.FixtureRequest, which: str, seconds: float, megabytes: float) -> None:
    page = request.getfixturevalue(which) / "report.html"
    assert page.stat().st_size < megabytes * 1e6
    browser.get("about:blank")  # the browser itself is awake
    opened(browser, page)
    assert int(browser.execute_script("return document.documentElement.dataset.ready")) < seconds * 1000
