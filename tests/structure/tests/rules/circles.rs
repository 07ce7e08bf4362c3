//! No file imports another one that leads back to it.

use std::{env, fs};

use beatkeeper_structure::{
    allowed::{self, Counts},
    circles::{Circle, circles},
    files,
    package::Package,
};

/// The crates of which the rule holds, by their root files.
const ROOTS: [&str; 11] = [
    "api/src/lib.rs",
    "bench/src/lib.rs",
    "bench/src/main.rs",
    "client/src/lib.rs",
    "core/src/lib.rs",
    "demo/src/main.rs",
    "gateway/src/lib.rs",
    "plugin/src/lib.rs",
    "plugin/src/main.rs",
    "src/lib.rs",
    "src/main.rs",
];

/// If this names a file, the circles are written into it.
const OUTPUT: &str = "STRUCTURE_CIRCLES";

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut found = Counts::new();
    let mut all: Vec<Circle> = Vec::new();
    for root in ROOTS {
        let circles = circles(&Package::read(root, files::read).imports());
        let count = circles.iter().map(|it| it.files.len()).sum();
        if count > 0 {
            found.insert(root.to_owned(), count);
        }
        all.extend(circles);
    }
    let text: String = all.iter().map(|it| format!("{it}\n")).collect();
    if let Ok(output) = env::var(OUTPUT) {
        fs::write(&output, &text).unwrap_or_else(|error| panic!("{output}: {error}"));
    }
    let wrong = allowed::compare("circles", &allowed::list("circles"), &found);
    assert!(wrong.is_empty(), "{text}files in circles:\n  {}", wrong.join("\n  "));
}
