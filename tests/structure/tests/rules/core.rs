//! The core cannot wait, ask for the time or reach a cluster.

use beatkeeper_structure::{files, package::Package};

/// Crates that would give the core a runtime, a clock for async code, or a client.
const FORBIDDEN: [&str; 8] =
    ["async-std", "axum", "futures", "hyper", "reqwest", "tokio", "tonic", "tower"];

/// What reads a clock.
const CLOCKS: [&str; 5] =
    ["Instant::now", "SystemTime", "Timestamp::now", "Zoned::now", "Utc::now"];

#[test]
fn the_core_depends_on_no_runtime_and_on_no_client() {
    let manifest = files::read("core/Cargo.toml").expect("the core's manifest");
    let workspace = files::read("Cargo.toml").expect("the workspace's manifest");
    let dependencies = section(&manifest, "[dependencies]");
    for crate_name in FORBIDDEN {
        let named = |line: &&str| line.split(['.', '-', ' ', '=']).next() == Some(crate_name);
        assert!(!dependencies.lines().any(|line| named(&line)), "the core depends on {crate_name}");
    }
    let kube = |manifest: &str, name: &str| {
        let lines = section(manifest, name);
        lines.lines().find(|line| line.starts_with("kube")).unwrap_or_default().to_owned()
    };
    assert_eq!(kube(&manifest, "[dependencies]"), "kube.workspace = true");
    let inherited = kube(&workspace, "[workspace.dependencies]");
    assert!(inherited.contains("default-features = false"), "{inherited}");
    assert!(!inherited.contains("client"), "{inherited}");
}

#[test]
fn a_jump_of_the_wall_clock_moves_no_deadline_because_the_core_asks_no_clock() {
    let production = Package::read("core/src/lib.rs", files::read);
    assert!(production.files().len() > 20, "the core was looked for in the wrong place");
    for file in files::rust("core/src") {
        let text = files::read(&file).expect("a source");
        for clock in CLOCKS {
            assert!(!text.contains(clock), "{file} asks {clock}");
        }
    }
}

/// The lines of a manifest that follow a heading.
fn section<'a>(manifest: &'a str, heading: &str) -> &'a str {
    let (_, after) = manifest.split_once(heading).expect("a section");
    after.split_once("\n[").map_or(after, |(section, _)| section)
}
