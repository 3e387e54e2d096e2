"""The explorer in a real browser, as a page of Voila and in a cell of JupyterLab.

It needs Playwright (`make setup` installs it) and Chromium: on Debian or Ubuntu `sudo apt-get install chromium`,
elsewhere `.venv/bin/playwright install chromium`. `.ci/run` installs it where it may.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlparse

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 240_000  # milliseconds, on a busy machine
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: make setup")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"needs Chromium: sudo apt-get install chromium ({str(error).splitlines()[0]})")
        yield opened
        opened.close()


def wait_for(port, process, log):
    """Wait until somebody listens."""
    ends = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < ends:
        assert process.poll() is None, log.read_text()
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module", params=["voila", "lab"])
def server(request, tmp_path_factory):
    """A server of the page, and the address of the explorer on it."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copy(ROOT / "notebooks" / "explorer.ipynb", folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if request.param == "voila":
        command = ["voila", "explorer.ipynb", "--no-browser", f"--port={port}"]
        address = f"http://127.0.0.1:{port}/"
    else:
        command = ["jupyterlab", "--no-browser", f"--port={port}", "--IdentityProvider.token=", "--allow-root"]
        address = f"http://127.0.0.1:{port}/lab/tree/explorer.ipynb"
    places = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    environment = {
        **os.environ,
        **places,
        "PYTHONPATH": str(ROOT),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "OMP_NUM_THREADS": "1",
    }
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for(port, process, folder / "log")
        yield request.param, address
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def visit(server, browser):
    """Open the explorer as a new visitor; at the end no visitor's console may hold an error."""
    contexts, wrong = [], []

    def opened(width=1280, dark=False):
        kind, address = server
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 1000}, color_scheme="dark" if dark else "light")
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: heard(told, wrong))
        theme = "?theme=dark" if dark and kind == "voila" else ""
        page.goto(address + theme, timeout=PATIENCE)
        if kind == "lab":
            page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(state="attached")  # a kernel
            run_first_cell(page)
        button(page, "Generate").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def run_first_cell(page):
    """Run JupyterLab's first cell once the notebook has a kernel, which it otherwise asks for.

    What is pressed before that kernel is connected is lost, so it is pressed again.
    """
    page.locator(".jp-Toolbar-kernelName", has_text="Python 3").wait_for(state="attached")  # a narrow toolbar hides it
    prompt = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").first
    deadline = time.monotonic() + PATIENCE / 1000
    while prompt.inner_text().strip() in ("", "[ ]:"):  # nothing until the cell is drawn
        asked = page.locator(".jp-Dialog").all_inner_texts()
        assert time.monotonic() < deadline and not asked, (asked, page.locator("#jp-main-statusbar").inner_text())
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(1000)


def heard(told, wrong):
    """Keep errors of the console; what other hosts do not send (icons) is none of ours."""
    host = urlparse(told.location.get("url", "")).hostname
    if told.type == "error" and host in ("127.0.0.1", None):
        wrong.append(f"{told.text} ({told.location.get('url')})")


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def pictures(page):
    """The addresses of the gallery's pictures: new ones for new bytes."""
    return [each.get_attribute("src") for each in page.locator(".t2i-gallery img").all()]


def generate(page, count, press="Generate", new=None):
    """Press a button that paints; wait until `count` pictures, `new` of them new (all), are there, and return them.

    A browser may show the words that say so before the last of them.
    """
    before, found = pictures(page), []
    button(page, press).click()
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.get_by_text("pictures in").is_visible() or len({*found} - {*before}) < (new or count):
        assert time.monotonic() < deadline, (page.locator(".t2i").all_inner_texts(), len(found))
        page.wait_for_timeout(50)
        found = pictures(page)
    assert len(found) == count
    return found


