//! The files of the page. They are part of the program, as they are.

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub struct File {
    /// Its media type.
    pub media_type: &'static str,
    /// Its contents.
    pub text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The file at a path below the secret.
pub fn at(path: &str) -> Option<File> {
    let file = |media_type, text| Some(File { media_type, text });
    match path {
        "/" => file("text/html; charset=utf-8", include_str!("page/index.html")),
        "/style.css" => file("text/css; charset=utf-8", include_str!("page/style.css")),
        "/icon.svg" => file("image/svg+xml", include_str!("page/icon.svg")),
        "/main.js" => file(SCRIPT, include_str!("page/main.js")),
        "/access.js" => file(SCRIPT, include_str!("page/access.js")),
        "/clock.js" => file(SCRIPT, include_str!("page/clock.js")),
        "/dom.js" => file(SCRIPT, include_str!("page/dom.js")),
        "/drawer.js" => file(SCRIPT, include_str!("page/drawer.js")),
        "/head.js" => file(SCRIPT, include_str!("page/head.js")),
        "/paint.js" => file(SCRIPT, include_str!("page/paint.js")),
        "/row.js" => file(SCRIPT, include_str!("page/row.js")),
        "/stream.js" => file(SCRIPT, include_str!("page/stream.js")),
        "/timeline.js" => file(SCRIPT, include_str!("page/timeline.js")),
        "/tip.js" => file(SCRIPT, include_str!("page/tip.js")),
        "/wall.js" => file(SCRIPT, include_str!("page/wall.js")),
        "/words.js" => file(SCRIPT, include_str!("page/words.js")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_that_the_page_names_is_served() {
        let page = at("/").unwrap().text;
        let names = page.split('"').filter(|text| text.contains('.') && !text.contains(' '));
        let names: Vec<&str> = names.collect();
        assert!(names.contains(&"main.js"), "{names:?}");
        for name in names {
            assert!(at(&format!("/{name}")).is_some(), "{name}");
        }
        let scripts = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/console/page"));
        for file in scripts.unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let name = if name == "index.html" { String::new() } else { name };
            assert!(at(&format!("/{name}")).is_some(), "{name} is not served");
        }
    }

    #[test]
    fn the_page_has_no_script_and_no_style_in_its_text() {
        let page = at("/").unwrap().text;
        assert!(!page.contains("style=") && !page.contains("<style") && !page.contains("onclick"));
        let inline = page.split("<script").skip(1).any(|script| !script.contains("></script>"));
        assert!(!inline);
    }
}
