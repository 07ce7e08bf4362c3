"""Checks the built site, and that everything that a reader may look up has its place on it. check.py SITE

It follows no link to another site. It lists all that is wrong, and ends with 1 if there is something.
"""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import hooks

ROOT = Path(__file__).resolve().parent.parent
# What a browser loads by itself, by its element and attribute.
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src",
          "embed": "src", "object": "data", "image": "href", "use": "href"}
# Words that the glossary's style does not use, in the pages that were written for the site.
AVOIDED = re.compile(r"\b(nobody|somebody|everybody|whom|whoever|his|obviously|simply|just|seamless(ly)?|leverage|robust)\b", re.I)
PROSE = ["index.md", "start.md", "concepts.md", "troubleshooting.md", "guides"]
# The flags that the programs themselves have.
BUILT_IN = {"--help", "--version"}


class Page(HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
        if LOADED.get(tag) in attrs:
            self.loaded.append(attrs[LOADED[tag]])
        self.loaded += [part.split()[0] for part in attrs.get("srcset", "").split(",") if part.strip()]
        self.loaded += urls(attrs.get("style", ""))


def urls(css):
    """What a style sheet loads."""
    return [it for it in re.findall(r"""(?:@import\s+(?:url\()?|url\()\s*["']?([^"')\s;]+)""", css) if not it.startswith("data:")]


def read(path):
    return (ROOT / path).read_text()


def is_outside(url):
    return bool(urlsplit(url).scheme or urlsplit(url).netloc)


def dead_links(site, pages):
    for path, page in pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if is_outside(link):
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not to.is_file() or site not in to.parents:
                yield f"{path.relative_to(site)} links to {link}, which does not exist"
            elif parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].ids:
                yield f"{path.relative_to(site)} links to {link}, which has no such anchor"


def loaded_from_elsewhere(site, pages):
    for path, page in pages.items():
        for url in page.loaded:
            if is_outside(url) and not url.startswith("data:"):
                yield f"{path.relative_to(site)} loads {url}"
    for path in [*site.rglob("*.css"), *site.rglob("*.svg")]:
        for url in urls(path.read_text()):
            if is_outside(url):
                yield f"{path.relative_to(site)} loads {url}"


def links_of_the_repository():
    """The pages are read in the repository, too: there, each link leads to a file."""
    pages = {f"docs/{it.relative_to(ROOT / 'docs')}": it for it in (ROOT / "docs").rglob("*.md")}
    for name, path in (pages | {it: ROOT / it for it in [*hooks.PAGES, "README.md"]}).items():
        for part in hooks.prose(path.read_text())[::2]:
            for link in hooks.LINK.finditer(part):
                if not (path.parent / link[1]).exists():
                    yield f"{name} links to {link[1]}, which does not exist in the repository"


def reasons():
    return set(re.findall(r"^\| `(\w+)` \|", read("docs/api.md").split("## Reasons of instances")[1], re.MULTILINE))


def checks():
    return set(re.findall(r"^### (.+)$", read("docs/checks.md"), re.MULTILINE))


def misplaced(name, wanted, have, least):
    """What a list lacks or has too much, and whether the list was found at all."""
    if len(wanted) < least:
        yield f"only {len(wanted)} {name} were found: {sorted(wanted)}"
    for it in sorted(wanted - have):
        yield f"{name}: {it} has no place"


