//! The checked-in files that are generated from the types.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

fn assert_up_to_date(file: &str, generated: &str, command: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let installed = fs::read_to_string(&path).unwrap_or_default();
    let differs = installed.lines().zip(generated.lines()).position(|(old, new)| old != new);
    assert!(
        installed == generated,
        "{file} is not what the types generate (first difference: line {}); run `{command}`",
        differs.unwrap_or(installed.lines().count().min(generated.lines().count())) + 1
    );
}

#[test]
fn the_installed_crd_is_the_one_the_types_generate() {
    assert_up_to_date(
        "crds/beatkeeper.dev_serviceregistrations.yaml",
        &beatkeeper_api::crd_yaml(),
        "cargo run -- crd > crds/beatkeeper.dev_serviceregistrations.yaml",
    );
}

/// The list of reasons follows; a test of the core compares it.
#[test]
fn the_api_reference_begins_as_the_types_generate_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let page = fs::read_to_string(path).unwrap_or_default();
    let (fields, _) = page.split_once("\n## Reasons of instances\n").unwrap_or((&page, ""));
    assert!(
        fields == beatkeeper_api::reference_markdown(),
        "docs/api.md is not what the types generate; run `cargo run -- crd --docs > docs/api.md`"
    );
}
