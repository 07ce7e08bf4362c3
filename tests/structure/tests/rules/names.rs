//! What is named exists: each promise and each rule of liveness in the production code, each file of the drawing.

use beatkeeper_structure::files;

#[test]
fn the_drawing_of_the_design_names_files_that_exist() {
    let drawing = files::read("docs/reconcile.svg").expect("the drawing");
    let known = [files::rust("core/src"), files::rust("src/controller")].concat();
    let named = drawing.split(['>', '<', ' ', ',']).filter(|word| word.ends_with(".rs"));
    let missing: Vec<_> = named
        .filter(|file| !known.iter().any(|path| path.ends_with(&format!("/{file}"))))
        .collect();
    assert!(missing.is_empty(), "no such files: {missing:?}");
}

#[test]
fn the_production_code_names_each_promise_and_each_rule() {
    let folders = ["api/src", "client/src", "core/src", "src"];
    let files = folders.into_iter().flat_map(files::rust).filter(|file| !file.contains("/tests"));
    let text: String = files.filter_map(|file| files::read(&file)).collect();
    let words: Vec<_> = text.split(|it: char| !it.is_alphanumeric()).collect();
    let promises = (1..=7).map(|it| format!("P{it}"));
    let missing: Vec<_> = promises
        .chain((1..=8).map(|it| format!("L{it}")))
        .filter(|name| !words.contains(&name.as_str()))
        .collect();
    assert!(missing.is_empty(), "the production code does not name {missing:?}");
}
