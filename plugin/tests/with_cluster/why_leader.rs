//! `why` asks the leader, over an address or through what plays kubectl: no kubelet runs in these tests, so nothing can be
//! forwarded to a Pod.

use std::{env, fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;
use tokio::net::TcpSocket;

use crate::stage::{ANN, Printed, Stage, eventually, kept_port, printed};

/// A namespace whose operator explains, and the address at which it does.
pub struct Explained {
    pub stage: Stage,
    pub address: String,
    pub election: String,
    _port: TcpSocket,
}

impl Explained {
    pub async fn new(prefix: &str) -> Self {
        let (port, address) = kept_port();
        let address = address.to_string();
        let flag = format!("--explain-bind-address={address}");
        let mut stage = Stage::electing_with(prefix, &[&flag]).await;
        stage.register("greeter", "");
        stage.agent("vm-1", "192.0.2.11");
        let election = format!("{}/beatkeeper", stage.namespace);
        // As the chart makes it.
        let namespace = &stage.namespace;
        stage.apply(&format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{ name: beatkeeper-explain }}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{ name: beatkeeper-explain }}\nrules:\n\
             - {{ apiGroups: [beatkeeper.dev], resources: [serviceregistrations], verbs: [get] }}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{ name: beatkeeper-explain }}\n\
             roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: Role, name: beatkeeper-explain }}\n\
             subjects: [{{ kind: ServiceAccount, name: beatkeeper-explain, namespace: {namespace} }}]\n---\n\
             apiVersion: v1\nkind: ServiceAccount\nmetadata: {{ name: stranger }}\n"
        ));
        Self { stage, address, election, _port: port }
    }

    /// The words that ask at the address.
    fn words<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let at = ["why", "greeter/vm-1", "--operator-address", &self.address];
        [&at[..], &["--election", &self.election], more].concat()
    }

    /// The words that let kubectl forward.
    fn forwarding(&self) -> [&str; 4] {
        ["why", "greeter/vm-1", "--election", &self.election]
    }
}

/// Runs the plugin with a folder as the first of its PATH.
fn with_path(stage: &Stage, first: &Path, words: &[&str]) -> Printed {
    let old = env::var_os("PATH").unwrap_or_default();
    let folders = [first.to_owned()].into_iter().chain(env::split_paths(&old));
    let mut command = stage.command(words);
    command.env("PATH", env::join_paths(folders).unwrap());
    printed(command)
}

/// The text on one line.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn what_the_leader_knows_is_in_the_steps_and_the_document() {
    let mut explained = Explained::new("why-leader").await;
    let words: Vec<String> = explained.words(&[]).iter().map(|&word| word.to_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let well = explained.stage.until(&words, "the leader tells of two beats", |out| {
        joined(out).contains("after the one before") && out.ends_with("\n✓ Nothing.\n")
    });
    let told = joined(&well);
    for part in [
        "has answered: it has led for",
        "✓ deadline its ttl of 3s passes in",
        "of proven time",
        "✓ proof beats can be written and are seen",
        "✓ guard the outage guard has found no broken path",
        "decided anew",
        "a beat in time changes nothing",
    ] {
        assert!(told.contains(part), "{part}\n{well}");
    }
    explained.stage.kill("vm-1");
    let dead = explained.stage.until(&words, "it is dead", |out| {
        out.contains("is Expired") && joined(out).contains("✗ decision Expired (TTLPassed)")
    });
    let told = joined(&dead);
    for part in [
        "and only a beat revives it",
        "· live read sent",
        "after the deadline: the Lease had not changed",
        "→ Start it again; its next beat publishes it.",
    ] {
        assert!(told.contains(part), "{part}\n{dead}");
    }
    let document = explained.stage.plugin(&[&words[..], &["-o", "json"]].concat());
    let document: Value = serde_json::from_str(&document.out).unwrap();
    assert_eq!(document["leader"]["decision"]["reason"], "TTLPassed", "{document}");
    assert_eq!(document["leader"]["lease"]["readAfterDeadline"], true, "{document}");
    let alone = explained.stage.plugin(&["why", "greeter/vm-1", "--without-leader"]);
    // The name of the namespace holds the word, too.
    assert!(!alone.out.contains(" leader"), "{alone:?}");
}

