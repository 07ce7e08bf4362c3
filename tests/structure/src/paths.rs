//! Finds the paths in tokens: `crate::plan::Plan`, and what `use` says.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::items::{is, is_test};

/// A path as it is written, one name after another.
pub type Segments = Vec<String>;

/// One name that a `use` brings into a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The path.
    pub path: Segments,
    /// The name in this module, or `*`.
    pub name: String,
}

/// The paths of at least two names, and the `use` declarations, of some code. What is for tests only is left out.
#[derive(Debug, Default)]
pub struct Paths {
    /// What `use` brings in.
    pub uses: Vec<Use>,
    /// The other paths.
    pub code: Vec<Segments>,
    /// What is called with what, by paths or single names.
    pub calls: Vec<(Segments, String)>,
}

impl Paths {
    /// Adds those of `tokens`.
    pub fn collect(&mut self, tokens: impl IntoIterator<Item = TokenTree>) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    at = self.attribute(&tokens, at);
                    continue;
                }
                TokenTree::Group(group) => self.collect(group.stream()),
                TokenTree::Ident(word) if word == "use" => {
                    let end = end(&tokens, at, |token| is(token, ';'));
                    read_use(&[], &tokens[at + 1..end], &mut self.uses);
                    at = end;
                }
                TokenTree::Ident(_) => {
                    let (path, next) = path(&tokens, at);
                    if !is_member(&tokens, at) {
                        if let Some(TokenTree::Group(arguments)) = tokens.get(next) {
                            self.calls.push((path.clone(), arguments.to_string().replace(' ', "")));
                        }
                        if path.len() > 1 {
                            self.code.push(path);
                        }
                    }
                    at = next;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Reads an attribute, and returns where to go on: behind what it excludes, if it says `cfg(test)`.
    fn attribute(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let group = at + if tokens.get(at + 1).is_some_and(|it| is(it, '!')) { 2 } else { 1 };
        let Some(TokenTree::Group(attribute)) = tokens.get(group) else { return at + 1 };
        if is_test(&attribute.stream()) {
            let ends = |token: &TokenTree| is(token, ',') || is(token, ';') || is_braces(token);
            return end(tokens, group, ends) + 1;
        }
        // `with = "crate::duration"` is a path, too.
        for token in attribute.stream() {
            if let TokenTree::Group(arguments) = &token {
                arguments.stream().into_iter().filter_map(quoted).for_each(|it| self.collect(it));
            }
        }
        self.collect(attribute.stream());
        group + 1
    }
}

/// The path in a string of an attribute.
fn quoted(token: TokenTree) -> Option<TokenStream> {
    let TokenTree::Literal(literal) = token else { return None };
    let text = literal.to_string();
    let text = text.trim_matches('"');
    ["crate::", "super::", "self::"]
        .iter()
        .any(|it| text.starts_with(it))
        .then(|| text.parse().ok())?
}

/// The path that begins at a name, and where it ends.
fn path(tokens: &[TokenTree], start: usize) -> (Segments, usize) {
    let mut path = vec![tokens[start].to_string()];
    let mut at = start + 1;
    while is_separator(tokens, at)
        && let Some(TokenTree::Ident(name)) = tokens.get(at + 2)
    {
        path.push(name.to_string());
        at += 3;
    }
    (path, at)
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let mark = |at: usize| tokens.get(at).is_some_and(|it| is(it, ':'));
    mark(at) && mark(at + 1)
}

/// Whether the name at this place is a field, a method, or the rest of a path that began with `<T as Trait>`.
fn is_member(tokens: &[TokenTree], at: usize) -> bool {
    let before = |back: usize, mark| at >= back && is(&tokens[at - back], mark);
    (before(1, '.') && !before(2, '.')) || before(1, '\'') || (before(1, ':') && before(2, ':'))
}

fn is_braces(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(it) if it.delimiter() == Delimiter::Brace)
}

fn end(tokens: &[TokenTree], from: usize, ends: impl Fn(&TokenTree) -> bool) -> usize {
    tokens[from..].iter().position(ends).map_or(tokens.len(), |more| from + more)
}

/// Reads what is behind `use`: `a::{b, c as d, e::*}`.
fn read_use(before: &[String], tokens: &[TokenTree], found: &mut Vec<Use>) {
    let mut path = before.to_vec();
    let mut name = None;
    let mut rest = tokens.iter();
    while let Some(token) = rest.next() {
        match token {
            TokenTree::Ident(word) if word == "as" => name = rest.next().map(ToString::to_string),
            TokenTree::Ident(word) => path.push(word.to_string()),
            TokenTree::Group(group) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                return inner
                    .split(|it| is(it, ','))
                    .filter(|it| !it.is_empty())
                    .for_each(|it| read_use(&path, it, found));
            }
            TokenTree::Punct(mark) if mark.as_char() == '*' => name = Some("*".to_owned()),
            _ => {}
        }
    }
    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
        path.pop();
    }
    if let Some(name) = name.or_else(|| path.last().cloned()) {
        found.push(Use { path, name });
    }
}
