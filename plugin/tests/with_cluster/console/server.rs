//! A console that is served, and requests to it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdout, Command, Stdio},
    time::Instant,
};

use serde_json::Value;

use crate::stage::{PATIENCE, Stage, spawn};

/// A console. It ends when this is dropped.
pub struct Console {
    child: Child,
    _out: BufReader<ChildStdout>,
    /// Address and port.
    pub host: String,
    /// The secret of its path.
    pub secret: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Whether a line of the head is this header.
    pub fn has(&self, name: &str, value: &str) -> bool {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.any(|(its, has)| its.eq_ignore_ascii_case(name) && has == value)
    }
}

impl Console {
    /// Starts a console for the namespace of the stage, with further flags.
    pub fn start(stage: &Stage, flags: &[&str]) -> Self {
        let election = format!("--election={}/beatkeeper", stage.namespace);
        Self::of(stage.command(&[&["console", &election], flags].concat()))
    }

    /// Starts a console with a command of its own.
    pub fn of(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn(command);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut url = String::new();
        out.read_line(&mut url).unwrap();
        let rest = url.trim().strip_prefix("http://").expect("the console prints its address");
        let (host, secret) = rest.split_once('/').unwrap();
        let secret = secret.strip_suffix('/').unwrap();
        Self { child, _out: out, host: host.to_owned(), secret: secret.to_owned() }
    }

    /// The address of the page.
    pub fn url(&self) -> String {
        format!("http://{}/{}/", self.host, self.secret)
    }

    /// Sends a request with a method, a whole path and a Host, and reads the whole answer.
    pub fn ask(&self, method: &str, path: &str, host: &str) -> Answer {
        let mut stream = self.send(method, path, host);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Gets a file or an argument below the secret.
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", &format!("/{}{path}", self.secret), &self.host)
    }

    fn send(&self, method: &str, path: &str, host: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        stream.write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes()).unwrap();
        stream
    }

    /// Reads the messages until one is as wanted, and returns it and those before it.
    pub fn messages_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let stream = self.send("GET", &format!("/{}/events", self.secret), &self.host);
        let begun = Instant::now();
        let mut messages = Vec::new();
        for line in BufReader::new(stream).lines() {
            let line = line.unwrap();
            let Some(text) = line.strip_prefix("data: ") else { continue };
            let message: Value = serde_json::from_str(text).unwrap();
            let found = wanted(&message);
            messages.push(message);
            if found {
                return messages;
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}: {messages:?}");
        }
        panic!("the stream ended before {what}: {messages:?}");
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
