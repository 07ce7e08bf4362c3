//! Everything that is fetched to build, test or run this repository has a fixed version, and a
//! checksum where the registry has them. Otherwise a build may change from one day to the next, and
//! an attacker who can publish a tag can run code here.

use std::{
    fs,
    path::{Path, PathBuf},
};

use beatkeeper_structure::files::{self, root};

/// If a line runs a command, the text that follows the command.
fn command<'a>(line: &'a str, command: &str) -> Option<&'a str> {
    let (before, after) = line.split_once(command)?;
    let is_word = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || "-_./".contains(c));
    after.strip_prefix(' ').filter(|_| is_word)
}

/// What a line fetches without a fixed version, if anything.
fn unpinned(line: &str) -> Option<&'static str> {
    let line = line.trim();
    if line.starts_with("# ") || line.starts_with("//") {
        return None;
    }
    let has_any = |texts: &[&str]| texts.iter().any(|text| line.contains(text));
    if has_any(&["@latest", "@main", "@master", "@HEAD", ":latest"]) {
        return Some("a tag that moves");
    }
    if image(line).is_some_and(|image| !is_pinned(image)) {
        return Some("an image without a tag");
    }
    let runs = |what: &[&str]| what.iter().any(|what| command(line, what).is_some());
    if runs(&["pip install"]) && !has_any(&["-r ", "--requirement", "=="]) {
        return Some("pip without versions: a requirements file has them");
    }
    if runs(&["npm install", "npm i", "yarn add", "pnpm add"]) {
        return Some("npm without a lock: npm ci has one");
    }
    if runs(&["npx"]) && !line.contains('@') {
        return Some("npx without a version");
    }
    if runs(&["cargo install"]) && !(line.contains("--locked") && line.contains("--version")) {
        return Some("cargo install without --locked and --version");
    }
    if runs(&["go install", "go get", "go run"]) && !has_any(&["@v", " ."]) {
        return Some("go without a version");
    }
    if runs(&["curl", "wget"]) && has_any(&["| sh", "| bash", "|sh", "|bash", "| sudo"]) {
        return Some("a script that is run as it is downloaded");
    }
    let action = line.trim_start_matches("- ").strip_prefix("uses: ");
    let commit = action.map(|action| action.split_once('@').unwrap_or_default().1);
    if commit.is_some_and(|it| !is_hex(it.split(' ').next().unwrap_or_default(), 40)) {
        return Some("an action that is not named by its commit");
    }
    None
}

