//! A headless Chromium, which the tests tell what to do by the DevTools protocol over a pipe.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, channel},
    },
};

use serde_json::{Value, json};

use crate::stage::{PATIENCE, eventually, spawn};

/// The variable with the folder that `scripts/browser` has printed.
const PREPARED: &str = "BEATKEEPER_BROWSER";

/// A browser's only use is to show pages of this computer. Without these flags it asks for others.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
];

/// One browser at a time: each would keep a core busy.
static ONE: Mutex<()> = Mutex::new(());

/// The folder with the browser. If this machine cannot have one, says that the test is not run.
fn browser(test: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/browser");
    beatkeeper_cluster::prepared(PREPARED, &script, test)
}

/// A page in a browser of its own. Both end when this is dropped.
pub struct Page {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    calls: u64,
    session: Option<String>,
    folder: PathBuf,
    _profile: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Page {
    /// Opens an empty page; `None` if this machine cannot have a browser.
    pub fn open(test: &str) -> Option<Self> {
        let folder = browser(test)?;
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        // The pipe has the descriptors 3 and 4.
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"]);
        command.arg(folder.join("chromium")).args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn(command);
        let (to, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(out).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut page =
            Self { child, to, from, calls: 0, session: None, folder, _profile: profile, _one: one };
        let target = page.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = page.call("Target.attachToTarget", &attach);
        page.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        page.call("Page.enable", &json!({}));
        Some(page)
    }

    /// Sends a command and waits for its result.
    pub fn call(&mut self, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.from.recv_timeout(PATIENCE).expect("the browser answers");
            if answer["id"] == self.calls {
                assert_eq!(answer["error"], Value::Null, "{method}");
                return answer["result"].clone();
            }
        }
    }

    /// How large the page is, and which colours and motion its user prefers.
    pub fn look(&mut self, width: u32, height: u32, scheme: &str, motion: &str) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        let media = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": motion },
        ] });
        self.call("Emulation.setEmulatedMedia", &media);
    }

    /// Goes to an address.
    pub fn visit(&mut self, url: &str) {
        let gone = self.call("Page.navigate", &json!({ "url": url }));
        assert_eq!(gone["errorText"], Value::Null, "{url}");
        let is_there = format!("location.href === '{url}' && document.readyState === 'complete'");
        self.until("the page is loaded", &is_there);
    }

    /// The value of an expression, which may be a promise.
    pub fn value(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", &params);
        assert_eq!(result["exceptionDetails"], Value::Null, "{expression}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true, null and false being neither.
    pub fn until(&mut self, what: &str, expression: &str) -> Value {
        eventually(what, || {
            let value = self.value(expression);
            if value.is_null() || value == false { Err(value.to_string()) } else { Ok(value) }
        })
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", &json!({ "type": kind, "key": key, "code": key }));
        }
    }

    /// What axe finds wrong with the accessibility of the page: each rule, and the elements.
    pub fn axe(&mut self) -> Vec<String> {
        let axe = std::fs::read_to_string(self.folder.join("axe.min.js")).unwrap();
        self.value(&format!("{axe}; true"));
        let found = self.value(
            "axe.run().then(({ violations, passes }) => ({ passes: passes.length, violations: \
             violations.map(({ id, nodes }) => `${id}: ${nodes.map((it) => it.html).join(' ')}`) }))",
        );
        assert!(found["passes"].as_u64().is_some_and(|passes| passes > 20), "axe ran: {found}");
        let found = found["violations"].as_array().unwrap().iter();
        found.map(|it| it.as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
