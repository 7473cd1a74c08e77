"""Pages to look at, clients to look with, and a real browser where there is one."""

import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from nwbflow.observe import Dashboard
from nwbflow.observe.dashboard import app, server
from nwbflow.observe.dashboard.access import Access
from nwbflow.observe.dashboard.board import Board
from nwbflow.observe.prometheus import Prometheus

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def page(no_thread_left):
    """A dashboard on a free port of the loopback address."""
    with Dashboard(0) as dashboard:
        yield dashboard


@pytest.fixture(scope="session")
def guarded_page():
    """Serve a board on loopback to those who know a token, as is done on other addresses."""

    @contextmanager
    def serve(token, port=0):
        board = Board()
        feed = app.Feed(board, token)
        sock = server.listen("127.0.0.1", port)
        port = sock.getsockname()[1]
        serving = server.Server(app.make_app(feed, Access(token), Prometheus().app()), feed, sock)
        try:
            yield board, port
        finally:
            serving.stop(wait=True)

    return serve


@pytest.fixture
def get(page):
    """Ask the page for a path."""
    with httpx.Client(base_url=f"http://127.0.0.1:{page.port}") as client:
        yield client.get


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no browser: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chromium
    chromium.quit()