#[tokio::test]
async fn kubectl_forwards_a_port_to_the_pod_of_the_leader() {
    let explained = Explained::new("why-forward").await;
    let stage = &explained.stage;
    let folder = tempfile::tempdir().unwrap();
    let (kubectl, record) = (folder.path().join("kubectl"), folder.path().join("record"));
    let script = format!(
        "#!/bin/sh\necho \"$$ $*\" >> {}\necho 'Forwarding from {} -> 8082'\nexec sleep 600\n",
        record.display(),
        explained.address
    );
    fs::write(&kubectl, script).unwrap();
    fs::set_permissions(&kubectl, PermissionsExt::from_mode(0o755)).unwrap();
    eventually("the leader has answered", || {
        let printed = with_path(stage, folder.path(), &explained.forwarding());
        if printed.out.contains("has answered") { Ok(()) } else { Err(format!("{printed:?}")) }
    });
    let record = fs::read_to_string(record).unwrap();
    let (pid, words) = record.lines().last().unwrap().split_once(' ').unwrap();
    let port = explained.address.rsplit_once(':').unwrap().1;
    let (start, rest) = words.split_once(" pod/").unwrap();
    assert_eq!(start, format!("--namespace {} port-forward", stage.namespace));
    assert!(rest.ends_with(&format!(" :{port} --address 127.0.0.1")), "{rest}");
    eventually("what forwards has ended with the plugin", || {
        if Path::new(&format!("/proc/{pid}/exe")).exists() { Err(pid.to_owned()) } else { Ok(()) }
    });

    // The real one reaches no Pod here, and says so.
    let real = stage.plane.kubectl();
    let real = Path::new(real.get_program()).parent().unwrap();
    let printed = with_path(stage, real, &explained.forwarding());
    let told = joined(&printed.out);
    assert!(told.contains("not asked: kubectl port-forward to Pod"), "{printed:?}");
    assert!(told.contains("not found. This is argued from API objects alone"), "{printed:?}");
}

#[tokio::test]
async fn what_prevents_an_answer_is_told_in_a_line_and_the_argument_goes_on() {
    let explained = Explained::new("why-unasked").await;
    let stage = &explained.stage;
    let words = explained.words(&[]);
    stage.until(&words, "the leader answers", |out| out.contains("has answered"));
    let not_asked = |words: &[&str], why: &str| {
        let told = eventually("it was not asked", || {
            let told = joined(&stage.plugin(words).out);
            if told.contains("not asked") { Ok(told) } else { Err(told) }
        });
        assert!(told.contains(why), "{why}\n{told}");
        assert!(told.contains("This is argued from API objects alone"), "{told}");
        assert!(told.contains("✓ deadline its ttl of 3s passes in"), "the rest is there: {told}");
    };
    let stranger = explained.words(&["--token-of", "stranger"]);
    not_asked(
        &stranger,
        ":stranger may not read this; it needs the right to get serviceregistrations.beatkeeper.dev greeter",
    );
    let absent = explained.words(&["--token-of", "absent"]);
    not_asked(&absent, "no token can be made of ServiceAccount");
    // A server with another certificate gets no token.
    let other = Explained::new("why-other").await;
    let wrong = ["why", "greeter/vm-1", "--election", &explained.election];
    let wrong = [&wrong[..], &["--operator-address", &other.address]].concat();
    eventually("the other one listens", || {
        std::net::TcpStream::connect(&other.address).map(drop).map_err(|error| error.to_string())
    });
    not_asked(&wrong, "that has the certificate in Lease");
    let nowhere = ["why", "greeter/vm-1", "--election", "nowhere/beatkeeper"];
    not_asked(&nowhere, "Lease nowhere/beatkeeper of the election cannot be read");

    let rules = [
        "{ apiGroups: [beatkeeper.dev], resources: [serviceregistrations], verbs: [get, list] }",
        "{ apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, list] }",
        "{ apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list] }",
    ];
    stage.grant(ANN, &rules);
    let ann = explained.words(&["--as", "ann"]);
    stage.until(&ann, "the role applies", |out| !out.is_empty());
    not_asked(&ann, "cannot create resource \"serviceaccounts/token\"");
}
