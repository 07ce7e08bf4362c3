//! The functions of a file and their lengths.

/// The names of all functions with the number of lines of their bodies, without empty lines and comments. The text must
/// be as rustfmt writes it: a body ends with the next brace that stands as far to the right as the function begins.
pub fn lengths(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let functions = lines.iter().enumerate().filter_map(|(at, line)| {
        let name = name(line)?;
        let margin = &line[..line.len() - line.trim_start().len()];
        let end = format!("{margin}}}");
        let body = lines[at + 1..].iter().take_while(|it| !it.starts_with(&end));
        let ends = line.ends_with(['}', ';']);
        let code = body.filter(|it| !it.trim().is_empty() && !it.trim().starts_with("//"));
        Some((name, if ends { 0 } else { code.count() }))
    });
    functions.collect()
}

/// The name of the function that begins in this line.
fn name(line: &str) -> Option<String> {
    let (before, after) = line.split_once("fn ")?;
    let words = ["pub", "const", "async", "unsafe", "default", "extern"];
    let is_before =
        |word: &str| words.iter().any(|it| word.starts_with(it)) || word.starts_with('"');
    let name: String = after.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
    (before.split_whitespace().all(is_before) && !name.is_empty()).then_some(name)
}
