//! The gateways of a release. Their certificates stay through upgrades, and both ends of a stream
//! accept each other. A gateway writes no Lease but its own.

use std::{collections::BTreeMap, sync::Arc};

use beatkeeper_cluster::{ControlPlane, Options};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Pod, Secret},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde_json::json;

use super::{
    helm::{Helm, RELEASE, chart},
    own_plane,
};
use crate::support::eventually;

const GATEWAYS: [&str; 2] = ["--set", "gateway.enabled=true"];

type Files = BTreeMap<String, Vec<u8>>;

/// The contents of all Secrets with a certificate.
async fn certificates(plane: &ControlPlane) -> BTreeMap<String, Files> {
    let api: Api<Secret> = Api::namespaced(plane.admin_client().unwrap(), RELEASE);
    let params = ListParams::default().fields("type=kubernetes.io/tls");
    let secrets = api.list(&params).await.unwrap().items.into_iter();
    let files = |secret: Secret| {
        let data = secret.data.unwrap_or_default().into_iter();
        (secret.metadata.name.unwrap(), data.map(|(name, bytes)| (name, bytes.0)).collect())
    };
    secrets.map(files).collect()
}

fn chain(files: &Files) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(&files["tls.crt"]);
    let key = PrivateKeyDer::from_pem_slice(&files["tls.key"]).unwrap();
    (chain.map(Result::unwrap).collect(), key)
}

fn roots(ca: &[u8]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

/// Passes on what one end of a connection has to say.
fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = &*bytes;
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// A handshake in which the dialler expects this name. If the dialler has a certificate, the other
/// end asks for it.
fn handshake(
    server: &Files,
    dialler: Option<&Files>,
    ca: &[u8],
    name: &str,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone());
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = if dialler.is_some() {
        let trusted = Arc::new(roots(&server["ca.crt"]));
        let verifier = WebPkiClientVerifier::builder_with_provider(trusted, provider.clone());
        config.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        config.with_no_client_auth()
    };
    let (certificates, key) = chain(server);
    let server = config.with_single_cert(certificates, key).unwrap();

    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots(ca));
    let client = match dialler.map(chain) {
        Some((certificates, key)) => config.with_client_auth_cert(certificates, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client: Connection = ClientConnection::new(Arc::new(client), name).unwrap().into();
    let mut server: Connection = ServerConnection::new(Arc::new(server)).unwrap().into();
    while client.is_handshaking() || server.is_handshaking() {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificates_of_gateways_stay_through_upgrades_and_both_ends_accept_them() {
    let plane = own_plane(Options::default()).await;
    let helm = Helm::on(plane);
    let notes = helm.release("install", &chart(), &GATEWAYS).await;
    assert!(notes.contains("The chart has made the certificates of the gateways"), "{notes}");
    let made = certificates(plane).await;
    let names: Vec<&str> = made.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "beatkeeper-gateway",
            "beatkeeper-gateway-ca",
            "beatkeeper-gateway-operator",
            "beatkeeper-gateway-streams"
        ]
    );

    let [instances, operator, streams] =
        ["", "-operator", "-streams"].map(|end| made[&format!("beatkeeper-gateway{end}")].clone());
    let ca = operator["ca.crt"].clone();
    handshake(&streams, Some(&operator), &ca, "beatkeeper-gateway").unwrap();
    let wrong = handshake(&streams, Some(&operator), &ca, "beatkeeper-operator").unwrap_err();
    assert!(matches!(wrong, rustls::Error::InvalidCertificate(_)), "{wrong}");
    let maps: Api<ConfigMap> = Api::namespaced(plane.admin_client().unwrap(), RELEASE);
    let map = maps.get("beatkeeper-gateway-ca").await.unwrap();
    let ca = map.data.unwrap().remove("ca.crt").unwrap().into_bytes();
    for name in ["beatkeeper-gateway", "beatkeeper-gateway.beatkeeper.svc.cluster.local"] {
        handshake(&instances, None, &ca, name).unwrap();
    }
    handshake(&instances, None, &ca, "beats.example.com").unwrap_err();

    helm.release("upgrade", &chart(), &[&GATEWAYS[..], &["--set", "replicas=3"]].concat()).await;
    assert!(certificates(plane).await == made, "an upgrade has changed a certificate");
    let names = "gateway.certificate.dnsNames={beats.example.com}";
    helm.release("upgrade", &chart(), &[&GATEWAYS[..], &["--set", names]].concat()).await;
    let mut renamed = certificates(plane).await;
    handshake(&renamed["beatkeeper-gateway"], None, &ca, "beats.example.com").unwrap();
    renamed.insert("beatkeeper-gateway".to_owned(), instances);
    assert!(renamed == made, "another certificate has changed than that with the name");
}

fn lease(name: &str) -> Lease {
    serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap()
}

async fn create(client: &Client, name: &str) -> kube::Result<Lease> {
    let api: Api<Lease> = Api::namespaced(client.clone(), RELEASE);
    api.create(&PostParams::default(), &lease(name)).await
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: kube::Result<T>, words: &str) {
    let kube::Error::Api(status) = result.expect_err(words) else { panic!("{words}") };
    assert_eq!(status.code, 403, "{}", status.message);
    assert!(status.message.contains(words), "{}", status.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_writes_its_own_lease_and_no_other() {
    let plane = own_plane(Options::default()).await;
    Helm::on(plane).release("install", &chart(), &GATEWAYS).await;
    let admin = plane.admin_client().unwrap();
    let pods: Api<Pod> = Api::namespaced(admin.clone(), RELEASE);
    let pod = serde_json::from_value(json!({
        "metadata": { "name": "gateway-0" },
        "spec": {
            "serviceAccountName": "beatkeeper-gateway", "nodeName": "nowhere",
            "containers": [{ "name": "gateway", "image": "none" }],
        },
    }));
    pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
    let gateway = plane.client_as(RELEASE, "beatkeeper-gateway", Some("gateway-0")).await.unwrap();
    let no_pod = plane.client_as(RELEASE, "beatkeeper-gateway", None).await.unwrap();
    create(&admin, RELEASE).await.unwrap();
    let leases: Api<Lease> = Api::namespaced(gateway.clone(), RELEASE);
    let patch = Patch::Merge(json!({ "spec": { "holderIdentity": "gateway-0" } }));
    let params = PatchParams::default();

    let why = eventually("the policy is in force", async || {
        leases.patch(RELEASE, &params, &patch).await.err()
    })
    .await;
    let words = "Lease beatkeeper is not the Lease of the gateway that writes it, \
                 beatkeeper-gateway-gateway-0";
    refused(Err::<(), _>(why), words);
    refused(leases.delete(RELEASE, &DeleteParams::default()).await, words);
    refused(create(&gateway, "beatkeeper-gateway-gateway-1").await, "is not the Lease of");
    refused(create(&no_pod, "beatkeeper-gateway-0").await, "its token is of no Pod");

    let own = "beatkeeper-gateway-gateway-0";
    create(&gateway, own).await.unwrap();
    leases.patch(own, &params, &patch).await.unwrap();
    leases.delete(own, &DeleteParams::default()).await.unwrap();
    // All others write their Leases as before.
    create(&admin, "of-another-program").await.unwrap();
}
