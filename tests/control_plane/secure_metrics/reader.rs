//! A client of what the operator guards.

use http::{Request, header};
use http_body_util::BodyExt;
use kube::{Client, Config, client::Body};

/// What the operator has answered.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    /// The header WWW-Authenticate.
    pub challenge: Option<String>,
    pub body: String,
}

/// Reads what one address serves.
pub struct Reader {
    client: Client,
}

impl Reader {
    /// Trusts this certificate, or any.
    pub fn of(address: &str, root: Option<Vec<u8>>) -> Self {
        Self::trusting(address, root, false)
    }

    /// Trusts this certificate, which the operator has made itself.
    pub fn of_own(address: &str, certificate: Vec<u8>) -> Self {
        Self::trusting(address, Some(certificate), true)
    }

    fn trusting(address: &str, root: Option<Vec<u8>>, own: bool) -> Self {
        let mut config = Config::new(format!("https://{address}").parse().unwrap());
        config.accept_invalid_certs = root.is_none();
        // A refusal is what the tests look at.
        config.default_retry = false;
        config.root_cert = root.map(|root| vec![root]);
        // The name in each certificate that the operator makes itself.
        config.tls_server_name = own.then(|| "localhost".to_owned());
        Self { client: Client::try_from(config).unwrap() }
    }

    /// Gets the metrics. Returns `None` if there is no answer, for example because the certificate is not trusted.
    pub async fn get(&self, token: Option<&str>) -> Option<Answer> {
        self.read("/metrics", token).await
    }

    /// Gets a path.
    pub async fn read(&self, path: &str, token: Option<&str>) -> Option<Answer> {
        let mut request = Request::get(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = self.client.send(request.body(Body::empty()).unwrap()).await.ok()?;
        let challenge = answer.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        Some(Answer { code, challenge, body: String::from_utf8(body.to_vec()).unwrap() })
    }
}
