//! The files of the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder of the repository.
pub fn root() -> PathBuf {
    let crate_of_tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_of_tests.ancestors().nth(2).expect("this crate is two folders deep").to_owned()
}

/// The text of a file. Its path is relative to the repository.
pub fn read(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

/// All Rust files in a folder, as paths relative to the repository, in order.
pub fn rust(folder: &str) -> Vec<String> {
    all(folder).into_iter().filter(|path| path.ends_with(".rs")).collect()
}

/// All files in a folder that are neither built nor downloaded, as paths relative to the repository, in order.
pub fn all(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    found.sort();
    found
}

fn collect(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if ["target", ".git", "node_modules", ".venv"].iter().any(|skipped| name == *skipped) {
            continue;
        }
        if path.is_dir() {
            collect(&path, found);
        } else {
            let relative = path.strip_prefix(root()).expect("a path in the repository");
            found.push(relative.to_string_lossy().into_owned());
        }
    }
}
