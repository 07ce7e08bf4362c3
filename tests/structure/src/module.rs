//! Reads one module from its tokens.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::{
    items::{Item, items},
    paths::Paths,
};

/// Keywords whose item has a name that others can import.
const DEFINES: [&str; 9] =
    ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];

/// A module as it is written in one file.
#[derive(Debug, Default)]
pub struct Module {
    /// The names of what it defines.
    pub defined: BTreeSet<String>,
    pub paths: Paths,
    /// Its children, with their bodies if these are in the same file.
    pub children: BTreeMap<String, Option<Module>>,
}

/// Reads a module. Items that are for tests only are left out.
pub fn read(tokens: TokenStream) -> Module {
    let mut module = Module::default();
    items(tokens).into_iter().filter(|item| !item.is_test()).for_each(|item| module.add(item));
    module
}

impl Module {
    fn add(&mut self, item: Item) {
        let Some((keyword, name)) = item.keyword() else { return };
        match (keyword.as_str(), name) {
            ("mod", Some(name)) => {
                self.children.insert(name, body(&item.tokens).map(read));
                return;
            }
            (keyword, Some(name)) if DEFINES.contains(&keyword) => {
                self.defined.insert(name);
            }
            _ => {}
        }
        // The attributes of an item can name others, as those of serde do.
        for attribute in &item.attributes {
            self.paths
                .collect(format!("#[{attribute}]").parse::<TokenStream>().expect("an attribute"));
        }
        self.paths.collect(item.tokens);
    }
}

fn body(tokens: &[TokenTree]) -> Option<TokenStream> {
    tokens.iter().find_map(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group.stream()),
        _ => None,
    })
}
