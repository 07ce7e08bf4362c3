//! The token of a request, for all that is served to users with one: `/metrics`, `/explain` and the console.

/// The longest token that is worth a question to the API server, in bytes. One of an identity provider that names hundreds
/// of groups is shorter.
pub const TOKEN_MAX: usize = 16 << 10;

/// The token in the values of a request's headers `Authorization`, as RFC 6750 has it. `None` if there is none, if there is
/// more than one, because another program on the way may take the other, or if it cannot be one. It may be too long.
pub fn bearer<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<&'a str> {
    let mut values = values.into_iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = str::from_utf8(value).ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    let is_token = !token.is_empty()
        && token.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._~+/=".contains(&it));
    (is_token && scheme.eq_ignore_ascii_case("bearer")).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(values: &[&'a str]) -> Option<&'a str> {
        bearer(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn a_token_is_what_follows_the_word_bearer() {
        assert_eq!(of(&["Bearer abc.d-e_f~g+h/i=="]), Some("abc.d-e_f~g+h/i=="));
        assert_eq!(of(&["bearer  abc "]), Some("abc"));
        for wrong in
            ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer a b", "Bearer a,b", "Bearer ä"]
        {
            assert_eq!(of(&[wrong]), None, "{wrong}");
        }
        assert_eq!(of(&[]), None);
        assert_eq!(bearer([&b"Bearer \xff"[..]]), None);
    }

    #[test]
    fn of_two_tokens_none_is_taken_because_others_may_take_the_other() {
        assert_eq!(of(&["Bearer abc", "Bearer def"]), None);
    }
}
