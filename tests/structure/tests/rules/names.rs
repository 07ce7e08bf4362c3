//! Each promise and each rule of liveness can be found in the production code by its name.

use beatkeeper_structure::files;

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
