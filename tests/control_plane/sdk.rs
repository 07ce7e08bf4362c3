//! Services that beat through the SDK, beside a real operator.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use beatkeeper_api::heartbeat;
use beatkeeper_client::{Builder, Change, Discovery, Error, Health, Service};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use crate::support::{TestNamespace, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

impl TestNamespace {
    /// A service `vm-<n>` of the greeter.
    fn vm(&self, n: u8) -> Builder {
        Service::builder("greeter")
            .namespace(&self.name)
            .pod("")
            .instance(format!("vm-{n}"))
            .address(format!("192.0.2.{n}").parse().unwrap())
            .config(self.plane.admin_config("sdk-test").unwrap())
            .handle_signal(false)
    }

    fn discovery(&self) -> Discovery {
        let config = self.plane.admin_config("sdk-test").unwrap();
        Discovery::with_config(config, Some(self.name.clone())).unwrap()
    }

    async fn lease_of(&self, n: u8) -> Option<Lease> {
        self.api::<Lease>().get_opt(&format!("greeter.vm-{n}")).await.unwrap()
    }
}

/// A record of events in order.
#[derive(Clone, Default)]
struct WriteLog(Arc<Mutex<Vec<&'static str>>>);

impl WriteLog {
    fn note(&self, what: &'static str) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.0.lock().unwrap().push(what);
        std::future::ready(Ok(()))
    }

    fn read(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_published_when_it_starts_and_gone_when_it_stops() {
    let ns = TestNamespace::new("sdk").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let write_log = WriteLog::default();
    let [before_start, after_start, before_stop, after_stop] = [(); 4].map(|()| write_log.clone());
    let service = ns
        .vm(1)
        .version("1.4.2")
        .metadata("shelf", "7")
        .before_start(move || before_start.note("before start"))
        .after_start(move || after_start.note("after start"))
        .before_stop(move || before_stop.note("before stop"))
        .after_stop(move || after_stop.note("after stop"));
    let running = service.build().unwrap().start().await.unwrap();
    assert_eq!(write_log.read(), ["before start", "after start"]);
    let lease = ns.lease_of(1).await.expect("it is registered when start returns");
    assert_eq!(lease.annotations()[heartbeat::VERSION_ANNOTATION], "1.4.2");
    assert_eq!(lease.annotations()["metadata.beatkeeper.dev/shelf"], "7");
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let observer = ns.observe("greeter").await;
    // The test waits longer than the ttl.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(observer.left(), [""; 0]);
    assert!(running.stats().beats >= 3, "{:?}", running.stats());
    running.stop().await.unwrap();
    assert_eq!(write_log.read(), ["before start", "after start", "before stop", "after stop"]);
    assert_eq!(ns.lease_of(1).await, None);
    observer.leaves("192.0.2.1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_hook_that_fails_undoes_the_start() {
    let ns = TestNamespace::new("sdk-hooks").await;
    ns.greeter().await;
    let fails = || async { Err("the port is taken") };
    let error = ns.vm(1).before_start(fails).build().unwrap().start().await.err().unwrap();
    assert_eq!(error.to_string(), "before_start: the port is taken");
    assert_eq!(ns.lease_of(1).await, None);
    let error = ns.vm(1).after_start(fails).build().unwrap().start().await.err().unwrap();
    assert_eq!(error.to_string(), "after_start: the port is taken");
    assert_eq!(ns.lease_of(1).await, None, "it is deregistered again");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_stop_hooks_are_collected_and_stop_nothing() {
    let ns = TestNamespace::new("sdk-stop").await;
    ns.greeter().await;
    let stop = CancellationToken::new();
    let service = ns
        .vm(1)
        .cancellation(stop.clone())
        .before_stop(|| async { Err("cannot flush") })
        .after_stop(|| async { Err("cannot close") });
    let run = tokio::spawn(service.build().unwrap().run());
    eventually("it is registered", async || ns.lease_of(1).await).await;
    stop.cancel();
    let error = run.await.unwrap().unwrap_err().to_string();
    assert_eq!(error, "before_stop: cannot flush; after_stop: cannot close");
    assert_eq!(ns.lease_of(1).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_fails_is_told_and_no_silence() {
    let ns = TestNamespace::new("sdk-check").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let broken = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&broken);
    let service = ns.vm(1).check_interval(Duration::from_millis(100)).register_check(move || {
        let broken = asked.load(Relaxed);
        async move { if broken { Err("disk 91 %") } else { Ok(()) } }
    });
    let running = service.build().unwrap().start().await.unwrap();
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    broken.store(true, Relaxed);
    let told = ns.instance("greeter", "vm-1", "NotReady", "HealthFailing").await;
    assert_eq!(told.message, "disk 91 %");
    broken.store(false, Relaxed);
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_instance_is_published_as_terminating_before_it_leaves() {
    let ns = TestNamespace::new("sdk-drain").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut running = ns.vm(1).build().unwrap().start().await.unwrap();
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let mut changes = ns.discovery().watch("greeter").await.unwrap();
    // The stream reads the slices when it is polled. If it were polled later, it would never see
    // the instance as ready.
    let first = tokio::time::timeout(PATIENCE, changes.next()).await.unwrap();
    assert!(matches!(&first, Some(Change::Created(one)) if one.ready), "{first:?}");
    running.drain(Duration::ZERO).await;
    let health = ns.lease_of(1).await.unwrap().annotations()[heartbeat::HEALTH_ANNOTATION].clone();
    assert_eq!(health, Health::Draining.as_str());
    let mut seen = Vec::new();
    let drained = async {
        while let Some(change) = changes.next().await {
            if let Change::Updated(one) = &change
                && one.terminating
            {
                assert!(one.serving && !one.ready, "{one:?}");
                return;
            }
            seen.push(change);
        }
    };
    tokio::time::timeout(PATIENCE, drained).await.unwrap_or_else(|_| panic!("only {seen:?}"));
    running.stop().await.unwrap();
    let gone = tokio::time::timeout(PATIENCE, changes.next()).await.unwrap();
    assert!(matches!(gone, Some(Change::Deleted(_))), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_renewal_a_service_lives_for_one_ttl() {
    let ns = TestNamespace::new("sdk-once").await;
    let _operator = ns.operator();
    // Long enough to see the instance published.
    let mut spec = TestNamespace::usual_spec();
    spec["ttl"] = "8s".into();
    ns.register("greeter", spec).await;
    ns.looked_at("greeter").await;
    let running =
        ns.vm(1).register_interval(Duration::ZERO).build().unwrap().start().await.unwrap();
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    ns.instance("greeter", "vm-1", "Expired", "TTLPassed").await;
    assert_eq!(running.stats().beats, 0);
    // Reporting health counts as a beat.
    running.set_health(Health::Passing, Some("by hand".to_owned()));
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_does_not_exist_fails_the_start_with_its_name() {
    let ns = TestNamespace::new("sdk-unknown").await;
    // Long enough for one answer of a busy API server.
    let service = ns.vm(1).start_timeout(Duration::from_secs(5)).build().unwrap();
    let error = service.start().await.err().unwrap().to_string();
    let expected = format!(
        "no beat was accepted within 5s: ServiceRegistration {}/greeter does not exist yet",
        ns.name
    );
    assert_eq!(error, expected);
}

#[test]
fn a_runtime_that_is_blocked_delays_no_beat_of_a_thread_of_its_own() {
    let others = tokio::runtime::Runtime::new().unwrap();
    let (ns, _operator) = others.block_on(async {
        let ns = TestNamespace::new("sdk-thread").await;
        let operator = ns.operator();
        ns.greeter().await;
        (ns, operator)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let running = runtime.block_on(async {
        let service = ns.vm(1).own_thread(true).build().unwrap();
        service.start().await.unwrap()
    });
    let observer = others.block_on(async {
        ns.published_as_ready("greeter", &["192.0.2.1"]).await;
        ns.observe("greeter").await
    });
    let before = running.stats().beats;
    // That runtime is not polled for longer than the ttl, which is three intervals.
    others.block_on(eventually("it has beaten on", async || {
        (running.stats().beats > before + 5).then_some(())
    }));
    assert_eq!(observer.left(), [""; 0]);
    runtime.block_on(running.stop()).unwrap();
    others.block_on(observer.leaves("192.0.2.1")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_of_a_registration_finds_the_published_instances_and_follows_changes() {
    let ns = TestNamespace::new("sdk-watch").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let first = ns.vm(1).build().unwrap().start().await.unwrap();
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let found = ns.discovery().resolve("greeter").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].address.to_string(), "192.0.2.1");
    assert_eq!((found[0].ports[0].port, &*found[0].ports[0].name), (8080, "grpc"));
    assert!(found[0].ready && found[0].serving && !found[0].terminating);

    let mut changes = ns.discovery().watch("greeter").await.unwrap();
    let mut next = async || tokio::time::timeout(PATIENCE, changes.next()).await.unwrap().unwrap();
    assert_eq!(next().await, Change::Created(found[0].clone()));
    let second = ns.vm(2).build().unwrap().start().await.unwrap();
    assert!(matches!(next().await, Change::Created(one) if one.address.to_string() == "192.0.2.2"));
    first.stop().await.unwrap();
    assert_eq!(next().await, Change::Deleted(found[0].clone()));
    second.stop().await.unwrap();
    assert!(matches!(next().await, Change::Deleted(_)));

    let error = ns.discovery().resolve("nobody").await.unwrap_err().to_string();
    assert!(error.contains("/nobody does not exist"), "{error}");
}
