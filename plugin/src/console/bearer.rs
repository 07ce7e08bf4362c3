//! The token of a request.

use std::fmt;

use http::{HeaderMap, header::AUTHORIZATION};

/// The longest token that is taken. One of an identity provider that names hundreds of groups is shorter.
const LONGEST: usize = 16 << 10;

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
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let (Some(one), None) = (all.next(), all.next()) else { return None };
        let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
        let token = token.trim_matches(' ');
        let is_token = !token.is_empty()
            && token.len() <= LONGEST
            && token.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._~+/=".contains(&it));
        (is_token && scheme.eq_ignore_ascii_case("bearer")).then(|| Self(token.to_owned()))
    }

    /// The token itself.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        Token::of(&headers).map(|token| token.secret().to_owned())
    }

    #[test]
    fn a_token_is_what_follows_the_word_bearer() {
        assert_eq!(of(&["Bearer abc.d-e_f~g+h/i=="]).as_deref(), Some("abc.d-e_f~g+h/i=="));
        assert_eq!(of(&["bearer  abc "]).as_deref(), Some("abc"));
        for wrong in
            ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer a b", "Bearer a,b", "Bearer ä"]
        {
            assert_eq!(of(&[wrong]), None, "{wrong}");
        }
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[&format!("Bearer {}", "a".repeat(LONGEST + 1))]), None);
    }

    #[test]
    fn of_two_tokens_none_is_taken_because_others_may_take_the_other() {
        assert_eq!(of(&["Bearer abc", "Bearer def"]), None);
    }

    #[test]
    fn a_token_is_not_shown() {
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, "Bearer abc".parse().unwrap());
        assert_eq!(format!("{:?}", Token::of(&headers)), "Some(Token(…))");
    }
}
