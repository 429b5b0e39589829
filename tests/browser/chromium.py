"""A Chromium for the tests of pages: the system's, or the one that npm's registry has for bare servers.

``python -m tests.browser.chromium`` brings the second kind into the environment where the first is missing;
`make test` does that. The package carries the libraries and fonts that a bare machine lacks.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALLED = Path(sys.prefix) / "chromium"
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{0}/fonts</dir><cachedir>{0}/fonts-cache</cachedir></fontconfig>
"""
"""The package's own configuration looks for its fonts in /tmp, wherever it was unpacked."""
UNPACK = "import chromium from '@sparticuz/chromium'; await chromium.executablePath()"
MISSING = "no Chromium in PATH, and none from npm: install one of both, remove .venv/.browser, run make again"


def launch_options():
    """Keyword arguments for playwright's ``chromium.launch``; None if there is no Chromium."""
    if system := next(filter(None, map(shutil.which, NAMES)), None):
        return {"executable_path": system, "args": ["--no-sandbox"]}
    executable, fonts = (INSTALLED / "unpacked" / name for name in ("chromium", "fonts.conf"))
    if not fonts.is_file():  # written last
        return None
    libraries = f"{executable.parent / 'al2023' / 'lib'}{os.pathsep}{os.environ.get('LD_LIBRARY_PATH', '')}"
    return {"executable_path": str(executable), "args": ["--no-sandbox"],
            "env": {**os.environ, "LD_LIBRARY_PATH": libraries,
                    "FONTCONFIG_FILE": str(fonts)}}


def install():
    """Bring a Chromium from npm if there is none; say what happened."""
    if launch_options() is not None:
        return f"Chromium: {launch_options()['executable_path']}"
    npm = shutil.which("npm")
    if npm is None:
        return f"{MISSING}; tests of pages will be skipped"
    from playwright._impl._driver import compute_driver_executable
    unpacked = INSTALLED / "unpacked"
    unpacked.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(Path(__file__).with_name(name), INSTALLED)
    try:
        subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
                       cwd=INSTALLED, check=True)
        # As on the bare servers that the package is made for, so that it unpacks its libraries as well. With
        # playwright's Node.js: a system's may be too old.
        subprocess.run([compute_driver_executable()[0], "--input-type=module", "-e", UNPACK], cwd=INSTALLED,
                       check=True, env={**os.environ, "TMPDIR": str(unpacked),
                                        "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs24.x"})
    except subprocess.CalledProcessError as error:
        return f"{error}; tests of pages will be skipped"
    (unpacked / "fonts.conf").write_text(FONTS.format(unpacked), encoding="utf-8")
    shutil.rmtree(INSTALLED / "node_modules")
    return f"Chromium: {launch_options()['executable_path']}"


if __name__ == "__main__":
    print(install())
