"""Opens the walk-through notebooks in JupyterLab as a reader does: Run All, move a slider, see the picture change.

    pip install -e '.[browser]'                  # not in the lock; a Chromium of the system is used
    python reproduce/browser.py SCREENSHOTS [NAME ...] [--site DIR]

Works on copies, so that committed notebooks stay as they are.  Leaves a screenshot before and after each slider and of
the end of each notebook, and of each page of a site with --site; exit status 1 when a cell failed, a slider changed
nothing, or a page shows raw TeX, misses a picture, asks the network for something, or has what axe-core calls serious
for readers with a screen reader, a keyboard or weak eyes.  Pages are also looked at as on a phone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUN_ALL = 600_000  # ms
WAITING = "() => [...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))"
SETTINGS = {  # all cells are in the page, and nothing asks whether there are news
    "notebook-extension/tracker": '{"windowingMode": "none"}',
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}
COUNTED = "() => [...document.querySelectorAll('.jp-InputPrompt')].filter(p => /\\d/.test(p.textContent)).length"


def main() -> int:
    """Every notebook, then the site; 0 when all was well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("screenshots", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--site", type=Path)
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    args.screenshots.mkdir(parents=True, exist_ok=True)
    names = args.names or [path.stem for path in sorted((ROOT / "notebooks").glob("0*.ipynb"))]
    wrong: list[str] = []
    with sync_playwright() as browsers:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        if not args.site or args.names:
            with tempfile.TemporaryDirectory() as folder, _lab(Path(folder)) as address:
                for name in names:
                    page = browser.new_page(viewport={"width": 1300, "height": 1000})
                    wrong += _notebook(page, address, name, args.screenshots)
                    page.close()
        if args.site:
            for path in pages(args.site):
                wrong += _page(browser, path, args.screenshots)
        browser.close()
    print("\n".join(wrong) or "all was well")
    return 1 if wrong else 0


@contextmanager
def _lab(folder: Path) -> Iterator[str]:
    """JupyterLab over copies of the notebooks; its address."""
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    (folder / "figures").symlink_to(ROOT / "figures")  # whose scripts and pictures notebooks 00 and 31 use
    for name, text in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        f"--port={port}",
        "--no-browser",
        "--allow-root",
        "--IdentityProvider.token=",
        f"--notebook-dir={folder}",
    ]
    users = ("JUPYTER", "IPYTHON", "PYTHONSTARTUP")  # none of the user's kernels and settings
    environment = {name: value for name, value in os.environ.items() if not name.startswith(users)}
    environment |= {
        name: str(folder / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
    }
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTER_PREFER_ENV_PATH": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks"
    finally:
        server.terminate()
        server.wait()


def _notebook(page: Any, address: str, name: str, folder: Path) -> list[str]:
    """Run one notebook and move its sliders; what was wrong."""
    started = time.monotonic()
    page.goto(f"{address}/{name}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    page.wait_for_selector("text=/ipykernel.*Idle/", timeout=120_000)
    page.get_by_role("menuitem", name="Edit", exact=True).click()
    page.get_by_role("menuitem", name="Clear Outputs of All Cells").click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_timeout(3000)
    page.wait_for_function(f"() => !({WAITING})()", timeout=RUN_ALL)
    said = [one.inner_text() for one in page.query_selector_all(".jp-OutputArea-output pre")]
    wrong = [f"{name}: a cell failed: {' '.join(text.split())[-300:]}" for text in said if "Traceback (most" in text]
    handles = page.query_selector_all(".widget-slider .noUi-handle")
    for number, handle in enumerate(handles):
        handle.scroll_into_view_if_needed()
        before = _picture(handle)
        page.screenshot(path=folder / f"{name}_slider{number}_before.png")
        handle.focus()
        for _ in range(6):
            handle.press("ArrowRight")
        page.wait_for_timeout(1000)
        end = time.monotonic() + 60
        while _picture(handle) == before and time.monotonic() < end:
            page.wait_for_timeout(500)
        page.screenshot(path=folder / f"{name}_slider{number}_after.png")
        if _picture(handle) == before:
            wrong.append(f"{name}: slider {number} changes nothing")
    page.screenshot(path=folder / f"{name}_end.png")
    print(
        f"{name}: {page.evaluate(COUNTED)} cells, {len(handles)} sliders, {time.monotonic() - started:.0f} s",
        flush=True,
    )
    return wrong


def _picture(handle: Any) -> str:
    """The pictures of a slider's cell, as their data."""
    found: str = handle.evaluate("h => [...h.closest('.jp-Cell').querySelectorAll('img')].map(i => i.src).join(' ')")
    return found


def pages(site: Path) -> list[Path]:
    """The pages of a site; of fine-tunings the first, and of the API the face and a module: all are made alike."""
    made = sorted(site.rglob("*.html"))
    alike = [path for path in made if path.name.startswith("finetune-") or path.is_relative_to(site / "api")]
    some = [
        *sorted(site.glob("notebooks/finetune-*.html"))[:1],
        site / "api/mixcl.html",
        site / "api/mixcl/losses.html",
    ]
    return [*(path for path in made if path not in alike), *(path for path in some if path.is_file())]


def barriers(page: Any) -> list[str]:
    """What axe-core finds on a page that is serious or critical: rule, how often, and the first place."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"axe-core: {rule['id']}, {len(rule['nodes'])} times, first {rule['nodes'][0]['html'][:80]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


def _page(browser: Any, path: Path, folder: Path) -> list[str]:
    """Look at one page of a site, as a file; what was wrong."""
    page, asked = browser.new_page(viewport={"width": 1100, "height": 1400}), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.resolve().as_uri())
    page.wait_for_load_state("load")
    text = page.evaluate(
        "() => [...document.querySelectorAll('p, li, h1, h2, h3, td')].map(e => e.textContent).join('\\n')"
    )
    page.evaluate("() => document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    page.wait_for_function("() => [...document.images].every(i => i.complete)", timeout=30_000)
    broken = page.evaluate("() => [...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(0, 80))")
    page.screenshot(path=folder / f"site_{path.stem}.png", full_page=path.stem == "index")
    unreadable = barriers(page)
    page.set_viewport_size({"width": 390, "height": 844})
    page.screenshot(path=folder / f"site_{path.stem}_phone.png")
    unreadable += barriers(page)
    if page.evaluate("() => document.documentElement.scrollWidth > innerWidth"):
        unreadable.append("is wider than a phone")
    wrong = [f"{path.name}: no picture {source}" for source in broken]
    wrong += [f"{path.name}: {text}" for text in dict.fromkeys(unreadable)]
    wrong += [f"{path.name}: asks for {url[:80]}" for url in asked if not url.startswith(("file:", "data:"))]
    wrong += [f"{path.name}: raw TeX: {line[:80]}" for line in text.splitlines() if "$" in line or "\\frac" in line]
    page.close()
    return wrong


if __name__ == "__main__":
    sys.exit(main())