/// The image that a line of a manifest, a kustomization or a Dockerfile names.
fn image(line: &str) -> Option<&str> {
    let value = line.trim_start_matches("- ").strip_prefix("image: ")?;
    let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    // A template, a script or the values of a chart fill in such an image.
    (!value.is_empty() && !value.contains(['$', '{', '<', '#'])).then_some(value)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether an image is named by a digest, or by a tag that does not move.
fn is_pinned(image: &str) -> bool {
    if let Some((_, digest)) = image.rsplit_once("@sha256:") {
        return is_hex(digest, 64);
    }
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split_once(':').is_some_and(|(_, tag)| tag.contains(|c: char| c.is_ascii_digit()))
}

/// The images from which a Dockerfile starts, with the defaults of its arguments filled in.
fn bases(dockerfile: &str) -> Vec<String> {
    let (mut arguments, mut stages, mut bases) = (Vec::new(), vec!["scratch"], Vec::new());
    for line in dockerfile.lines() {
        let words: Vec<&str> =
            line.split_whitespace().filter(|word| !word.starts_with("--")).collect();
        match words.as_slice() {
            ["ARG", argument] => arguments.extend(argument.split_once('=')),
            ["FROM", base, rest @ ..] => {
                if !stages.contains(base) {
                    // The last argument comes first, because its value may name earlier ones.
                    let mut filled = (*base).to_owned();
                    for (name, value) in arguments.iter().rev() {
                        filled = filled.replace(&format!("${{{name}}}"), value);
                        filled = filled.replace(&format!("${name}"), value);
                    }
                    bases.push(filled);
                }
                stages.extend(rest.last());
            }
            _ => {}
        }
    }
    bases
}

fn all_files() -> Vec<PathBuf> {
    files::all("").into_iter().map(|path| root().join(path)).collect()
}

/// Whether the lines of a file are commands or manifests. Source code and generated files are
/// excluded.
fn is_read(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
    name.starts_with("Dockerfile")
        || name == "Makefile"
        || ["yaml", "yml", "md", "sh", "tpl"].contains(&extension)
        || (extension.is_empty() && fs::read(path).is_ok_and(|text| text.starts_with(b"#!")))
}

#[test]
fn everything_that_is_fetched_is_named_by_its_version() {
    let mut found = Vec::new();
    for path in all_files().into_iter().filter(|path| is_read(path)) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let place =
            path.strip_prefix(root()).expect("a path in the repository").display().to_string();
        // A command may extend over several lines.
        for (number, line) in text.replace("\\\n", " ").lines().enumerate() {
            if let Some(what) = unpinned(line) {
                found.push(format!("{place}, about line {}: {what}: {}", number + 1, line.trim()));
            }
        }
        if place.ends_with("Dockerfile") {
            let bases = bases(&text);
            found.extend(
                bases.iter().filter(|it| !is_pinned(it)).map(|it| format!("{place}: {it}")),
            );
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn everything_that_has_checksums_is_locked_by_them() {
    let all = all_files();
    let (modules, requirements): (Vec<_>, Vec<_>) = (
        all.iter().filter(|path| path.ends_with("go.mod")).collect(),
        all.iter().filter(|path| path.ends_with("requirements.txt")).collect(),
    );
    assert!(modules.len() >= 9 && !requirements.is_empty(), "{modules:?} {requirements:?}");
    for module in modules {
        let text = fs::read_to_string(module).expect("a file");
        let locked = module.with_file_name("go.sum").exists();
        assert!(locked || !text.contains("require"), "{} has no go.sum", module.display());
    }
    for file in requirements {
        for line in
            fs::read_to_string(file).expect("a file").lines().filter(|line| !line.is_empty())
        {
            assert!(line.starts_with('#') || line.contains("=="), "{}: {line}", file.display());
        }
    }
    for package in all.iter().filter(|path| path.ends_with("package.json")) {
        let text = fs::read_to_string(package).expect("a file");
        let locked = package.with_file_name("package-lock.json").exists();
        assert!(locked || !text.contains("ependencies"), "{} has no lock", package.display());
    }
    assert!(root().join("Cargo.lock").exists());
}

#[test]
fn what_is_not_pinned_is_found() {
    for line in [
        "image: ghcr.io/beatkeeper/beatkeeper",
        "- image: localhost:5000/beatkeeper",
        "image: redis:latest",
        "  image: \"redis:stable\"",
        "image: redis@sha256:0123",
        "go install sigs.k8s.io/kind@latest",
        "go install sigs.k8s.io/kind",
        "RUN pip install kubernetes",
        "npm install left-pad",
        "npx cowsay hello",
        "cargo install cargo-deny",
        "curl -sSf https://sh.rustup.rs | sh",
        "- uses: actions/checkout@v4",
    ] {
        assert!(unpinned(line).is_some(), "{line}");
    }
    for line in [
        "image: ghcr.io/beatkeeper/beatkeeper:0.1.0",
        "image: localhost:5000/beatkeeper:0.1.0 # ours",
        "image: {{ include \"beatkeeper.image\" . | quote }}",
        "image: $GREETER_IMAGE",
        "python3 -m pip install --requirement requirements.txt",
        "go install sigs.k8s.io/kind@v0.30.0",
        "cargo install --locked --version 0.20.2 cargo-deny",
        "# npm install is not what we do",
        "- uses: actions/checkout@0123456789abcdef0123456789abcdef01234567 # v4",
    ] {
        assert_eq!(unpinned(line), None, "{line}");
    }
    let dockerfile = "ARG RUST=1.95.0\nARG BASE=rust:$RUST-slim\nFROM --platform=$TARGET $BASE AS build\nFROM scratch AS base\nFROM base\nFROM debian";
    assert_eq!(bases(dockerfile), ["rust:1.95.0-slim", "debian"]);
}
