//! The requests and the programs in docs/gateway.md work as they stand there.

use std::process::{Child, Command, Stdio};

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;
use tempfile::TempDir;

use super::world::{TTL, World};
use crate::{docs::blocks, support::eventually, support::operator::spawn_from_keeper};

const PAGE: &str = include_str!("../../../docs/gateway.md");
/// The names that the page uses.
const HOST: &str = "beatkeeper-gateway.beatkeeper.svc";
const NAMESPACE: &str = "shop";
const LEASE: &str = "greeter.vm-1";

/// What a reader of the page has: an instance, and a folder with `token` and `ca.crt`.
struct Reader {
    folder: TempDir,
    /// What stands in the place of each name of the page.
    names: [(&'static str, String); 3],
}

impl Reader {
    async fn new(world: &World, address: &str, pod: &str, ip: &str) -> Self {
        let (lease, token) = world.registered(pod, ip).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), token).unwrap();
        std::fs::copy(world.ca(), folder.path().join("ca.crt")).unwrap();
        let names = [
            (HOST, address.to_owned()),
            (NAMESPACE, world.ns.name.clone()),
            (LEASE, lease.metadata.name.unwrap()),
        ];
        Self { folder, names }
    }

    /// A text of the page, with the names of this reader.
    fn read(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, own)| text.replace(name, own))
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Writes a program of the page into a file, and starts it.
    fn start(&self, language: &str) -> Running {
        let [program] = &*blocks(PAGE, language) else { panic!("one program in {language}") };
        let (file, interpreter) = match language {
            "python" => ("beat.py", "python3"),
            "go" => ("beat.go", "go"),
            _ => ("beat.mjs", "node"),
        };
        std::fs::write(self.folder.path().join(file), self.read(program)).unwrap();
        let command = match language {
            "go" => {
                let built = self.command("go", &["build", "-o", "beat", file]).status().unwrap();
                assert!(built.success(), "{file} cannot be built");
                self.command(self.folder.path().join("beat").to_str().unwrap(), &[])
            }
            _ => self.command(interpreter, &[file]),
        };
        Running(spawn_from_keeper(command))
    }
}

/// A program. It is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The commands with curl on the page, each with the answer that it shows.
fn requests() -> Vec<(String, Value)> {
    let shown = blocks(PAGE, "console");
    let curls = shown.iter().filter_map(|block| block.strip_prefix("$ curl"));
    curls
        .map(|block| {
            let (command, answer) = block.trim_end().rsplit_once('\n').unwrap();
            (format!("curl --silent{command}"), serde_json::from_str(answer).unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_the_page_are_answered_as_it_shows_and_its_programs_keep_their_instances() {
    let world = World::new("gateway-contract").await;
    let _operator = world.operator("first");
    let gateway = world.gateway("gw").await;
    world.register().await;
    let address = gateway.address("beats").await;

    let curl = Reader::new(&world, &address, "curl", "10.1.0.1").await;
    let requests = requests();
    assert_eq!(requests.len(), 2, "one beat, and many");
    for (command, shown) in requests {
        // The registration of this test has another pace than the one of the page.
        let ttl = format!("\"{}s\"", TTL.as_secs());
        let shown = shown.to_string().replace("\"30s\"", &ttl).replace("\"10s\"", "\"1s\"");
        let shown: Value = serde_json::from_str(&curl.read(&shown)).unwrap();
        // The gateway answers 503 until it is connected with the operator.
        eventually(&format!("{command} is answered as the page shows"), async || {
            let answer = curl.command("bash", &["-c", &curl.read(&command)]).output().unwrap();
            let told: Option<Value> = serde_json::from_slice(&answer.stdout).ok();
            (told.as_ref() == Some(&shown)).then_some(())
        })
        .await;
    }

    let mut readers = Vec::new();
    for (language, ip) in [("python", "10.1.0.2"), ("go", "10.1.0.3"), ("javascript", "10.1.0.4")] {
        readers.push((language, Reader::new(&world, &address, language, ip).await));
    }
    let running: Vec<_> = readers.iter().map(|(language, reader)| reader.start(language)).collect();
    let all = ["10.1.0.2", "10.1.0.3", "10.1.0.4"];
    world.ns.published_as_ready("greeter", &all).await;
    let version = async |language: &str| {
        let lease = world.ns.api::<Lease>().get(&format!("greeter.{language}")).await.unwrap();
        lease.metadata.resource_version
    };
    let (python, go, node) =
        (version("python").await, version("go").await, version("javascript").await);
    world.stay_published(&all, TTL * 2).await;
    assert_eq!(
        (version("python").await, version("go").await, version("javascript").await),
        (python, go, node),
        "a Lease was written"
    );
    drop(running);
    world.ns.published_as_ready("greeter", &[]).await;
}
