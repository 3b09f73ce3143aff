"""A real Chromium without a window, driven through a pipe in the DevTools protocol: no package, no driver, no download.

    python tests/book/browser.py FOLDER         pictures of every bench, wide and narrow, light and dark, to look at
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LABORATORY = Path(__file__).parents[2] / "book" / "lab" / "index.html"


def found() -> str | None:
    """Where a Chromium is, or None; $CHROMIUM names another one.  The pipe needs inherited file descriptors, which Windows has not."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None) if os.name == "posix" else None


class Browser:
    """One page.  `errors` collects whatever its console complains of."""

    def __init__(self, width: int = 1280, height: int = 900, phone: bool = False):
        self.errors: list[str] = []
        self.folder = TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self.writing = os.pipe()
        self.reading, theirs_out = os.pipe()

        def as_three_and_four():                                # where Chromium expects the pipe
            a, b = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(a, 3)
            os.dup2(b, 4)

        flags = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                 "--mute-audio", "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={self.folder.name}", "about:blank"]
        self.process = subprocess.Popen([found(), *flags], close_fds=False, preexec_fn=as_three_and_four,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.number, self.rest, self.session = 0, b"", None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.size(width, height, phone)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.writing)
        os.close(self.reading)
        self.folder.cleanup()

    def call(self, method: str, **params) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _next(self) -> dict:
        while b"\0" not in self.rest:
            if not select.select([self.reading], [], [], 60)[0]:
                raise TimeoutError("Chromium has said nothing for a minute")
            chunk = os.read(self.reading, 1 << 20)
            if not chunk:
                raise RuntimeError("Chromium has ended")
            self.rest += chunk
        message, self.rest = self.rest.split(b"\0", 1)
        answer = json.loads(message)
        self._heard(answer.get("method"), answer.get("params", {}))
        return answer

    def _heard(self, method: str | None, params: dict) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("file:", "data:", "blob:", "about:")):
            self.errors.append(f"asked for {params['request']['url']}")

    def size(self, width: int, height: int, phone: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)

    def media(self, **features: str) -> None:
        """media(prefers_color_scheme="dark")"""
        self.call("Emulation.setEmulatedMedia", features=[{"name": k.replace("_", "-"), "value": v} for k, v in features.items()])

    def open(self, hash: str = "") -> None:
        """The laboratory from its file: address, afresh, with this behind the #."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=LABORATORY.as_uri() + (f"#{hash}" if hash else ""))
        self.wait("document.readyState === 'complete' && typeof lab === 'object' && lab.benches && document.querySelector('nav [aria-current=page]')")
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def run(self, script: str):
        """The value of an expression on the page; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", answer["exceptionDetails"]["text"]))
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{condition} has not come true in {seconds} s; the console says {self.errors}")
            time.sleep(0.05)

    def picture(self, path: Path) -> None:
        box = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": box["width"], "height": box["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]))


VIEWS = {
    "schedules": ("bench=schedules", "true"),
    "cloud": ("bench=cloud&at=45", "document.querySelector('#cloud-rms').dataset.ready === 'true'"),
    "cloud-clicks": ("bench=cloud&data=clicks&at=70&y=1&scale=3", "document.querySelector('#cloud-rms').dataset.ready === 'true'"),
    "digits": ("bench=digits", "document.querySelector('#digits').dataset.done === 'true'"),
    "digits-drawing": ("bench=digits&mode=drawing&y=7&at=50", "document.querySelector('#digits').dataset.done === 'true'"),
    "digits-hidden": ("bench=digits&mode=hidden&y=9", "document.querySelector('#digits').dataset.done === 'true'"),
    "clinic": ("bench=clinic", "document.querySelector('#clinic').dataset.done === 'true'"),
    "clinic-cloud": ("bench=clinic&patient=4", "document.querySelector('#clinic').dataset.done === 'true'"),
}


def main(folder: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    with Browser() as browser:
        for width, phone in ((1280, False), (390, True)):
            for scheme in ("light", "dark"):
                browser.size(width, 860, phone)
                browser.media(prefers_color_scheme=scheme)
                for name, (hash, ready) in VIEWS.items():
                    browser.open(hash)
                    browser.wait(ready)
                    browser.picture(Path(folder) / f"{name}-{width}-{scheme}.png")
        print("\n".join(browser.errors) or "nothing in the console")


if __name__ == "__main__":
    main(*sys.argv[1:])
