//! Tokens that an API server issues and does not accept itself, and tokens that it would have issued an hour ago.

use beatkeeper_cluster::ControlPlane;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::api::PostParams;
use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};

use crate::support::TestNamespace;

/// A valid token for another audience.
pub async fn for_audience(ns: &TestNamespace, account: &str, audience: &str) -> String {
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences: vec![audience.to_owned()], ..Default::default() },
        ..TokenRequest::default()
    };
    let accounts = ns.api::<ServiceAccount>();
    let params = PostParams::default();
    let answer: TokenRequest =
        accounts.create_subresource("token", account, &params, &request).await.unwrap();
    answer.status.unwrap().token
}

/// The same token, signed with the same key, as if it had been issued two hours ago for an hour.
pub fn expired(plane: &ControlPlane, token: &str) -> String {
    let [head, claims, _] = token.split('.').collect::<Vec<_>>()[..] else { panic!("no JWT") };
    let mut claims: Value = serde_json::from_slice(&decoded(claims)).unwrap();
    let issued = claims["iat"].as_i64().unwrap() - 7200;
    (claims["iat"], claims["nbf"], claims["exp"]) =
        (json!(issued), json!(issued), json!(issued + 3600));
    let signed = format!("{head}.{}", encoded(claims.to_string().as_bytes()));
    let key = plane.data_folder().join("pki/service-account.key");
    let key = KeyPair::from_pem(&std::fs::read_to_string(key).unwrap()).unwrap();
    let signature = raw(&key.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{}", encoded(&signature))
}

/// The two numbers of an ECDSA signature in DER, each as 32 bytes.
fn raw(der: &[u8]) -> Vec<u8> {
    let number = |at: usize| {
        let length = usize::from(der[at + 1]);
        let digits = &der[at + 2..at + 2 + length];
        let digits = &digits[digits.iter().take_while(|digit| **digit == 0).count()..];
        ([vec![0; 32 - digits.len()], digits.to_vec()].concat(), at + 2 + length)
    };
    let (first, next) = number(2);
    let (second, _) = number(next);
    [first, second].concat()
}

const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encoded(bytes: &[u8]) -> String {
    let digits = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        let digit = |n: usize| char::from(DIGITS[(bits >> (18 - 6 * n)) as usize & 63]);
        (0..=chunk.len()).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

fn decoded(text: &str) -> Vec<u8> {
    let digit = |c: &u8| DIGITS.iter().position(|digit| digit == c).unwrap() as u32;
    let bytes = |chunk: &[u8]| {
        let bits =
            chunk.iter().fold(0u32, |bits, c| bits << 6 | digit(c)) << (6 * (4 - chunk.len()));
        bits.to_be_bytes()[1..chunk.len()].to_vec()
    };
    text.as_bytes().chunks(4).flat_map(bytes).collect()
}
