//! The lint itself, with small trees that are made up.

use std::collections::BTreeMap;

use beatkeeper_structure::{
    allowed::{Counts, compare},
    circles::circles,
    functions,
    package::{Imports, Package},
};

fn imports(tree: &[(&str, &str)]) -> Imports {
    let tree: BTreeMap<_, _> = tree.iter().copied().collect();
    Package::read("src/lib.rs", |path| tree.get(path).map(ToString::to_string)).imports()
}

/// Each import as `from -> to: names`.
fn lines(imports: &Imports) -> Vec<String> {
    let line = |((from, to), names): (&(String, String), &std::collections::BTreeSet<String>)| {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        format!("{from} -> {to}: {}", names.join(" "))
    };
    imports.iter().map(line).collect()
}

#[test]
fn a_circle_of_three_files_is_found_with_the_names_that_tie_it() {
    let imports = imports(&[
        ("src/lib.rs", "mod a; mod b; mod c; mod apart;"),
        ("src/a.rs", "use crate::b::{self, One}; pub struct Start;"),
        ("src/b.rs", "pub struct One; fn two() { crate::c::three(); }"),
        ("src/c.rs", "pub fn three() -> super::a::Start { todo!() }"),
        ("src/apart.rs", "use super::a::Start;"),
    ]);
    let circles = circles(&imports);
    assert_eq!(circles.len(), 1);
    assert_eq!(
        circles[0].to_string(),
        "3 files import each other in a circle:\n  src/a.rs -> src/b.rs: One\n  \
         src/b.rs -> src/c.rs: three\n  src/c.rs -> src/a.rs: Start\n"
    );
}

#[test]
fn a_tree_whose_imports_lead_down_only_passes() {
    let imports = imports(&[
        ("src/lib.rs", "pub mod a; mod b; pub use a::Start;"),
        (
            "src/a.rs",
            "use crate::b::One; use std::fmt; pub struct Start(One); impl fmt::Debug for Start {}",
        ),
        ("src/b.rs", "pub struct One;"),
    ]);
    assert!(circles(&imports).is_empty(), "{imports:?}");
}

#[test]
fn a_parent_that_hands_on_what_its_child_defines_is_in_a_circle_with_a_child_that_uses_it() {
    let imports = imports(&[
        ("src/lib.rs", "mod parent;"),
        ("src/parent.rs", "mod child; pub use child::Part; pub struct Whole;"),
        ("src/parent/child.rs", "use super::Whole; pub struct Part;"),
    ]);
    assert_eq!(circles(&imports).len(), 1);
}

#[test]
fn a_name_that_is_handed_on_is_imported_from_the_file_that_hands_it_on() {
    let imports = imports(&[
        ("src/lib.rs", "mod user; mod parent;"),
        ("src/parent/mod.rs", "mod child; pub use child::Part;"),
        ("src/parent/child.rs", "pub struct Part;"),
        ("src/user.rs", "use crate::parent::Part;"),
    ]);
    assert_eq!(
        lines(&imports),
        [
            "src/parent/mod.rs -> src/parent/child.rs: Part",
            "src/user.rs -> src/parent/mod.rs: Part"
        ]
    );
}

#[test]
fn a_path_in_code_in_a_macro_and_in_an_attribute_is_an_import() {
    let imports = imports(&[
        ("src/lib.rs", "mod a; mod b; mod c; mod user;"),
        ("src/a.rs", "pub const A: u8 = 1;"),
        ("src/b.rs", "pub fn b() {}"),
        ("src/c.rs", ""),
        (
            "src/user.rs",
            "use super::b; fn f() { println!(\"{}\", crate::a::A); b::b(); }
             #[serde(with = \"crate::c::text\")] struct X;",
        ),
    ]);
    assert_eq!(
        lines(&imports),
        [
            "src/user.rs -> src/a.rs: A",
            "src/user.rs -> src/b.rs: b",
            "src/user.rs -> src/c.rs: text"
        ]
    );
}

#[test]
fn what_is_compiled_for_tests_only_is_no_import() {
    let imports = imports(&[
        ("src/lib.rs", "mod a; mod b; #[cfg(test)] mod tests;"),
        (
            "src/a.rs",
            "pub struct A { #[cfg(test)] steps: crate::b::B, it: u8 } #[cfg(test)] use crate::b::B;
             fn f() { #[cfg(test)] crate::b::count(); } #[cfg(test)] mod tests { use crate::b::B; }",
        ),
        ("src/b.rs", "use crate::a::A;"),
    ]);
    assert_eq!(lines(&imports), ["src/b.rs -> src/a.rs: A"]);
}

#[test]
fn the_name_of_a_module_and_the_declaration_of_a_child_are_no_imports() {
    let imports = imports(&[
        ("src/lib.rs", "mod a; mod b;"),
        ("src/a.rs", "mod child; use crate::b; fn f(it: X) { it.b::<u8>(); }"),
        ("src/a/child.rs", "use super::super::a;"),
        ("src/b.rs", ""),
    ]);
    assert!(imports.is_empty(), "{imports:?}");
}

#[test]
fn a_list_of_exceptions_may_neither_be_shorter_nor_longer_than_what_is_there() {
    let counts = |entries: &[(&str, usize)]| -> Counts {
        entries.iter().map(|(place, count)| ((*place).to_owned(), *count)).collect()
    };
    let allowed = counts(&[("same", 2), ("fewer", 2), ("gone", 1), ("more", 2)]);
    let found = counts(&[("same", 2), ("fewer", 1), ("more", 3), ("new", 1)]);
    let wrong = compare("list", &allowed, &found);
    let places: Vec<_> = wrong.iter().filter_map(|it| it.split(':').next()).collect();
    assert_eq!(places, ["fewer", "gone", "more", "new"]);
}

#[test]
fn the_lines_of_a_function_are_those_of_its_code() {
    let text = "pub(crate) async fn first(\n    it: u8,\n) {\n    // Why.\n\n    it();\n}\n\nimpl X {\n    \
                fn second() {\n        if a {\n            b();\n        }\n    }\n}\n\nfn third() {}\n";
    let expected = [("first", 3), ("second", 3), ("third", 0)];
    let expected = expected.map(|(name, lines)| (name.to_owned(), lines));
    assert_eq!(functions::lengths(text), expected);
}
