"""Prints docs/flags.md, the flags of the operator, of the gateway and of the kubectl plugin, from the sources that declare them.

It reads the few forms of clap's attributes that these sources use, and ends with an error at a flag that it cannot describe.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIELD = re.compile(r"(?:pub(?:\([^)]*\))? )?(\w+): (.+),$")
DEFAULTS = {
    "DEFAULT_MAX_ENDPOINTS_PER_SLICE as u16": ("core/src/plan/target.rs", r"DEFAULT_MAX_ENDPOINTS_PER_SLICE: usize = (\d+)"),
}
HEAD = """# Flags of the operator, the gateway and the plugin

<!-- Generated from the code: scripts/docs generate -->

The flags of the agent are in [agent-reference.md](agent-reference.md), with their variables and the keys of its settings file. The
[values of the chart](../charts/beatkeeper/README.md) set the flags of the operator. Durations are written as `30s`, `500ms` or `1m30s`.

## The operator

`beatkeeper controller` runs it. A flag overrides its variable. A flag that may be given several times has a variable whose parts are
separated by commas.

"""


def attributes(lines, at):
    """The attribute that begins at a line, as one line, and the line after it."""
    text = lines[at].strip()
    while text.count("[") > text.count("]"):
        at += 1
        text += " " + lines[at].strip()
    return text, at + 1


def items(text):
    """The fields and variants of a source: (kind of owner, its name, documentation, attributes, name, type)."""
    lines, at = text.split("#[cfg(test)]")[0].splitlines(), 0
    owner, doc, attrs = None, [], []
    while at < len(lines):
        line = lines[at].strip()
        if line.startswith("///"):
            doc.append(line[3:].strip())
        elif line.startswith("#["):
            attr, at = attributes(lines, at)
            attrs.append(attr)
            continue
        elif found := re.match(r"(?:pub(?:\([^)]*\))? )?(struct|enum) (\w+)", line):
            owner, doc, attrs = found.groups(), [], []
        elif lines[at] == "}":
            owner = None
        else:
            found = FIELD.match(line) or re.match(r"(\w+)(?:\((?:Box<)?([\w:]+)>?\))?,$", line)
            if owner and found:
                yield *owner, " ".join(doc), " ".join(attrs), found[1], found[2]
            doc, attrs = [], []
        at += 1


def value(attrs, key):
    found = re.search(rf'\b{key} = (?:"([^"]*)"|([^,\])]+(?:\(\d+\))?))', attrs)
    return found and (found[1] if found[1] is not None else found[2].strip())


def default(attrs):
    plain = value(attrs, "default_value") or value(attrs, "default_value_t")
    if plain in DEFAULTS:
        path, pattern = DEFAULTS[plain]
        return re.search(pattern, (ROOT / path).read_text())[1]
    return plain


def choices(known, source, kind):
    """The values that an enum allows, and the one that is its default. Several sources may have one of this name."""
    variants = known.get(("enum", re.sub(r"Option<(.*)>", r"\1", kind)), [])
    own = [it for it in variants if it[0] == source] or variants
    names = {kebab(name): "#[default]" in attrs for _, _, attrs, name, _ in own}
    return "|".join(names), next((name for name, is_default in names.items() if is_default), None)


def kebab(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def flag(known, source, doc, attrs, name, kind):
    """(the flag as it is written, its variable, its default, what it does); None for a positional argument."""
    if not re.search(r"#\[arg\(.*\blong\b", attrs) or "hide = true" in attrs:
        return None
    if not doc:
        raise SystemExit(f"{name} has no documentation")
    written = "--" + (value(attrs, "long") or name.replace("_", "-"))
    short = re.search(r"\bshort\b(?: = '(\w)')?", attrs)
    if short:
        written = f"-{short[1] or written[2]}, {written}"
    allowed, preset = choices(known, source, kind)
    if kind != "bool" or "ArgAction::Set" in attrs:
        units = {"bool": "true|false", "Duration": "DURATION", "u16": "NUMBER", "NonZeroUsize": "NUMBER"}
        written += " " + (allowed or value(attrs, "value_name") or units[kind])
    return written, value(attrs, "env"), default(attrs) or preset, doc.replace("|", r"\|")


def structs(paths):
    """The fields of each struct, and the variants of each command line, by name."""
    found = {}
    for path in paths:
        for kind, owner, *item in items(path.read_text()):
                found.setdefault((kind, owner), []).append((path, *item))
    return found


def flags(known, name):
    for source, doc, attrs, field, kind in known["struct", name]:
        if "flatten" in attrs:
            yield from flags(known, kind.split("::")[-1])
        elif described := flag(known, source, doc, attrs, field, kind):
            yield described


def operator():
    return table(structs(ROOT / "src/controller" / path for path in ("settings.rs", "leader/args.rs", "carriers/args.rs", "trace/args.rs")))


def gateway():
    text = ["", "## The gateway", "", "`beatkeeper gateway` runs it. [gateway.md](gateway.md) says what it is for. The downward API gives it `POD_NAME`,"]
    text += ["`POD_NAMESPACE`, `POD_UID` and `POD_IP`.", ""]
    return text + table(structs([ROOT / "src/gateway/args.rs", ROOT / "src/controller/settings.rs"]), ROOT / "src/gateway/args.rs")


def table(known, only=None):
    rows = ["| Flag | Variable | Default | |", "|---|---|---|---|"]
    if only:
        known["struct", "Args"] = [item for item in known["struct", "Args"] if item[0] == only]
    for written, variable, preset, doc in flags(known, "Args"):
        written = written.replace("|", r"\|")
        rows.append(f"| `{written}` | {f'`{variable}`' if variable else ''} | {f'`{preset}`' if preset else ''} | {doc} |")
    return rows


def plugin():
    known = structs(sorted((ROOT / "plugin/src").rglob("*.rs")))
    text = ["", "## The plugin", "", "[kubectl.md](kubectl.md) says which command to use when. All commands take these flags:", ""]
    text += listed(flags(known, "ConnectionFlags"))
    for _, doc, attrs, variant, kind in known["enum", "Command"]:
        if "hide = true" in attrs:
            continue
        name = value(attrs, "name") or kebab(variant)
        text += ["", f"### `{name}`", "", doc]
        own = listed(flags(known, kind.split("::")[-1])) if ("struct", kind.split("::")[-1]) in known else []
        text += [""] + own if own else []
    return text


def listed(described):
    return [f"* `{written}`: {doc}" + (f" [default: {preset}]" if preset else "") for written, _, preset, doc in described]


if __name__ == "__main__":
    print(HEAD + "\n".join(operator() + gateway() + plugin()))
