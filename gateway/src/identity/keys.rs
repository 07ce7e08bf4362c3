//! The published keys of the cluster.

use std::collections::HashMap;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::Jwk};
use serde::Deserialize;

use crate::identity::{claims::Claims, ports::NotVerified};

/// The algorithms with which an API server signs, as far as they can be verified. A key of one family never verifies
/// another one, and none of them uses a shared secret.
const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::ES256, Algorithm::ES384];

/// The most keys that are kept.
const KEYS_MAX: usize = 64;

/// The keys, by their names.
#[derive(Default)]
pub(super) struct Keys(HashMap<String, DecodingKey>);

/// The set as it is published. Each key is read for itself: one of a kind that is not known hides no other one.
#[derive(Deserialize)]
struct Published {
    keys: Vec<serde_json::Value>,
}

impl Keys {
    /// Reads a JSON Web Key Set. Keys that cannot be used are skipped.
    ///
    /// # Errors
    /// It is no such set.
    pub(super) fn read(text: &str) -> Result<Self, serde_json::Error> {
        let Published { keys } = serde_json::from_str(text)?;
        let keys = keys.into_iter().take(KEYS_MAX);
        let keys = keys.filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let named = keys.filter_map(|key| {
            // A symmetric key would let the gateway make tokens, and is never published.
            let key_type = &key.algorithm;
            if matches!(key_type, jsonwebtoken::jwk::AlgorithmParameters::OctetKey(_)) {
                return None;
            }
            Some((key.common.key_id.clone()?, DecodingKey::from_jwk(&key).ok()?))
        });
        Ok(Self(named.collect()))
    }

    /// Whether a key is known.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The head of a token: the name of its key, and the algorithm.
pub(super) fn head(token: &str) -> Result<(String, Algorithm), NotVerified> {
    let head = jsonwebtoken::decode_header(token).map_err(|_| unreadable(token))?;
    if !ALGORITHMS.contains(&head.alg) {
        return Err(NotVerified::Algorithm(format!("{:?}", head.alg)));
    }
    Ok((head.kid.ok_or(NotVerified::NoKey)?, head.alg))
}

/// Why a head cannot be read. An algorithm of another name, such as `none`, is told.
fn unreadable(token: &str) -> NotVerified {
    use serde_json::Value;
    let head = token.split('.').next().and_then(base64_url);
    let head = head.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let algorithm = head.as_ref().and_then(|head| head.get("alg")).and_then(Value::as_str);
    algorithm.map_or(NotVerified::NoServiceAccountToken, |name| {
        NotVerified::Algorithm(
            name.chars().filter(|it| it.is_ascii_alphanumeric()).take(16).collect(),
        )
    })
}

/// The bytes of a text in the alphabet of tokens.
fn base64_url(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count).to_le_bytes()[0]);
        }
    }
    Some(bytes)
}

/// The claims of a token, if this key has signed it.
pub(super) fn signed(
    token: &str,
    key: &str,
    algorithm: Algorithm,
    keys: &Keys,
) -> Result<Claims, NotVerified> {
    let key = keys.0.get(key).ok_or(NotVerified::UnknownKey)?;
    let mut validation = Validation::new(algorithm);
    // The claims are checked below, each with a reason of its own.
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud) = (false, false);
    match jsonwebtoken::decode::<Claims>(token, key, &validation) {
        Ok(decoded) => Ok(decoded.claims),
        Err(error) => Err(match error.kind() {
            jsonwebtoken::errors::ErrorKind::Json(_) => NotVerified::NoServiceAccountToken,
            _ => NotVerified::Signature,
        }),
    }
}
