"""Looks at the built site in a headless Chromium: search, accessibility, widths, colours, and what pages ask for.

browse.py SITE BROWSER PICTURES: BROWSER is the folder that scripts/browser prints. The pictures are for people to look at.
"""

import base64
import fcntl
import functools
import http.server
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

# One of each kind: the landing page, text, pictures, a table, code, a runbook, a file of the repository.
PAGES = ["index.html", "start.html", "concepts.html", "guides/pod.html", "glossary.html", "runbooks/BeatkeeperHolds.html",
         "repository/examples/kubernetes/deployment.yaml.html"]
# Long pages with wide tables, which axe would read for long.
WIDE = ["troubleshooting.html", "api.html", "metrics.html", "flags.html", "chart.html", "benchmarks.html", "reliability.html", "kubectl.html"]
WIDTHS = {"phone": 390, "desktop": 1280}
# Without them the browser asks for pages that are not of this computer.
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"]
PATIENCE = 60


class Browser:
    """A browser with one page, told what to do by the DevTools protocol over a pipe."""

    def __init__(self, program):
        (theirs_in, self.to), (self.back, theirs_out) = os.pipe(), os.pipe()
        self.profile = tempfile.mkdtemp(prefix="site-browser-")
        # The pipe has the descriptors 3 and 4 in the browser, whatever they are here.
        high = [fcntl.fcntl(it, fcntl.F_DUPFD_CLOEXEC, 20) for it in (theirs_in, theirs_out)]
        move = 'exec "$0" "$@" 3<&{0} 4>&{1} {0}<&- {1}>&- </dev/null >/dev/null 2>&1'.format(*high)
        self.process = subprocess.Popen(["bash", "-c", move, program, *FLAGS, f"--user-data-dir={self.profile}"], pass_fds=high, start_new_session=True)
        for it in (theirs_in, theirs_out, *high):
            os.close(it)
        self.calls, self.session, self.rest, self.asked, self.errors = 0, None, b"", [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def message(self, end):
        while b"\0" not in self.rest:
            if not select.select([self.back], [], [], max(0, end - time.monotonic()))[0]:
                return None
            part = os.read(self.back, 1 << 20)
            if not part:
                raise SystemExit("the browser has ended")
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        self.calls += 1
        message = {"id": self.calls, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while True:
            answer = self.message(end)
            assert answer, f"the browser does not answer: {method}"
            if answer.get("method") == "Network.requestWillBeSent":
                self.asked.append(answer["params"]["request"]["url"])
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"]["text"])
            if answer.get("id") == self.calls:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, what, expression):
        end = time.monotonic() + PATIENCE
        while not (value := self.value(expression)):
            assert time.monotonic() < end, f"never: {what}"
            time.sleep(0.05)
        return value

    def visit(self, url):
        gone = self.call("Page.navigate", url=url)
        assert "errorText" not in gone, (url, gone["errorText"])
        self.until(f"{url} is loaded", f"location.href.split('#')[0] === {json.dumps(url)} && document.readyState === 'complete'")

    def look(self, width, height, scheme):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme},
                                                          {"name": "prefers-reduced-motion", "value": "reduce"}])

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def served(site):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def search_finds(browser, start, word):
    """Types a word into the search, as a reader does, and returns the pages that are found."""
    browser.look(1280, 900, "light")
    browser.visit(start)
    browser.until("the search is there", "!!document.querySelector('.md-search__input') && typeof __md_scope === 'object'")
    x, y = browser.value("(({ x, y, height }) => [x + 40, y + height / 2])(document.querySelector('.md-search__input').getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    browser.until("the search is open", "document.querySelector('#__search').checked")
    browser.call("Input.insertText", text=word)
    links = "[...document.querySelectorAll('.md-search-result__link')].map((it) => it.href)"
    browser.until(f"the search shows {word}", f"{links}.length && document.querySelector('.md-search__scrollwrap').clientHeight > 200")
    return browser.value(links)


def sideways(browser):
    """Whether the page that is open is wider than the window."""
    wide = browser.value("[document.documentElement.scrollWidth, innerWidth]")
    return [f"it scrolls sideways: {wide[0]} of {wide[1]} px"] if wide[0] > wide[1] else []


def inaccessible(browser, axe):
    """What axe finds wrong with the page that is open."""
    browser.value(f"{axe}; true")
    found = browser.value("""axe.run(document, { resultTypes: ['violations'] }).then(({ violations, passes }) => ({ passes: passes.length,
        violations: violations.map(({ id, nodes }) => `axe: ${id}: ${nodes.length}: ${nodes[0].html.slice(0, 160)} ${nodes[0].any[0]?.message ?? ''}`) }))""")
    assert found["passes"] > 20, found
    return found["violations"]


def main(site, folder, pictures):
    began, wrong = time.monotonic(), []
    axe = (folder / "axe.min.js").read_text()
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    start, browser = served(site), Browser(folder / "chromium")
    try:
        for page in PAGES + WIDE:
            looks = [("light", "phone"), ("dark", "desktop")]
            for scheme, name in looks + ([("light", "desktop"), ("dark", "phone")] if page in PAGES else []):
                width, height = WIDTHS[name], 844 if name == "phone" else 900
                browser.look(width, height, scheme)
                browser.visit(start + page)
                body = "slate" if scheme == "dark" else "default"
                browser.until(f"{page} is {scheme}", f"document.body.dataset.mdColorScheme === '{body}'")
                faults = sideways(browser)
                if page in PAGES:
                    faults += inaccessible(browser, axe)
                wrong += [f"{page}, {name}, {scheme}: {it}" for it in faults]
                browser.picture(pictures / f"{page.removesuffix('.html').replace('/', '-')}-{width}-{scheme}.png")
        found = search_finds(browser, start + "index.html", "cordon")
        if not any("#cordon-an-instance" in it for it in found):
            wrong.append(f"the search for cordon finds only {found}")
        browser.picture(pictures / "search-1280-light.png")
        wrong += [f"a script fails: {it}" for it in browser.errors]
        outside = {it for it in browser.asked if not it.startswith((start, "data:", "blob:"))}
        wrong += [f"a page asks for {it}" for it in sorted(outside)]
        assert len(browser.asked) > len(PAGES), "the requests were watched"
    finally:
        browser.close()
    for it in wrong:
        print(it, file=sys.stderr)
    if wrong:
        raise SystemExit(f"{len(wrong)} faults in the browser; pictures: {pictures}")
    print(f"{len(PAGES + WIDE)} pages as on a phone and a desktop, light and dark, and the search: nothing wrong, in {time.monotonic() - began:.0f} s; "
          f"pictures: {pictures}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