def places(site, pages):
    page = lambda name: pages[site / name]
    helped = page("troubleshooting.html").ids
    yield from misplaced("reasons", {it.lower() for it in reasons()}, helped, 45)
    yield from misplaced("checks in the troubleshooting", {f"check-{it}" for it in checks()}, helped, 15)
    written = set(re.findall(r"^### (?:check: )?(.+)$", read("docs/troubleshooting.md"), re.MULTILINE))
    yield from (f"troubleshooting.md tells of {it}, which does not exist" for it in sorted(written - reasons() - checks()))

    alerts = set(re.findall(r"^- alert: (\w+)", read("charts/beatkeeper/files/alerts.yaml"), re.MULTILINE))
    linked = set(re.findall(r"\]\(runbooks/(\w+)\.md\)", read("docs/metrics.md")))
    yield from misplaced("alerts in metrics.md", alerts, linked, 12)
    yield from misplaced("alerts with a runbook", alerts, {it.stem for it in pages if it.parent.name == "runbooks"}, 12)

    texts = [read("charts/beatkeeper/files/alerts.yaml"), *(it.read_text() for it in (ROOT / "charts/beatkeeper/files/dashboards").iterdir()),
             *(it.read_text() for it in (ROOT / "docs").rglob("*.md")), *(it.read_text() for it in (ROOT / "core/src").rglob("metrics*.rs"))]
    asked = {re.sub(r"_(bucket|count|sum)$", "", it) for text in texts for it in re.findall(r"\bbeatkeeper_[a-z_]+[a-z]\b", text)}
    listed = set(re.findall(r"^\| `(\w+)` \|", read("docs/metrics.md"), re.MULTILINE))
    # The programs and images of this name, and benchmarks' own.
    asked -= {"beatkeeper_client", "beatkeeper_cluster", "beatkeeper_core", "beatkeeper_api"}
    yield from misplaced("metrics", asked, listed, 25)

    plots = {it.name for it in (ROOT / "docs/benchmarks").iterdir()}
    yield from misplaced("plots", plots, {Path(it).name for it in page("benchmarks.html").loaded}, 10)
    values = set(re.findall(r"^(\w+):", read("charts/beatkeeper/values.yaml"), re.MULTILINE))
    keys = set(re.findall(r"^\| (\w+)", read("charts/beatkeeper/README.md"), re.MULTILINE))
    yield from misplaced("values of the chart", values, keys, 30)


def flags():
    known = set(re.findall(r"--[a-z-]+[a-z]", read("docs/flags.md") + read("docs/agent-reference.md"))) | BUILT_IN
    helps = set(re.findall(r"^ +(?:-\w, )? *(--[a-z-]+)", read("plugin/tests/cmd/help.trycmd"), re.MULTILINE))
    yield from misplaced("flags of the plugin", helps, known, 15)
    templates = "".join(read(f"charts/beatkeeper/templates/{it}.yaml") for it in ("deployment", "console", "gateway"))
    yield from misplaced("flags of the chart", set(re.findall(r"^ +- (--[a-z-]+)", templates, re.MULTILINE)), known, 20)
    # What pages tell to type: a line of a code block, with the lines that continue it.
    told = {}
    for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        for block in hooks.prose(path.read_text().replace("\\\n", " "))[1::2]:
            for command in re.findall(r"(?:beatkeeper (?:agent|controller|gateway)|kubectl beatkeeper|kubectl-beatkeeper) ([^\n|;&`]*)", block):
                for flag in re.findall(r"(?<!\S)--[a-z-]+[a-z]", command.split(" -- ")[0]):
                    told[flag] = path.name
    if len(told) < 12:
        yield f"only {len(told)} flags are told in pages"
    yield from (f"flags: {told[it]} tells to type {it}, which no reference has" for it in sorted(set(told) - known))


def generated():
    made = subprocess.run([sys.executable, ROOT / "site/flags.py"], capture_output=True, text=True, check=True).stdout
    if made != read("docs/flags.md"):
        yield "docs/flags.md is not what the code has: scripts/docs generate"


def prose():
    for name in PROSE:
        path = ROOT / "docs" / name
        for page in sorted(path.glob("*.md")) if path.is_dir() else [path]:
            for word in AVOIDED.finditer(page.read_text()):
                yield f"{page.name} says {word[0]!r}"


def main(site):
    site = Path(site).resolve()
    # The page for what is not found is served at every path, so its links begin at the root.
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    wrong = [*dead_links(site, pages), *loaded_from_elsewhere(site, pages), *links_of_the_repository(), *places(site, pages),
             *flags(), *generated(), *prose()]
    if len(pages) < 90:
        wrong.append(f"there are only {len(pages)} pages")
    for it in wrong:
        print(it, file=sys.stderr)
    if wrong:
        raise SystemExit(f"{len(wrong)} faults on the site")
    links = sum(len(page.links) + len(page.loaded) for page in pages.values())
    print(f"{len(pages)} pages, {links} links, {len(reasons())} reasons and {len(checks())} checks: each in its place")


if __name__ == "__main__":
    main(*sys.argv[1:])
