//! Divides the tokens of a module into its items.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Words that can stand before the keyword of an item.
const BEFORE: [&str; 6] = ["pub", "async", "unsafe", "extern", "default", "const"];

/// One item: its tokens without attributes.
pub struct Item {
    pub tokens: Vec<TokenTree>,
    /// The contents of its attributes.
    pub attributes: Vec<TokenStream>,
}

impl Item {
    /// The keyword of the item and its name, if it has one: `fn` and `run`.
    pub fn keyword(&self) -> Option<(String, Option<String>)> {
        let mut words = self.tokens.iter().enumerate();
        let (at, keyword) = words.find_map(|(at, token)| match token {
            TokenTree::Ident(word) => {
                let word = word.to_string();
                let next = self.tokens.get(at + 1);
                let constant = word == "const" && !matches!(next, Some(TokenTree::Ident(next)) if next == "fn" || BEFORE.iter().any(|it| next == it));
                (constant || !BEFORE.contains(&word.as_str())).then_some((at, word))
            }
            _ => None,
        })?;
        let name = self.tokens[at + 1..].iter().find_map(|token| match token {
            TokenTree::Ident(word) if word != "mut" => Some(word.to_string()),
            _ => None,
        });
        Some((keyword, name))
    }

    /// Whether the item is compiled for tests only.
    pub fn is_test(&self) -> bool {
        self.attributes.iter().any(is_test)
    }
}

/// The items of a module. What is between them, such as a macro's call, is an item, too.
pub fn items(tokens: TokenStream) -> Vec<Item> {
    let mut items = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    let mut item = Item { tokens: Vec::new(), attributes: Vec::new() };
    while let Some(token) = tokens.next() {
        if item.tokens.is_empty() && is(&token, '#') {
            tokens.next_if(|it| is(it, '!'));
            if let Some(TokenTree::Group(group)) = tokens.next() {
                item.attributes.push(group.stream());
            }
            continue;
        }
        let ends = is(&token, ';') || is_body(&token) && !ends_with_semicolon(&item);
        item.tokens.push(token);
        if ends {
            items.push(std::mem::replace(
                &mut item,
                Item { tokens: Vec::new(), attributes: Vec::new() },
            ));
        }
    }
    if !item.tokens.is_empty() {
        items.push(item);
    }
    items
}

/// Whether an attribute is `cfg(test)` or a form of it.
pub fn is_test(attribute: &TokenStream) -> bool {
    let text = attribute.to_string().replace(' ', "");
    text.starts_with("cfg(") && text.contains("test") && !text.contains("not(test)")
}

pub fn is(token: &TokenTree, punctuation: char) -> bool {
    matches!(token, TokenTree::Punct(it) if it.as_char() == punctuation)
}

fn is_body(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(it) if it.delimiter() == Delimiter::Brace)
}

fn ends_with_semicolon(item: &Item) -> bool {
    let keyword = item.keyword();
    matches!(keyword, Some((keyword, _)) if ["use", "const", "static", "type"].contains(&keyword.as_str()))
}
