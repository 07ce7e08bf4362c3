"""What makes the pages resolve on the site as they do in the repository.

A page may link to a file outside docs/. There is no public address of the repository that such a link could lead to. So a
page of the site is made for each file or folder that is linked to, with its contents.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent

# The pages outside docs/, by their names on the site.
PAGES = {"CONTRIBUTING.md": "contributing.md", "charts/beatkeeper/README.md": "chart.md", "examples/README.md": "examples.md"}
# What stands on the site for files and folders that have no page of their own.
INSTEAD = {"README.md": "index.md", "charts/beatkeeper": "chart.md", "examples": "examples.md"}

CODE = re.compile(r"(^```.*?^```$|`+[^`]+`+)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
# A line of two links on the landing page: its buttons.
BUTTONS = re.compile(r"^(\[[^\]]+\]\([^)]+\)) · (\[[^\]]+\]\([^)]+\))$", re.MULTILINE)
RUST = re.compile(r"^```rust,\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".lua": "lua", ".py": "python", ".rs": "rust", ".go": "go", ".sh": "bash",
             ".mjs": "javascript", ".json": "json", ".service": "ini"}


def source(src_uri):
    """The path in the repository of a page of the site."""
    return next((path for path, name in PAGES.items() if name == src_uri), "docs/" + src_uri)


def target(page, link):
    """The path in the repository that a link leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source(page)), link))


def place(path):
    """The page or file of the site that shows a path of the repository."""
    name = PAGES.get(path) or INSTEAD.get(path)
    if name:
        return name
    if path == "docs/runbooks":
        return "metrics.md"  # where the alerts are listed
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}.md"


def prose(markdown):
    """The parts of a page; each second one is code."""
    return CODE.split(markdown)


def links(page, markdown):
    for part in prose(markdown)[::2]:
        for link in LINK.finditer(part):
            yield target(page, link[1])


def contents(path):
    """A page that shows a file, or the files of a folder."""
    whole = ROOT / path
    shown = sorted(it for it in whole.iterdir() if it.is_file()) if whole.is_dir() else [whole]
    text = f"---\nsearch: {{ exclude: true }}\n---\n# {path}\n\nThis is `{path}` of the repository.\n"
    for file in shown:
        if whole.is_dir():
            text += f"\n## {file.name}\n"
        text += f"\n````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text()}\n````\n"
    return text


def on_files(files, config):
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()}
    for path, name in PAGES.items():
        pages[name] = (ROOT / path).read_text()
        files.append(File.generated(config, name, content=pages[name]))
    for page, markdown in pages.items():
        for path in links(page, markdown):
            name = place(path)
            # What does not exist is left to the validation of links.
            if name.startswith("repository/") and (ROOT / path).exists() and not files.get_file_from_path(name):
                files.append(File.generated(config, name, content=contents(path)))
    return files


def on_page_markdown(markdown, page, **_):
    here = page.file.src_uri
    # What helps in an outage is found before what was once decided.
    if here.startswith("adr/") or here in ("reliability.md", "simulation.md", "contributing.md"):
        page.meta["search"] = {"boost": 0.3}
    if here.startswith("repository/"):
        return markdown

    def rewritten(link):
        name = place(target(here, link[1]))
        anchor = link[2] or ("#alerts" if link[1].endswith("/runbooks") else "")
        return f"]({posixpath.relpath(name, posixpath.dirname(here) or '.')}{anchor})"

    if here == "index.md":
        markdown = BUTTONS.sub(r"\1{ .md-button .md-button--primary } \2{ .md-button }", markdown)
    parts = prose(markdown)
    parts[::2] = [LINK.sub(rewritten, part) for part in parts[::2]]
    # The compiler reads the lines that begin with "# "; readers do not need them.
    return RUST.sub(lambda block: "```rust\n" + re.sub(r"^# .*\n", "", block[1], flags=re.MULTILINE) + "```", "".join(parts))


TABLE = re.compile(r"<table>\n.*?</table>", re.DOTALL)
HEADING = re.compile(r"<th(?: [^>]*)?>(.*?)</th>", re.DOTALL)
ROW = re.compile(r"<tr>\n(?:<td.*?)</tr>", re.DOTALL)
CELL = re.compile(r"<td( [^>]*)?>(.*?)</td>", re.DOTALL)


def stacked(table):
    """A table of four or more columns with text in the last one. At the width of a phone each of its rows is a block."""
    names = [re.sub(r"<[^>]+>", "", name) for name in HEADING.findall(table[0])]
    rows = ROW.findall(table[0])
    last = [len(CELL.findall(row)[-1][1]) for row in rows]
    if len(names) < 4 or sum(last) < 40 * len(last):
        return table[0]

    def named(row):
        left = iter(names)
        return CELL.sub(lambda cell: f'<td{cell[1] or ""} data-name="{next(left)}">{cell[2]}</td>', row[0])

    return ROW.sub(named, table[0]).replace("<table>", '<div class="stacked"><table>') + "</div>"


def on_page_content(html, page, **_):
    # An empty cell is no heading.
    return TABLE.sub(stacked, html).replace("<th></th>", "<td></td>")


def on_page_context(context, page, **_):
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation", "toc"]
    return context


STACKED = re.compile(r'<div class="stacked">.*?</div>', re.DOTALL)


def on_post_page(output, **_):
    # A long name may break after an underscore. This comes after the search has read the page.
    output = STACKED.sub(lambda it: re.sub(r"(?<=\w_)(?=\w)", "<wbr>", it[0]), output)
    return output.replace('data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"')
