//! The token of a request.

use std::fmt;

use beatkeeper_api::bearer::{TOKEN_MAX, bearer};
use http::{HeaderMap, header::AUTHORIZATION};

/// A bearer token, as RFC 6750 has it. It is sent to the API server, and shown nowhere.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// The token in the headers of a request; `None` if there is none, more than one, or what cannot be one.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(AUTHORIZATION).iter();
        let token = bearer(values.map(|value| value.as_bytes()))?;
        (token.len() <= TOKEN_MAX).then(|| Self(token.to_owned()))
    }

    /// The token itself.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_token_that_is_too_long_or_beside_another_is_none() {
        let is_one = |values: &[&str]| Token::of(&headers(values)).is_some();
        let of_length = |length: usize| format!("Bearer {}", "a".repeat(length));
        assert!(is_one(&[&of_length(TOKEN_MAX)]));
        assert!(!is_one(&[&of_length(TOKEN_MAX + 1)]));
        assert!(!is_one(&["Bearer abc", "Bearer def"]));
    }

    #[test]
    fn a_token_is_not_shown() {
        assert_eq!(format!("{:?}", Token::of(&headers(&["Bearer abc"]))), "Some(Token(…))");
    }
}
