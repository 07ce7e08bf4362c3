//! Tokens as an API server signs them, and the keys that it publishes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use beatkeeper_core::carriers::rights::Identity;
use beatkeeper_gateway::identity::ports::{AskFailed, KeySource, TokenReviewer};
use futures::{FutureExt, future::LocalBoxFuture};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use super::rsa;

pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// An issuer that is accepted besides.
pub const BESIDES: &str = "https://former.example";
pub const AUDIENCE: &str = "beatkeeper";

fn base64(bytes: &[u8], alphabet_end: &[u8; 2]) -> String {
    let mut letters: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').collect();
    letters.extend(alphabet_end);
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for n in 0..=chunk.len() {
            text.push(char::from(letters[(bits >> (18 - 6 * n) & 63) as usize]));
        }
    }
    text
}

/// Base64 as tokens have it.
pub fn base64_url(bytes: &[u8]) -> String {
    base64(bytes, b"-_")
}

fn rsa_private() -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for letter in rsa::PRIVATE.bytes().filter(|letter| *letter != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        (bits, count) = (bits << 6 | u32::from(value), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 255) as u8);
        }
    }
    bytes
}

/// A key that signs tokens.
pub struct SigningKey {
    name: String,
    algorithm: Algorithm,
    private: EncodingKey,
    public: Value,
}

impl SigningKey {
    pub fn ecdsa(name: &str) -> Self {
        let pair = KeyPair::generate().unwrap();
        let point = pair.der_bytes();
        let (x, y) = (base64_url(&point[1..33]), base64_url(&point[33..65]));
        let public = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": name, "x": x, "y": y,
        });
        let private = EncodingKey::from_ec_der(&pair.serialize_der());
        Self { name: name.to_owned(), algorithm: Algorithm::ES256, private, public }
    }

    pub fn rsa(name: &str) -> Self {
        let public = json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": name, "n": rsa::MODULUS, "e": "AQAB",
        });
        let private = EncodingKey::from_rsa_der(&rsa_private());
        Self { name: name.to_owned(), algorithm: Algorithm::RS256, private, public }
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.name.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }
}

/// The claims of a token of a Pod in namespace `shop`.
pub fn claims(pod: &str) -> Value {
    let now = jiff::Timestamp::now().as_second();
    json!({
        "iss": ISSUER,
        "sub": "system:serviceaccount:shop:default",
        "aud": [AUDIENCE],
        "exp": now + 3600,
        "iat": now,
        "nbf": now,
        "kubernetes.io": {
            "namespace": "shop",
            "serviceaccount": { "name": "default", "uid": "account" },
            "pod": { "name": pod, "uid": format!("{pod}-uid") },
        },
    })
}

/// What the API server publishes.
#[derive(Clone, Default)]
pub struct Published {
    keys: Arc<Mutex<Vec<Value>>>,
    /// The issuer, if it is not [`ISSUER`].
    pub issuer: Arc<Mutex<Option<String>>>,
    pub asked: Arc<AtomicUsize>,
}

impl Published {
    pub fn set(&self, keys: &[&SigningKey]) {
        *self.keys.lock().unwrap() = keys.iter().map(|key| key.public.clone()).collect();
    }

    pub fn add(&self, key: Value) {
        self.keys.lock().unwrap().push(key);
    }
}

impl KeySource for Published {
    fn keys(&self) -> LocalBoxFuture<'_, Result<String, AskFailed>> {
        self.asked.fetch_add(1, SeqCst);
        let keys = json!({ "keys": *self.keys.lock().unwrap() }).to_string();
        async move { Ok(keys) }.boxed_local()
    }

    fn issuer(&self) -> LocalBoxFuture<'_, Result<String, AskFailed>> {
        let issuer = self.issuer.lock().unwrap().clone();
        async move { Ok(issuer.unwrap_or_else(|| ISSUER.to_owned())) }.boxed_local()
    }
}

/// Reviews tokens.
#[derive(Clone, Default)]
pub struct Reviews {
    pub known: Arc<Mutex<BTreeMap<String, Identity>>>,
    pub asked: Arc<AtomicUsize>,
}

impl TokenReviewer for Reviews {
    fn review<'a>(
        &'a self,
        token: &'a str,
        _: &'a str,
    ) -> LocalBoxFuture<'a, Result<Option<Identity>, AskFailed>> {
        self.asked.fetch_add(1, SeqCst);
        let known = self.known.lock().unwrap().get(token).cloned();
        async move { Ok(known) }.boxed_local()
    }
}
