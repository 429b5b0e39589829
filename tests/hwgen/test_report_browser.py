"""Reports in headless Chromium, where it is installed: no complaint on the console, every picture decoded."""

import json
import re
import shutil
import subprocess

import pytest

from hwgen.planner import PlanRequest, make_plan
from hwgen.report.files import write_report
from tests.bundles import random_encoder_bundle
from tests.hwgen.test_report import RESULTS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium in PATH: install it to test reports in a browser")]

PROBE = """<script>
addEventListener("load", () => {
  const pictures = [...document.images];
  const blank = pictures.filter(one => !one.complete || !one.naturalWidth).length;
  const {scrollWidth, clientWidth} = document.documentElement;
  document.title = JSON.stringify({pictures: pictures.length, blank, overflow: scrollWidth - clientWidth});
});
</script></head>"""
"""Put into a copy of the page, without its policy, which forbids scripts."""


def browse(page, profile, width):
    """DOM of a page after loading, and what Chromium wrote to its log."""
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={profile}", f"--window-size={width},1200", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [1280, 500])  # the narrowest window that Chromium makes
def test_the_page_in_a_browser(tmp_path, width):
    bundle = random_encoder_bundle(absent_blocks=0.3)
    plan = make_plan(bundle, PlanRequest(rows=2, lanes=8, device="kv260"))
    timeline = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    write_report(tmp_path, bundle, plan, RESULTS, timeline)
    page = tmp_path / "report" / "index.html"
    _, console = browse(page, tmp_path / "profile", width)
    assert console == []
    text = page.read_text()
    policy = next(line for line in text.splitlines() if "Content-Security-Policy" in line)
    page.write_text(text.replace(policy, "").replace("</head>", PROBE))
    dom, console = browse(page, tmp_path / "profile", width)
    assert console == []
    found = re.search(r"<title>([^<]*)</title>", dom).group(1)
    assert json.loads(found) == {"pictures": text.count("<img"), "blank": 0, "overflow": 0}


def test_the_probe_sees_a_broken_picture_and_overflow(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(f'<html><head>{PROBE}<body><img src="data:image/png;base64,AAAA">'
                    '<div style="width:3000px">x</div>')
    dom, _ = browse(page, tmp_path / "profile", 1280)
    assert '"pictures":1,"blank":1,"overflow":' in dom
    assert '"overflow":0' not in dom
