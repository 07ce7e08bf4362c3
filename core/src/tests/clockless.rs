//! A jump of the wall clock cannot move a deadline (P1, L1), because no code of the core that decides can read
//! a clock.

use std::{fs, path::Path};

/// The calls that would read a clock.
const CLOCKS: [&str; 5] =
    ["Instant::now", "SystemTime", "Timestamp::now", "Zoned::now", "Utc::now"];

fn sources(folder: &Path, visit: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, visit);
        } else if path.extension().is_some_and(|it| it == "rs") {
            visit(&path, &fs::read_to_string(&path).expect("a source"));
        }
    }
}

#[test]
fn a_jump_of_the_wall_clock_moves_no_deadline_because_the_core_asks_no_clock() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    sources(&core, &mut |path, source| {
        seen += 1;
        // This file contains the list itself.
        if path.ends_with("clockless.rs") {
            return;
        }
        for clock in CLOCKS {
            assert!(!source.contains(clock), "{} asks {clock}", path.display());
        }
    });
    assert!(seen > 20, "the core was looked for in the wrong place");
}
