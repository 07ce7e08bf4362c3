"""Records `kubectl beatkeeper get -w` while an agent is killed, as an animated SVG: docs/pictures/get.svg.

Run it with the programs built (`make build`) and tmux installed: python3 site/record.py. It plays a real cluster of
`make cluster`, and what it shows is what the terminal showed.
"""

import html
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARIES = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
OUT = ROOT / "docs/pictures/get.svg"
COLUMNS, ROWS = 92, 12
CELL, LINE, SIZE, MARGIN = 8.4, 19, 14, 14  # in pixels
KILL_AFTER, LENGTH, EACH = 2.0, 8.0, 0.125  # in seconds
COLOURS = {1: "#ff7b72", 2: "#7ee787", 3: "#e3b341", 4: "#79c0ff", 5: "#d2a8ff", 6: "#76e3ea", 8: "#8b949e"}
TMUX = ["tmux", "-L", "beatkeeper-record", "-f", "/dev/null"]


def until(what, ask, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := ask():
            return found
        time.sleep(0.1)
    raise SystemExit(f"waited in vain until {what}")


def start(command, log, env=None):
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True)


def frames(env, victim):
    """What the terminal shows, each with its moment in seconds."""
    view = ["kubectl-beatkeeper", "-n", "shop", "get", "-w"]
    size = ["-x", str(COLUMNS), "-y", str(ROWS)]
    subprocess.run([*TMUX, "new-session", "-d", *size, *view], env=env, check=True)
    show = lambda: subprocess.run([*TMUX, "capture-pane", "-e", "-p"], env=env, check=True, capture_output=True, text=True).stdout
    try:
        until("the view shows three instances", lambda: "3 of 3" in show())
        began, taken = time.monotonic(), []
        while (now := time.monotonic() - began) < LENGTH:
            if victim and now >= KILL_AFTER:
                victim.send_signal(signal.SIGKILL)
                victim = None
            screen = show()
            if not taken or taken[-1][1] != screen:
                taken.append((now, screen))
            time.sleep(EACH)
        return taken
    finally:
        subprocess.run([*TMUX, "kill-server"], env=env, check=False)


def play():
    """A cluster with three agents, of which one is killed."""
    with tempfile.TemporaryFile("w+") as log:
        cluster = start([BINARIES / "beatkeeper-demo", "cluster"], log)
        agents = []
        try:
            def said():
                log.seek(0)
                return log.read()

            until("the cluster is ready", lambda: "export PATH" in said() and "Ctrl-C" in said(), 600)
            env = dict(os.environ, TERM="xterm-256color")
            for name, value in re.findall(r"export (\w+)=(\S+)", said()):
                env[name] = value.replace("$PATH", env["PATH"])
            subprocess.run(["kubectl", "apply", "-f", ROOT / "demo/greeter.yaml"], env=env, check=True, stdout=subprocess.DEVNULL)
            for number in 1, 2, 3:
                agent = ["beatkeeper", "agent", "run", "--registration=greeter", "--namespace=shop", f"--instance=vm-{number}"]
                address = [] if number == 1 else [f"--address=192.0.2.1{number}"]
                agents.append(start([*agent, *address], subprocess.DEVNULL, env))
            return frames(env, agents[1])
        finally:
            for process in [*agents, cluster]:
                process.send_signal(signal.SIGINT)
            for process in [*agents, cluster]:
                process.wait()


def runs(screen):
    """The lines of a screen, each as pieces of text with column and style. A style goes on in the next line."""
    colour, weight, faint = None, "", False
    for line in screen.split("\n")[:ROWS]:
        column, pieces = 0, []
        for escape, text in re.findall(r"\x1b\[([0-9;]*)m|([^\x1b]+)", line):
            codes = [int(code or 0) for code in escape.split(";")] if not text else []
            while codes:
                code = codes.pop(0)
                if code == 0:
                    colour, weight, faint = None, "", False
                elif code == 1:
                    weight = "bold"
                elif code == 2:
                    faint = True
                elif code == 38:
                    colour, codes = COLOURS.get(codes[1]), codes[2:]
                elif code == 39:
                    colour = None
            if text.strip():
                pieces.append((column, text, colour or ("#8b949e" if faint else "#e6edf3"), weight))
            column += len(text)
        yield tuple(pieces)


def drawing(pieces):
    """The SVG of a line."""
    for column, text, colour, weight in pieces:
        kept = text.rstrip()
        bold = ' font-weight="bold"' if weight else ""
        yield (
            f'<text x="{MARGIN + column * CELL:.1f}" fill="{colour}"{bold} textLength="{len(kept) * CELL:.1f}" '
            f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{html.escape(kept)}</text>'
        )


def svg(taken):
    height, width = ROWS * LINE + 2 * MARGIN, round(COLUMNS * CELL + 2 * MARGIN)
    whole = LENGTH + 2  # the last frame stays for a while
    lines, shown, keys = {}, [], []
    for number, (moment, screen) in enumerate(taken):
        keys.append(f"{moment / whole * 100:.2f}%{{transform:translateY(-{number * height}px)}}")
        for row, pieces in enumerate(runs(screen)):
            if pieces:
                name = lines.setdefault(pieces, f"l{len(lines)}")
                shown.append(f'<use href="#{name}" y="{number * height + MARGIN + row * LINE + SIZE}"/>')
    last = (len(taken) - 1) * height
    keys.append(f"100%{{transform:translateY(-{last}px)}}")
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="ui-monospace,\'DejaVu Sans Mono\',Menlo,Consolas,monospace" font-size="{SIZE}">',
        "<title>kubectl beatkeeper get -w: three instances beat; one is killed, and expires when its ttl has passed</title>",
        f"<style>@keyframes play{{{''.join(keys)}}}.screen{{animation:play {whole}s step-end infinite}}"
        f"@media(prefers-reduced-motion:reduce){{.screen{{animation:none;transform:translateY(-{last}px)}}}}</style>",
        f'<defs>{"".join(f"<g id={chr(34)}{name}{chr(34)}>{chr(10).join(drawing(pieces))}</g>" for pieces, name in lines.items())}</defs>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
        f'<g class="screen">{"".join(shown)}</g>',
        "</svg>",
        "",
    ])


if __name__ == "__main__":
    OUT.write_text(svg(play()))
    print(f"{OUT} is written")
