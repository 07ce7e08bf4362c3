//! Finds failures that are only texts: the reader of a signature does not learn what can fail, and no caller can tell
//! one failure from another.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::items::{Item, is, items};

/// Names of fields and functions that hold a failure.
const FAILURES: [&str; 12] = [
    "cause",
    "causes",
    "error",
    "errors",
    "failure",
    "failures",
    "fault",
    "faults",
    "problem",
    "problems",
    "unproven",
    "unreadable",
];

/// What holds a failure in a file, outside of its tests, and has the type of a text: results such as
/// `Result<u16, String>`, and fields and functions that are called `failure` or the like, such as
/// `failure: Option<String>`.
///
/// # Panics
/// If the text is not Rust.
pub fn texts(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    read(text.parse().expect("Rust"), &mut found);
    found
}

fn read(tokens: TokenStream, found: &mut Vec<String>) {
    for item in items(tokens).into_iter().filter(|item| !item.is_test()) {
        match body_of_module(&item) {
            Some(body) => read(body, found),
            None => scan(&item.tokens, found),
        }
    }
}

fn body_of_module(item: &Item) -> Option<TokenStream> {
    let is_module = item.keyword().is_some_and(|(keyword, _)| keyword == "mod");
    let TokenTree::Group(body) = item.tokens.last()? else { return None };
    is_module.then(|| body.stream())
}

fn scan(tokens: &[TokenTree], found: &mut Vec<String>) {
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => scan(&group.stream().into_iter().collect::<Vec<_>>(), found),
            TokenTree::Ident(name) if name == "Result" => {
                let arguments = arguments(&tokens[at + 1..]);
                if arguments.len() == 2 && is_text(arguments[1]) {
                    found.push(format!("Result<{}>", written(&arguments)));
                }
            }
            TokenTree::Ident(name) if FAILURES.iter().any(|it| name == it) => {
                let type_ = type_after(&tokens[at + 1..]);
                if type_.is_some_and(holds_text) {
                    found.push(format!("{name} is a text"));
                }
            }
            _ => {}
        }
    }
}

/// The type of a field or a function with these tokens after its name.
fn type_after(tokens: &[TokenTree]) -> Option<&[TokenTree]> {
    match tokens {
        [colon, rest @ ..] if is(colon, ':') && !rest.first().is_some_and(|it| is(it, ':')) => {
            Some(rest)
        }
        [TokenTree::Group(_), dash, arrow, rest @ ..] if is(dash, '-') && is(arrow, '>') => {
            Some(rest)
        }
        _ => None,
    }
}

/// Whether a type that begins here is an `Option`, a `Vec` or a map of texts.
fn holds_text(type_: &[TokenTree]) -> bool {
    let type_ = match type_ {
        [and, tick, _, type_ @ ..] if is(and, '&') && is(tick, '\'') => type_,
        [and, type_ @ ..] if is(and, '&') => type_,
        type_ => type_,
    };
    let [TokenTree::Ident(holder), rest @ ..] = type_ else { return false };
    ["Option", "Vec", "HashMap", "BTreeMap"].iter().any(|it| holder == it)
        && arguments(rest).last().is_some_and(|it| is_text(it))
}

/// The generic arguments that begin here.
fn arguments(tokens: &[TokenTree]) -> Vec<&[TokenTree]> {
    let colons = tokens.iter().take_while(|it| is(it, ':')).count();
    let Some(tokens) = tokens[colons..].split_first().filter(|(first, _)| is(first, '<')) else {
        return Vec::new();
    };
    let tokens = tokens.1;
    let (mut depth, mut begin, mut arguments) = (0, 0, Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        let arrow = at > 0 && is(&tokens[at - 1], '-');
        match token {
            it if is(it, '<') => depth += 1,
            it if is(it, '>') && arrow => {}
            it if is(it, '>') && depth == 0 => {
                arguments.push(&tokens[begin..at]);
                break;
            }
            it if is(it, '>') => depth -= 1,
            it if is(it, ',') && depth == 0 => {
                arguments.push(&tokens[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    arguments.retain(|it| !it.is_empty());
    arguments
}

/// Whether a type is a text, a pointer to one, or a tuple that ends with one.
fn is_text(type_: &[TokenTree]) -> bool {
    match type_ {
        [TokenTree::Ident(name)] => name == "String" || name == "str",
        [TokenTree::Group(tuple)] if tuple.delimiter() == Delimiter::Parenthesis => {
            let members: Vec<_> = tuple.stream().into_iter().collect();
            members.rsplit(|it| is(it, ',')).next().is_some_and(is_text)
        }
        [.., last] if is(&type_[0], '&') => matches!(last, TokenTree::Ident(name) if name == "str"),
        [TokenTree::Ident(pointer), ..]
            if ["Arc", "Box", "Cow", "Rc"].iter().any(|it| pointer == it) =>
        {
            arguments(&type_[1..]).last().is_some_and(|it| is_text(it))
        }
        _ => false,
    }
}

fn written(arguments: &[&[TokenTree]]) -> String {
    let written = |it: &&[TokenTree]| it.iter().cloned().collect::<TokenStream>().to_string();
    arguments.iter().map(written).collect::<Vec<_>>().join(", ")
}
