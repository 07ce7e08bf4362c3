//! Makes what nearly every test needs first: a namespace, and a client with few rights.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep};

use crate::plane::ControlPlane;
use crate::ready;

const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

impl ControlPlane {
    /// Makes a namespace for one test, named `PREFIX-` with a random suffix. Waits for its default ServiceAccount,
    /// because without it the API server refuses Pods.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let client = self.admin_client()?;
        let name = format!("{prefix}-{:08x}", rand::random::<u32>());
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(name.clone()), ..Default::default() },
            ..Default::default()
        };
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("cannot create the namespace {name}"))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, &name);
        let by = Instant::now() + PATIENCE;
        while accounts.get_opt("default").await?.is_none() {
            if Instant::now() > by {
                bail!(
                    "the namespace {name} has no default ServiceAccount after a minute: does the controller manager run?"
                );
            }
            sleep(PAUSE).await;
        }
        Ok(name)
    }

    /// Declares a custom resource, or changes its declaration. Returns once its objects can be read and written:
    /// right after the declaration the API server answers 404, then 429 for a moment.
    ///
    /// The garbage collector learns of a new resource up to half a minute later.
    pub async fn declare(&self, crd: &CustomResourceDefinition) -> Result<()> {
        let client = self.admin_client()?;
        let name = crd.metadata.name.clone().unwrap_or_default();
        let spec = &crd.spec;
        let force = PatchParams::apply("beatkeeper-cluster").force();
        Api::<CustomResourceDefinition>::all(client.clone())
            .patch(&name, &force, &Patch::Apply(crd))
            .await
            .with_context(|| format!("cannot declare {name}"))?;
        for version in spec.versions.iter().filter(|version| version.served) {
            let path = format!("/apis/{}/{}/{}", spec.group, version.name, spec.names.plural);
            let by = Instant::now() + PATIENCE;
            while let Err(error) = ready::get(&client, &path).await {
                if Instant::now() > by {
                    return Err(error.context(format!("{name} is declared and not served")));
                }
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Returns a client with the rights of a ServiceAccount, which must exist. If a Pod is named, the token is
    /// bound to it, as by the kubelet. The token is valid for an hour.
    pub async fn client_as(
        &self,
        namespace: &str,
        service_account: &str,
        pod: Option<&str>,
    ) -> Result<Client> {
        self.client_with_token(&self.token(namespace, service_account, pod).await?)
    }

    /// Returns the token that [`Self::client_as`] uses.
    pub async fn token(
        &self,
        namespace: &str,
        service_account: &str,
        pod: Option<&str>,
    ) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin_client()?, namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                bound_object_ref: pod.map(|pod| BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.to_owned()),
                    uid: None,
                }),
                expiration_seconds: Some(3600),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer: TokenRequest = accounts
            .create_subresource("token", service_account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("cannot get a token of {namespace}/{service_account}"))?;
        answer
            .status
            .map(|status| status.token)
            .context("the API server answered a TokenRequest without a token")
    }
}
