//! The full names that a file uses, and what it spawns.

use proc_macro2::TokenStream;

use crate::module::{self, Module};

/// What a file names outside of its tests.
#[derive(Debug, Default)]
pub struct Calls {
    /// Full names: `Instant::now` behind `use std::time::Instant` is `std::time::Instant::now`.
    pub names: Vec<String>,
    /// What each `tokio::spawn` is called with.
    pub spawned: Vec<String>,
}

/// Reads a file.
///
/// # Panics
/// If it is not Rust.
pub fn read(text: &str) -> Calls {
    let tokens: TokenStream = text.parse().expect("Rust");
    let mut calls = Calls::default();
    add(&module::read(tokens), &mut calls);
    calls
}

fn add(module: &Module, calls: &mut Calls) {
    let paths = &module.paths;
    let full = |path: &[String]| {
        let brought = paths.uses.iter().find(|it| it.name == path[0] && it.path != path);
        let begin = brought.map_or(&path[..1], |it| &it.path);
        [begin, &path[1..]].concat().join("::")
    };
    calls.names.extend(paths.uses.iter().map(|it| it.path.join("::")));
    calls.names.extend(paths.code.iter().map(|path| full(path)));
    let spawns = paths.calls.iter().filter(|(path, _)| full(path) == "tokio::spawn");
    calls.spawned.extend(spawns.map(|(_, arguments)| arguments.clone()));
    module.children.values().flatten().for_each(|child| add(child, calls));
}
