//! Finds files that import each other in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display, Formatter},
};

use crate::package::Imports;

/// Files of which each can be reached from each other one by imports, and the imports between them.
#[derive(Debug)]
pub struct Circle {
    /// The files.
    pub files: BTreeSet<String>,
    /// The imports.
    pub imports: Imports,
}

impl Display for Circle {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} files import each other in a circle:", self.files.len())?;
        for ((from, to), names) in &self.imports {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            writeln!(f, "  {from} -> {to}: {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// All circles, each as large as it is.
pub fn circles(imports: &Imports) -> Vec<Circle> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in imports.keys() {
        next.entry(from).or_default().insert(to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        next.keys().map(|&file| (file, reachable(file, &next))).collect();
    let mut circles = Vec::new();
    let mut known = BTreeSet::new();
    for (&file, others) in &reached {
        if !others.contains(file) || known.contains(file) {
            continue;
        }
        let back = |other: &&str| reached.get(other).is_some_and(|it| it.contains(file));
        let files: BTreeSet<_> = others.iter().copied().filter(back).collect();
        known.extend(files.iter().copied());
        let inside = imports
            .iter()
            .filter(|((from, to), _)| files.contains(&**from) && files.contains(&**to));
        let imports = inside.map(|(files, names)| (files.clone(), names.clone())).collect();
        circles.push(Circle { files: files.into_iter().map(str::to_owned).collect(), imports });
    }
    circles
}

/// The files that can be reached from a file by one import or more.
fn reachable<'a>(file: &'a str, next: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![file];
    while let Some(file) = open.pop() {
        open.extend(next.get(file).into_iter().flatten().copied().filter(|it| reached.insert(*it)));
    }
    reached
}
