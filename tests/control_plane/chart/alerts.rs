//! A real Prometheus evaluates the alerts of the chart on a real operator: a fault fires its alert, and no other.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use beatkeeper_cluster::Options;
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use super::{
    dashboards,
    helm::Helm,
    own_plane,
    rights::{flags, kubeconfig},
    runbooks::rendered,
    unreadable::{install, rights_without},
};
use crate::support::{
    Beats, Operator, TestNamespace, eventually,
    gateway::{Certificates, Gateway},
    prometheus::{self, Prometheus, free_port},
};

const INTERVAL: Duration = Duration::from_millis(500);

/// The instances: enough for the outage guard, which asks for ten.
const INSTANCES: usize = 12;

/// How many die in a mass death: more than 30 % of them.
const DEAD: usize = 4;

/// The alerts with short durations, and thresholds that a busy test machine does not reach.
fn values() -> Value {
    json!({ "metrics": { "serviceMonitor": { "enabled": true }, "prometheusRule": {
        "enabled": true,
        "alerts": {
            "BeatkeeperAbsent": { "for": "6s" },
            "BeatkeeperPruneSlow": { "for": "1s", "seconds": 20, "window": "30s" },
            "BeatkeeperHolds": { "for": "1s" },
            "BeatkeeperRegistrationsNotPublished": { "for": "10s" },
            "BeatkeeperManyExpired": { "for": "1s" },
            "BeatkeeperPathUnproven": { "for": "2s", "seconds": 8 },
            "BeatkeeperStoreRolledBack": { "window": "30s" },
            "BeatkeeperWatchBroken": { "for": "8s", "window": "6s" },
            "BeatkeeperCannotRead": { "for": "1s" },
            "BeatkeeperWritesFail": { "for": "8s", "window": "6s" },
        },
    }}})
}

/// Two replicas with the rights and flags of the chart, instances that beat, and Prometheus.
struct Site {
    ns: TestNamespace,
    config: PathBuf,
    flags: Vec<String>,
    rights: Vec<PolicyRule>,
    ports: [u16; 2],
    replicas: [Option<Operator>; 2],
    beats: Beats,
    prometheus: Prometheus,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn new(programs: &Path) -> Self {
        let plane = own_plane(Options::default()).await;
        let folder = tempfile::tempdir().unwrap();
        let ns = TestNamespace::new_on(plane, "alerts").await;
        install(&Helm::on(plane), "install", &[&ns], false).await;
        plane.declare(&beatkeeper_api::crd()).await.unwrap();
        let roles: Api<ClusterRole> = Api::all(ns.client.clone());
        let values_file = folder.path().join("values.json");
        std::fs::write(&values_file, values().to_string()).unwrap();
        let alerts = rendered(&["-f", values_file.to_str().unwrap()]).await;
        let ports = [free_port(), free_port()];
        let targets = ports.map(|port| format!("127.0.0.1:{port}"));
        let (config, flags) = (kubeconfig(plane, &folder).await, flags(&ns.client).await);
        let start = |n| Some(start(n, &config, &flags, &ports));
        let replicas = [start(0), start(1)];
        ns.greeter().await;
        ns.condition("greeter", "Ready", "True", "Published").await;
        let mut site = Self {
            beats: ns.beats("greeter"),
            rights: roles.get("beatkeeper-operator").await.unwrap().rules.unwrap(),
            prometheus: Prometheus::start(programs, &alerts, &targets).await,
            ns,
            config,
            flags,
            ports,
            replicas,
            _folder: folder,
        };
        for n in 0..INSTANCES {
            let lease = site.beats.outside(&format!("vm-{n}"), &format!("192.0.2.{}", n + 1));
            site.beats.start(&lease, INTERVAL).await;
        }
        site.prometheus
            .shows("sum(beatkeeper_leader) == 1 and count(beatkeeper_leader) == 2")
            .await;
        site.shows_ready(INSTANCES).await;
        site
    }

    fn start(&mut self, n: usize) {
        self.replicas[n] = Some(start(n, &self.config, &self.flags, &self.ports));
    }

    async fn shows_ready(&self, instances: usize) {
        let ready = r#"sum(beatkeeper_instances{state="Ready"})"#;
        self.prometheus.shows(&format!("{ready} == {instances}")).await;
    }

    fn die(&mut self, instances: usize) {
        for n in 0..instances {
            self.beats.die(&format!("vm-{n}"));
        }
    }

    fn live_again(&mut self, instances: usize) {
        (0..instances).for_each(|n| self.beats.keep_beating(&format!("vm-{n}"), INTERVAL));
    }

    /// Waits until no alert fires, with all instances published. Returns when that was.
    async fn quiet(&self) -> Instant {
        self.shows_ready(INSTANCES).await;
        self.prometheus.tells(&[]).await;
        let firing = r#"ALERTS{alertstate="firing"}"#;
        eventually("no alert fires", async || {
            self.prometheus.query(firing).await.is_empty().then_some(Instant::now())
        })
        .await
    }

    /// Waits until the alert has ended. Since `began`, no other alert has fired.
    async fn only(&self, began: Instant, alert: &str) {
        self.quiet().await;
        let fired = self.prometheus.fired(began.elapsed().as_secs()).await;
        assert_eq!(fired, BTreeSet::from([alert.to_owned()]));
    }

