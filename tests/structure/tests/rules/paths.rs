//! The pages of the repository name files and folders. A page that names a file that has moved
//! misleads its readers.

use beatkeeper_structure::files;

/// The folders with which a path in backticks begins.
const FOLDERS: [&str; 13] = [
    "api/", "bench/", "charts/", "client/", "core/", "crds/", "demo/", "docs/", "gateway/",
    "plugin/", "scripts/", "src/", "tests/",
];

/// The paths in backticks, except for patterns that stand for several paths.
fn named(page: &str) -> impl Iterator<Item = &str> {
    let quoted = page.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.filter(|text| {
        FOLDERS.iter().any(|folder| text.starts_with(folder))
            && !text.contains([' ', '*', '<', '{', '…', ':'])
    })
}

#[test]
fn every_path_that_a_page_names_exists() {
    let pages = files::all("docs").into_iter().filter(|path| path.ends_with(".md"));
    let mut seen = 0;
    for page in pages.chain(["README.md", "CONTRIBUTING.md"].map(str::to_owned)) {
        let text = files::read(&page).expect("a page");
        for path in named(&text) {
            seen += 1;
            assert!(files::root().join(path).exists(), "{page} names {path}");
        }
    }
    assert!(seen > 100, "the pages were looked for in the wrong place: {seen}");
}
