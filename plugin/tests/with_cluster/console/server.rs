//! A console that is served, and requests to it.

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
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

    /// Starts a console in a cluster, which has no secret.
    pub fn listening(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn(command);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let host = line.trim().strip_prefix("listening on ").expect("it says where it listens");
        Self { child, _out: out, host: host.to_owned(), secret: String::new() }
    }

    /// The address of the page.
    pub fn url(&self) -> String {
        format!("http://{}/{}/", self.host, self.secret)
    }

    /// Sends a request with a method, a whole path and a Host, and reads the whole answer.
    pub fn ask(&self, method: &str, path: &str, host: &str) -> Answer {
        self.ask_with(method, path, host, &[])
    }

    /// The same, with further headers.
    pub fn ask_with(
        &self,
        method: &str,
        path: &str,
        host: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut stream = self.send(method, path, host, headers);
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

    fn send(&self, method: &str, path: &str, host: &str, headers: &[(&str, &str)]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes()).unwrap();
        stream
    }

    /// Opens the stream of a path with a token. Its first message is there.
    pub fn open(&self, path: &str, host: &str, token: &str) -> Messages {
        self.first(path, host, token).unwrap_or_else(|refused| panic!("{path}: {refused}"))
    }

    /// The same, or what is answered instead.
    pub fn first(&self, path: &str, host: &str, token: &str) -> Result<Messages, String> {
        let bearer = format!("Bearer {token}");
        let stream = self.send("GET", path, host, &[("Authorization", &bearer)]);
        let mut messages = Messages::of(stream);
        match messages.next() {
            Some(first) => {
                messages.first = Some(first);
                Ok(messages)
            }
            None => Err(messages.other),
        }
    }

    /// Reads the messages of a path with a token until one is as wanted, and returns it and those before it.
    pub fn told(
        &self,
        path: &str,
        host: &str,
        token: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Vec<Value> {
        self.open(path, host, token).until(what, wanted)
    }

    /// The same for a console that has a secret.
    pub fn messages_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let path = format!("/{}/events", self.secret);
        Messages::of(self.send("GET", &path, &self.host, &[])).until(what, wanted)
    }
}

/// The messages of a stream.
pub struct Messages {
    lines: Lines<BufReader<TcpStream>>,
    first: Option<Value>,
    begun: Instant,
    /// What was read besides messages.
    other: String,
}

impl Messages {
    fn of(stream: TcpStream) -> Self {
        let lines = BufReader::new(stream).lines();
        Self { lines, first: None, begun: Instant::now(), other: String::new() }
    }

    fn next(&mut self) -> Option<Value> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let line = self.lines.next()?.unwrap();
            match line.strip_prefix("data: ") {
                Some(text) => return Some(serde_json::from_str(text).unwrap()),
                None => self.other += &line,
            }
        }
    }

    /// Reads until a message is as wanted, and returns it and those before it.
    pub fn until(mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut messages = Vec::new();
        while let Some(message) = self.next() {
            let found = wanted(&message);
            messages.push(message);
            if found {
                return messages;
            }
            assert!(self.begun.elapsed() < PATIENCE, "waited in vain until {what}: {messages:?}");
        }
        panic!("the stream ended before {what}: {messages:?}");
    }

    /// Reads until the console ends the stream, and returns all messages.
    pub fn until_its_end(mut self) -> Vec<Value> {
        let mut messages = Vec::new();
        while let Some(message) = self.next() {
            messages.push(message);
            assert!(self.begun.elapsed() < PATIENCE, "the stream does not end: {messages:?}");
        }
        messages
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
