//! The modules of one crate, and which of its files imports which.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::TokenStream;

use crate::{
    module::{self, Module},
    paths::{Segments, Use},
};

/// From one file to another: the names that the first takes from the second.
pub type Imports = BTreeMap<(String, String), BTreeSet<String>>;

/// How many `use` declarations one name may lead through.
const DEPTH: usize = 8;

/// The modules of a crate.
#[derive(Debug, Default)]
pub struct Package {
    modules: Vec<Placed>,
}

#[derive(Debug)]
struct Placed {
    file: String,
    parent: usize,
    module: Module,
    children: BTreeMap<String, usize>,
}

/// What a path leads to.
enum Target {
    Module(usize),
    /// A name that this module defines or hands on.
    Name(usize, String),
}

/// Where a module is found on disk.
struct Place {
    file: String,
    /// The folder of its children.
    folder: String,
    text: String,
}

impl Package {
    /// Reads a crate from its root file and the files of its modules. `text` returns what a file contains.
    ///
    /// # Panics
    /// If a module has no file, or a file is not Rust.
    pub fn read(root: &str, text: impl Fn(&str) -> Option<String>) -> Self {
        let folder = root.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let content = text(root).unwrap_or_else(|| panic!("{root} does not exist"));
        let mut package = Self::default();
        package.add(0, Place { file: root.to_owned(), folder, text: content }, &text);
        package
    }

    fn add(
        &mut self,
        parent: usize,
        place: Place,
        text: &impl Fn(&str) -> Option<String>,
    ) -> usize {
        let tokens: TokenStream =
            place.text.parse().unwrap_or_else(|error| panic!("{}: {error}", place.file));
        self.insert(parent, &place.file, &place.folder, module::read(tokens), text)
    }

    fn insert(
        &mut self,
        parent: usize,
        file: &str,
        folder: &str,
        mut module: Module,
        text: &impl Fn(&str) -> Option<String>,
    ) -> usize {
        let id = self.modules.len();
        let children = std::mem::take(&mut module.children);
        self.modules.push(Placed {
            file: file.to_owned(),
            parent,
            module,
            children: BTreeMap::new(),
        });
        for (name, inline) in children {
            let inner = format!("{folder}/{name}");
            let child = match inline {
                Some(module) => self.insert(id, file, &inner, module, text),
                None => self.add(id, find(&inner, text), text),
            };
            self.modules[id].children.insert(name, child);
        }
        id
    }

    /// The files of the crate.
    pub fn files(&self) -> BTreeSet<&str> {
        self.modules.iter().map(|it| it.file.as_str()).collect()
    }

    /// Which file imports which.
    pub fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (id, placed) in self.modules.iter().enumerate() {
            let paths = &placed.module.paths;
            let used = paths.uses.iter().filter_map(|it| self.resolve_use(id, it, DEPTH));
            let named = paths.code.iter().filter_map(|it| self.resolve(id, it, None, DEPTH));
            for target in used.chain(named) {
                let Target::Name(owner, name) = target else { continue };
                let owner = &self.modules[owner].file;
                if *owner != placed.file {
                    let names = imports.entry((placed.file.clone(), owner.clone())).or_default();
                    names.insert(name);
                }
            }
        }
        imports
    }

    fn resolve_use(&self, id: usize, it: &Use, depth: usize) -> Option<Target> {
        let target = self.resolve(id, &it.path, Some(&it.name), depth)?;
        match target {
            Target::Module(module) if it.name == "*" => Some(Target::Name(module, "*".to_owned())),
            target => Some(target),
        }
    }

    /// What a path leads to, if that is in this crate. `except` is a name that the path itself brings in.
    fn resolve(
        &self,
        id: usize,
        path: &Segments,
        except: Option<&str>,
        depth: usize,
    ) -> Option<Target> {
        let mut names = path.iter().peekable();
        let mut current = id;
        let first = names.next()?;
        match first.as_str() {
            "crate" => current = 0,
            "self" => {}
            "super" => current = self.modules[id].parent,
            name => match self.known(id, name, except, depth)? {
                Target::Module(module) => current = module,
                Target::Name(owner, name) => return Some(Target::Name(owner, name)),
            },
        }
        for name in names {
            if name == "super" {
                current = self.modules[current].parent;
            } else if let Some(&child) = self.modules[current].children.get(name) {
                current = child;
            } else {
                return Some(Target::Name(current, name.clone()));
            }
        }
        Some(Target::Module(current))
    }

    /// What the first name of a path means in a module, if it is not the name of another crate.
    fn known(&self, id: usize, name: &str, except: Option<&str>, depth: usize) -> Option<Target> {
        let placed = &self.modules[id];
        if let Some(&child) = placed.children.get(name) {
            return Some(Target::Module(child));
        }
        if placed.module.defined.contains(name) {
            return Some(Target::Name(id, name.to_owned()));
        }
        if except == Some(name) || depth == 0 {
            return None;
        }
        let brought = placed.module.paths.uses.iter().find(|it| it.name == name)?;
        self.resolve_use(id, brought, depth - 1)
    }
}

/// The file of a module: `plan.rs`, or `plan/mod.rs`.
fn find(module: &str, text: &impl Fn(&str) -> Option<String>) -> Place {
    let candidates = [format!("{module}.rs"), format!("{module}/mod.rs")];
    let found = candidates.into_iter().find_map(|file| text(&file).map(|text| (file, text)));
    let (file, text) = found.unwrap_or_else(|| panic!("the module {module} has no file"));
    Place { file, folder: module.to_owned(), text }
}
