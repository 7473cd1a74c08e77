"""The page in a real browser."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import runs
from dash import PROBE, many, observed
from support import session

import nwbflow
from nwbflow.model.events import RunFailed, RunStarted, Warned
from nwbflow.observe import Dashboard

pytestmark = pytest.mark.requirement("M4")

EVIL = '<img src=x onerror="document.body.dataset.owned=1">'


class View:
    """What somebody who looks at the page sees."""

    def __init__(self, browser):
        self.browser = browser

    def open(self, url, *, dark=False, width=1280, height=900):
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.browser.get_log("browser")
        self.browser.get(url)
        self.until(lambda: self.text("#link") == "Live")

    def until(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 30, poll_frequency=0.02).until(lambda _: condition())

    def run(self, script):
        return self.browser.execute_script(script)

    def text(self, selector):
        script = "return document.querySelector(arguments[0])?.textContent ?? null"
        return self.browser.execute_script(script, selector)

    def texts(self, selector):
        script = (
            "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).map(e => e.innerText)"
        )
        return [t.replace("\xa0", " ").replace("\u202f", " ") for t in self.browser.execute_script(script, selector)]

    def readings(self):
        """Return figure and unit by label."""
        boxes = [box.split("\n") for box in self.texts("#readings > div")]
        return {box[0]: " ".join(box[1:3]) for box in boxes}

    def receipt(self):
        return dict(zip(self.texts("#ending dt"), self.texts("#ending dd"), strict=True))

    def complaints(self):
        """Return what the browser found wrong, other than that nobody answered."""
        found = [entry["message"] for entry in self.browser.get_log("browser")]
        return [text for text in found if "ERR_CONNECTION" not in text and "ERR_INCOMPLETE" not in text]


@pytest.fixture
def view(browser):
    yield View(browser)
    browser.get("about:blank")


def megabytes(count):
    size = count / 1e6
    return f"{size:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f} MB"


def began(*names, path=runs.PATH):
    return RunStarted(path=path, datasets=names, raw_bytes=None, workers=2)


def test_the_figures_are_those_of_the_receipt_and_outlive_the_recorder(view, no_thread_left, tmp_path):
    data = np.random.default_rng(1).integers(-50, 50, (300_000, 8)).astype("int16")
    with Dashboard(0) as page:
        view.open(page.url)
        assert view.text("h1") == "No run yet"
        receipt = nwbflow.write(session(probe=data, eeg=data[:90_000]), tmp_path / "first.nwb", progress=page)
    port = page.port
    view.until(lambda: view.text("#link") != "Live")
    assert "has ended" in view.text("#banner")
    assert view.text("#state") == "finished"
    readings, told = view.readings(), view.receipt()
    assert readings["Data"] == megabytes(receipt.raw_bytes)
    assert readings["Stored"] == megabytes(receipt.stored_bytes)
    assert readings["Compression"] == f"{receipt.ratio:.2f} to 1"
    assert told["File"] == f"{receipt.path}, {megabytes(receipt.path.stat().st_size)}"
    sizes = f"{megabytes(receipt.raw_bytes)} in 2 datasets as {megabytes(receipt.stored_bytes)}"
    assert told["Stored"] == f"{sizes}, ratio {receipt.ratio:.2f}"
    assert told["Verified"] == "stored bytes read back"
    for dataset, row in zip(receipt.datasets, view.texts("#datasets .row"), strict=True):
        assert dataset.name.split("/")[-2] in row
        assert "verified" in row
        assert f"{dataset.ratio:.2f}" in row
        assert "100 %" in row

    with Dashboard(port) as page:  # another recorder, at the same address
        page(began("/acquisition/probe/data", path=Path("second.nwb")))
        page(replace(observed(PROBE), path=Path("second.nwb")))
        view.until(lambda: view.text("h1") == "second.nwb" and view.text("#link") == "Live")
        assert view.text("#state") == "recording"
        assert view.texts("#banner") == []
        assert view.texts("#ending") == []
        assert view.texts("#datasets .row") == []
        assert [row.split("\n")[0] for row in view.texts("#streams .row")] == ["probe"]
    assert view.complaints() == []


def test_a_recorder_that_vanishes_is_not_shown_as_recording(view, page):
    view.open(page.url)
    page(began())
    page(observed(PROBE))
    view.until(lambda: view.text("#state") == "recording")
    page.stop()
    view.until(lambda: view.text("#state") == "ended")
    elapsed = view.readings()["Elapsed"]
    view.run("return new Promise(done => setTimeout(done, 1200))")
    assert view.readings()["Elapsed"] == elapsed


def test_a_recording_stream_by_stream(view, page):
    lick = replace(PROBE, name="/acquisition/lick", declared_rate=None, rows_per_second=1.5, appended=1204)
    full = replace(PROBE, name="/acquisition/camera", queued_bytes=60 << 20, lag_seconds=2.31)
    page(began())
    page(Warned(dataset="/acquisition/lick/data", message="time stamps go backwards"))
    page(observed(PROBE, replace(lick, acknowledged=1204), full))
    page(observed(replace(PROBE, appended=1), replace(lick, acknowledged=1204, dropped=17), full))
    view.open(page.url)
    readings = view.readings()
    assert readings["Data rate"] == f"{(2 * 30_000 + 1.5) * 768 / 1e6:.1f} MB/s"
    assert readings["Journal"] == "230 MB"
    assert readings["Disk left"] == "400 GB"
    probe, lick, camera = ([" ".join(row.split("\n"))] for row in view.texts("#streams .row"))
    assert re.search(r"probe .*30\.00 kHz of 30 kHz .*299 000 0:09 .*768 kB of 67\.1 MB .*20 ms .*0$", *probe)
    assert re.search(r"lick .*dropping .*1\.5 Hz events .*1 204 rows .*17$", *lick)
    assert re.search(r"camera .*behind .*62\.9 MB of 67\.1 MB .*2\.31 s", *camera)
    assert view.text("#stream-head") == "3 streams, 2 to look at"
    assert view.browser.title == "▲ 2 · recording · recording.nwb"
    assert view.texts("#warnings li span") == ["lick/data: time stamps go backwards"]
    assert view.run("return document.getElementById('warnings').getAttribute('aria-live')") == "polite"


def test_a_failed_write_says_why_and_what_is_kept(view, page):
    page(runs.started(("/a",), 3))
    page(runs.failed())
    view.open(page.url)
    assert view.text("#state") == "failed"
    assert view.receipt()["Error"] == runs.failed().error
    assert str(runs.failed().partial) in view.receipt()["Kept"]


def test_names_from_files_are_text_and_nothing_else(view, page):
    path = Path("data") / f"{EVIL}.nwb".replace("/", "")
    page(began(f"/acquisition/{EVIL}/data", path=path))
    page(Warned(dataset=f"/{EVIL}/data", message=EVIL))
    page(observed(replace(PROBE, name=f"/acquisition/{EVIL}")))
    view.open(page.url)
    assert EVIL in view.texts("#streams .row")[0]
    page(runs.started((f"/acquisition/{EVIL}/data",), 3))
    page(runs.chunk(f"/acquisition/{EVIL}/data", 0))
    view.until(lambda: view.texts("#datasets .row"))
    assert EVIL in view.texts("#datasets .row")[0]
    page(Warned(dataset=None, message=EVIL))
    page(RunFailed(path=path, partial=path, error=EVIL))
    view.until(lambda: view.texts("#ending dd"))
    assert view.receipt()["Error"] == EVIL
    view.until(lambda: view.texts("#warnings li span") == [EVIL])
    assert view.run("return document.images.length") == 0
    assert view.run("return document.body.dataset.owned ?? null") is None
    assert view.complaints() == []


def test_what_slips_in_as_markup_all_the_same_is_not_run(view, page):
    view.open(page.url)
    view.run(f"document.querySelector('main').innerHTML = `{EVIL}`")
    view.until(lambda: view.browser.get_log("browser"))
    assert view.run("return document.body.dataset.owned ?? null") is None


def test_the_token_opens_the_page_and_is_asked_for_again_by_the_next_recorder(view, guarded_page):
    with guarded_page("first-token") as (board, port):
        view.browser.get(f"http://127.0.0.1:{port}/")
        assert "whole address, with its token" in view.text("body")
        board.take(began(path=Path("first.nwb")))
        view.open(f"http://127.0.0.1:{port}/?token=first-token")
        assert view.run("return location.search") == ""
        assert view.run("return document.cookie") == ""
        view.until(lambda: view.text("h1") == "first.nwb")
    view.until(lambda: "has ended" in view.text("#banner"))
    with guarded_page("second-token", port) as (board, _):
        board.take(began(path=Path("second.nwb")))
        view.until(lambda: "Open the address that it printed" in view.text("#banner"))
        assert view.text("h1") == "first.nwb"
        view.open(f"http://127.0.0.1:{port}/?token=second-token")
        assert view.text("h1") == "second.nwb"


def test_a_page_left_open_begins_anew_with_every_run(view, page, tmp_path):
    view.open(page.url)
    for name in ("a.nwb", "b.nwb"):
        nwbflow.write(session(probe=np.zeros((70_000, 2), "int16")), tmp_path / name, progress=page)
        view.until(lambda name=name: name in view.text("h1") and view.text("#state") == "finished")
    assert len(view.texts("#datasets .row")) == 1


def luminance(color):
    channels = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


COLORS = """
const found = [];
for (const element of document.querySelectorAll("body, body *")) {
  const style = getComputedStyle(element);
  found.push(style.color, style.backgroundColor === "rgba(0, 0, 0, 0)" ? style.color : style.backgroundColor);
}
return [...new Set(found)];
"""


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("dark", [True, False])
def test_it_is_read_on_a_phone_and_in_a_dark_room(view, page, dark, width, tmp_path):
    page(began())
    page(Warned(dataset=None, message="a warning " * 20))
    page(observed(*many(39), replace(PROBE, name="/processing/behavior/BehavioralTimeSeries/a_rather_long_name")))
    view.open(page.url, dark=dark, width=width, height=1500)
    view.until(lambda: len(view.texts("#streams .row")) == 40)
    view.until(lambda: view.run("return document.documentElement.scrollWidth") == width)
    colors = [luminance(color) for color in view.run(COLORS)]
    ground = luminance(view.run("return getComputedStyle(document.documentElement).backgroundColor"))
    ink = luminance(view.run("return getComputedStyle(document.body).color"))
    assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) > 7
    assert max(colors) < 0.5 if dark else ground > 0.8
    assert view.browser.save_screenshot(str(tmp_path / f"{'dark' if dark else 'light'}-{width}.png"))


def test_the_theme_can_be_chosen_and_is_remembered(view, page):
    def ground():
        return luminance(view.run("return getComputedStyle(document.documentElement).backgroundColor"))

    view.open(page.url)
    bright = ground()
    view.run("document.getElementById('theme').click()")
    assert ground() < 0.02 < bright
    view.open(page.url)
    assert ground() < 0.02
    view.run("document.getElementById('theme').click()")
    assert ground() == bright
    view.run("localStorage.clear()")


def test_status_is_a_word_and_an_icon_besides_the_colour(view, page):
    page(began())
    page(observed(PROBE))
    view.open(page.url)
    for selector in ("#state", "#streams .status"):
        assert view.text(selector)
        assert view.run(f"return document.querySelector('{selector} use').getAttribute('href')").startswith("#i-")


def test_who_wants_less_motion_gets_none(view, page):
    page(began())
    page(observed(PROBE))
    view.open(page.url)
    media = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    view.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    moving = (
        "return [...document.querySelectorAll('*')].filter(e => parseFloat(getComputedStyle(e).transitionDuration))"
    )
    assert view.run(moving) == []
