//! A failure has a type that says what can fail.

use beatkeeper_structure::{errors, files};

#[test]
fn no_failure_in_production_code_is_only_a_text() {
    let folders = ["api/src", "client/src", "core/src", "gateway/src", "src"];
    let sources = folders.into_iter().flat_map(files::rust).filter(|file| !file.contains("tests"));
    let wrong: Vec<String> = sources
        .flat_map(|file| {
            let text = files::read(&file).expect("a source");
            errors::texts(&text).into_iter().map(move |it| format!("{file}: {it}"))
        })
        .collect();
    assert!(wrong.is_empty(), "make these errors enums:\n  {}", wrong.join("\n  "));
}

#[test]
fn each_failure_that_is_a_text_is_found() {
    let clean = "
        fn f() -> Result<String, Error> { g::<Result<Vec<String>, E>>(); Ok(String::new()) }
        fn error(text: &str) -> Option<Error> { None }
        struct S { failure: Option<Failure>, note: Option<String>, error: fmt::Error }
        fn g(h: impl Fn(&str) -> fmt::Result) -> Result<Result<String, E>, (Reason, E)> {}
        #[cfg(test)] mod tests { fn f() -> Result<(), String> {} }";
    assert_eq!(errors::texts(clean), [""; 0]);
    for wrong in [
        "fn f() -> Result<(), String> {}",
        "fn f(g: impl Fn(u8) -> Result<u8, &'static str>) {}",
        "type Finding = std::result::Result<(), String>;",
        "type Outcome = Result<Option<String>, String>;",
        "fn f() -> Result<Placement, (Reason, String)> {}",
        "fn f() -> Result<u8, Cow<'static, str>> {}",
        "fn f() { let all = lines.collect::<Result<Vec<_>, String>>(); }",
        "struct S { pub failure: Option<String> }",
        "struct S { problems: Vec<String> }",
        "struct S<'a> { unreadable: &'a HashMap<Arc<str>, String> }",
        "impl S { fn failure(&self) -> Option<&str> {} }",
        "mod inner { fn f() -> Result<(), Box<str>> {} }",
    ] {
        assert_eq!(errors::texts(wrong).len(), 1, "{wrong}");
    }
}