def test_a_visitor_types_generates_compares_walks_and_errs(visit, tmp_path):
    page = visit()
    generate(page, 4)
    page.get_by_label("Caption", exact=True).fill("a large blue bird with a xylophone")
    page.get_by_text("xylophone (unknown)").wait_for()
    generate(page, 4)
    button(page, "Change one word").click()
    page.get_by_label("Word", exact=True).select_option("blue")
    page.get_by_label("instead", exact=True).fill("yellow")
    page.get_by_label("instead", exact=True).blur()
    generate(page, 8, "Paint both", new=4)
    button(page, "Walk between two captions").click()
    button(page, "Walk").click()
    page.get_by_alt_text("the same, moving").wait_for()
    assert page.get_by_alt_text("8 pictures on the way").is_visible()
    page.get_by_label("Another", exact=True).fill("/nowhere")
    page.get_by_label("Another", exact=True).blur()
    button(page, "Add").click()
    alert = page.locator(".t2i-explorer").get_by_role("alert")
    alert.wait_for()
    told = page.locator(".t2i-explorer").inner_text()
    assert "no run, checkpoint or shipped weights" in alert.inner_text() and "Traceback" not in told


def test_a_closer_look_saves_what_can_be_painted_again(visit, tmp_path):
    page = visit()
    generate(page, 4)
    button(page, "Look closer at 2").click()
    link = page.get_by_text("Save this picture with its recipe")
    link.wait_for()
    with page.expect_download() as download:
        link.click()
    path = tmp_path / "a.png"
    download.value.save_as(path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "t2ilib.cli", "sample", "--like", str(path), "--out", str(tmp_path / "b.png")]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert (tmp_path / "b.png").read_bytes() == path.read_bytes()


def test_two_visitors_do_not_see_each_other(visit):
    one, other = visit(), visit(width=800, dark=True)
    one.get_by_label("Caption", exact=True).fill("a yellow bird")
    own = generate(one, 4)
    assert pictures(other) == [] and "yellow" not in other.get_by_label("Caption", exact=True).input_value()
    generate(other, 4)
    assert pictures(one) == own


@pytest.mark.parametrize("dark", [False, True])
def test_how_it_looks(visit, server, dark, tmp_path):
    """Two systems and a closer look. T2I_SCREENSHOTS=notebooks/diagrams keeps the pictures that README shows."""
    if server[0] == "lab":
        pytest.skip("the page alone is shown")
    page = visit(width=800 if dark else 1100, dark=dark)
    page.get_by_label("Systems", exact=True).select_option(["dfgan_clip_toy", "gancls_toy"])
    generate(page, 8)
    page.get_by_text("mentioned attributes").nth(1).wait_for()
    button(page, "Look closer at 1").first.click()
    page.get_by_text("Nearest training pictures").wait_for()
    colours = page.locator(".t2i-explorer .t2i").first.evaluate(
        "each => [getComputedStyle(document.body).backgroundColor, getComputedStyle(each).color]"
    )
    light = [sum(map(float, re.findall(r"[\d.]+", each)[:3])) / 765 for each in colours]
    assert abs(light[0] - light[1]) > 0.4 and (light[0] < 0.5) == dark
    folder = Path(os.environ.get("T2I_SCREENSHOTS", tmp_path))
    page.set_viewport_size({"width": 800 if dark else 1100, "height": 900})
    page.screenshot(path=folder / f"explorer{'_dark' if dark else ''}.png", full_page=True)


def test_it_fits_a_narrow_window_and_keys_reach_everything(visit):
    page = visit(width=800)
    generate(page, 4)
    body = page.locator(".t2i-explorer")
    wide = body.evaluate("each => each.scrollWidth - each.clientWidth")
    assert wide <= 1
    assert all(
        box["x"] + box["width"] <= 801 for box in (each.bounding_box() for each in body.get_by_role("button").all())
    )
    for name in ("Caption", "Systems", "Seed", "Pictures", "Another"):
        assert body.get_by_label(name, exact=True).count() == 1
    page.get_by_label("Caption", exact=True).focus()
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.innerText || document.activeElement.value || ''").strip())
    assert {"Generate", "Random caption", "Next seed", "Look closer at 1", "Walk between two captions"} <= reached
    button(page, "Change one word").focus()
    page.keyboard.press("Enter")
    page.get_by_label("instead", exact=True).wait_for()
