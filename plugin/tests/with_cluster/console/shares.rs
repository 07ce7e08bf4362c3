//! One reader of the console in a cluster takes all that it may, and another one is served.

use std::{net::TcpStream, thread, time::Duration};

use super::{
    cluster::{ALL, HOST, events, get, server_of, started, started_at},
    relay::Relay,
    server::Answer,
};
use crate::stage::{Stage, eventually};

/// Two ServiceAccounts that may see all of the stage's namespace, and a token of each.
async fn two_readers(stage: &Stage) -> [String; 2] {
    let namespace = &stage.namespace;
    for name in ["reader", "other"] {
        stage.apply(&format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{ name: {name} }}\n"
        ));
    }
    let subject =
        |name: &str| format!("{{ kind: ServiceAccount, name: {name}, namespace: {namespace} }}");
    stage.grant(&format!("{}, {}", subject("reader"), subject("other")), &ALL);
    let token = async |name: &str| stage.plane.token(namespace, name, None).await.unwrap();
    [token("reader").await, token("other").await]
}

#[tokio::test]
async fn one_reader_with_many_pages_is_refused_while_another_reader_is_served() {
    let stage = Stage::without_operator("served-share").await;
    let [first, other] = two_readers(&stage).await;
    let second = stage.plane.token(&stage.namespace, "reader", None).await.unwrap();
    let console = started(&stage, &["console.maxReaders=3", "console.maxPagesPerReader=2"]);
    let path = events(&stage);
    let pages = [console.open(&path, HOST, &first), console.open(&path, HOST, &second)];
    // Another token of the same user is the same reader.
    for token in [&first, &second] {
        let refused = get(&console, &path, token);
        assert_eq!(refused.status, 429, "{refused:?}");
        assert!(refused.has("retry-after", "10"), "{refused:?}");
        assert!(refused.body.contains("You have 2 pages of this console open"), "{refused:?}");
    }
    let of_other = console.open(&path, HOST, &other);
    assert_eq!(get(&console, &path, &other).status, 503, "all places are taken");
    drop(pages);
    eventually("the reader has places again", || {
        console.first(&path, HOST, &first).map_err(|answer| format!("{answer:?}"))
    });
    drop(of_other);
}

#[tokio::test]
async fn one_reader_with_many_arguments_is_refused_while_another_reader_gets_one() {
    let mut stage = Stage::new("served-why").await;
    stage.register("greeter", "");
    stage.agent("vm-1", "192.0.2.11");
    stage.until(&["get"], "it is ready", |tree| tree.contains("1 of 1 instance ready"));
    let [reader, other] = two_readers(&stage).await;
    let relay = Relay::to(&server_of(&stage));
    let console = started_at(&stage, &relay.host, &["console.maxArgumentsPerReader=2"]);
    let path = format!("/why/{}/greeter/vm-1", stage.namespace);
    assert_eq!(get(&console, &path, &reader).status, 200);

    // An argument takes several answers of the API server. Each is late, so all arguments are read at the same time.
    relay.delay(Duration::from_millis(200));
    let answers: Vec<Answer> = thread::scope(|scope| {
        let of_reader: Vec<_> =
            (0..16).map(|_| scope.spawn(|| get(&console, &path, &reader))).collect();
        let of_other = scope.spawn(|| get(&console, &path, &other)).join().unwrap();
        assert_eq!(of_other.status, 200, "{of_other:?}");
        of_reader.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let (served, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert!(served.len() >= 2, "the reader gets its own places: {refused:?}");
    assert!(!refused.is_empty(), "the reader takes more than its places");
    for answer in refused {
        assert_eq!(answer.status, 429, "{answer:?}");
        assert!(answer.has("retry-after", "1"), "{answer:?}");
        assert!(answer.body.contains("reads 2 answers for you already"), "{answer:?}");
    }
    relay.delay(Duration::ZERO);
    eventually("the places are free again", || match get(&console, &path, &reader) {
        answer if answer.status == 200 => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
}

#[tokio::test]
async fn many_connections_that_ask_for_nothing_keep_no_reader_out_and_end_no_open_page() {
    let stage = Stage::without_operator("served-idle").await;
    let [reader, other] = two_readers(&stage).await;
    let console = started(&stage, &["console.maxReaders=2"]);
    let page = console.open(&events(&stage), HOST, &reader);
    // Two pages and 64 more.
    let idle: Vec<TcpStream> =
        (0..150).map(|_| TcpStream::connect(&console.host).unwrap()).collect();
    let of_other = console.open(&events(&stage), HOST, &other);
    assert_eq!(get(&console, "/why/a/b/c", &other).status, 403);
    // Both pages are told of what happens now.
    stage.register("greeter", "");
    for page in [page, of_other] {
        page.until("the registration is told", |message| message["kind"] == "registration");
    }
    drop(idle);
}