    /// Many instances die, and the others beat on.
    async fn mass_death(&mut self) {
        let began = self.quiet().await;
        self.die(DEAD);
        self.prometheus.tells(&["BeatkeeperManyExpired"]).await;
        // The bound of a bucket, as the alert asks for it.
        self.prometheus.shows(r#"beatkeeper_prune_lag_seconds_bucket{le=~"20([.]0)?"}"#).await;
        dashboards::every_panel_has_data(&self.prometheus).await;
        self.live_again(DEAD);
        self.only(began, "BeatkeeperManyExpired").await;
    }

    /// All beats stop at once, as if a webhook refused them.
    async fn broken_path(&mut self) {
        let began = self.quiet().await;
        self.die(INSTANCES);
        self.prometheus.tells(&["BeatkeeperHolds"]).await;
        self.live_again(INSTANCES);
        self.only(began, "BeatkeeperHolds").await;
    }

    /// The standby replica starts again without the right to read Pods. Its watch breaks on and on meanwhile.
    async fn right_taken_away(&mut self) {
        let began = self.quiet().await;
        let standby = self.prometheus.query("beatkeeper_leader == 0").await;
        let standby = if standby[0].0["pod"] == "operator-0" { 0 } else { 1 };
        rights_without(self.ns.plane, &self.rights, Some("pods")).await;
        assert!(self.replicas[standby].take().unwrap().stop().await);
        self.start(standby);
        self.prometheus.tells(&["BeatkeeperCannotRead"]).await;
        let breaks = r#"increase(beatkeeper_watch_restarts_total{kind="Pods"}[1m]) > 4"#;
        self.prometheus.shows(breaks).await;
        rights_without(self.ns.plane, &self.rights, None).await;
        self.only(began, "BeatkeeperCannotRead").await;
    }

    /// etcd is away for so long that proofs, watches and writes fail too.
    async fn etcd_stopped(&mut self) {
        let began = self.quiet().await;
        self.ns.plane.etcd().kill().await.unwrap();
        self.prometheus.tells(&["BeatkeeperAbsent"]).await;
        self.prometheus.shows("min(beatkeeper_path_proof_age_seconds) > 14").await;
        self.ns.plane.etcd().start().await.unwrap();
        self.only(began, "BeatkeeperAbsent").await;
    }

    /// Both replicas are killed, so that their series vanish.
    async fn replicas_killed(&mut self) {
        let began = self.quiet().await;
        self.replicas.iter_mut().for_each(|replica| replica.take().unwrap().kill());
        self.prometheus.tells(&["BeatkeeperAbsent"]).await;
        self.prometheus.shows("absent(beatkeeper_leader)").await;
        self.start(0);
        self.start(1);
        self.only(began, "BeatkeeperAbsent").await;
    }
}

fn start(n: usize, config: &Path, flags: &[String], ports: &[u16; 2]) -> Operator {
    let pod = format!("operator-{n}");
    let metrics = format!("--metrics-bind-address=127.0.0.1:{}", ports[n]);
    let mut all: Vec<&str> = flags.iter().map(String::as_str).collect();
    all.extend([metrics.as_str(), "--metrics-per-registration"]);
    Operator::start_as(Some(&pod), config, "", &all)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_fires_its_alert_and_no_other() {
    let Some(programs) = prometheus::programs("the alerts and dashboards with a real Prometheus")
    else {
        return;
    };
    let mut site = Site::new(&programs).await;
    site.mass_death().await;
    site.broken_path().await;
    site.right_taken_away().await;
    site.etcd_stopped().await;
    site.replicas_killed().await;
}

/// The alerts of gateways, for a gateway that Prometheus scrapes as if it were an operator.
async fn alerts_of_gateways() -> Vec<Value> {
    let values = json!({
        "metrics": { "prometheusRule": {
            "enabled": true,
            "selector": "job=\"none\"",
            "gatewaySelector": "job=\"beatkeeper-metrics\"",
            "alerts": {
                "BeatkeeperGatewayCertificateExpires": { "for": "1s" },
                "BeatkeeperGatewayCertificateExpired": { "for": "1s" },
            },
        }},
        "gateway": { "enabled": true, "certificate": { "certManager": { "enabled": true } } },
    });
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(&file, values.to_string()).unwrap();
    let mut alerts = rendered(&["-f", file.path().to_str().unwrap()]).await;
    alerts.retain(|alert| alert["alert"].as_str().unwrap().starts_with("BeatkeeperGateway"));
    assert_eq!(alerts.len(), 2);
    alerts
}

/// Replaces the certificate that instances see by one that expires when this day begins.
fn expires(certificates: &Certificates, day: Date) {
    let part = |number: i8| u8::try_from(number).unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_after = date_time_ymd(day.year().into(), part(day.month()), part(day.day()));
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let folder = certificates.of("beats");
    std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_certificate_expires_fires_its_alert_until_it_is_renewed() {
    let what = "the alerts of gateways with a real Prometheus";
    let Some(programs) = prometheus::programs(what) else { return };
    let ns = TestNamespace::new("alerts-of-gateways").await;
    let certificates = Certificates::new();
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    expires(&certificates, today + 2.days());
    let gateway = Gateway::start(&ns, &certificates, ("edge-0", "edge-uid"), &[]);
    let target = gateway.address("admin").await;
    let alerts = alerts_of_gateways().await;
    let prometheus = Prometheus::start(&programs, &alerts, &[target]).await;
    prometheus.tells(&["BeatkeeperGatewayCertificateExpires"]).await;
    expires(&certificates, today);
    prometheus.tells(&["BeatkeeperGatewayCertificateExpired"]).await;
    let streams =
        r#"beatkeeper_gateway_certificate_expiry_timestamp_seconds{certificate="streams"}"#;
    prometheus.shows(&format!("{streams} > time() + 14 * 86400")).await;
    expires(&certificates, today + 365.days());
    prometheus.tells(&[]).await;
}
