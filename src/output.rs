//! Writes lines to standard output and standard error without blocking the caller.
//!
//! A pipe that no process reads blocks its writer. So each of the two streams has a thread that writes to it from a
//! bounded queue. What does not fit into the queue is dropped and counted. Beats and prunes never wait for output.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use beatkeeper_api::text::plain;

/// Maximum number of waiting pieces, and the maximum size of each in bytes: 16 MiB in total.
const QUEUE: usize = 1024;
const PIECE_MAX: usize = 16 * 1024;
/// The pause before the next try, on a pipe that another process has made non-blocking or on a full queue.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// One of the two streams.
pub struct Output {
    queue: SyncSender<Piece>,
    dropped: Arc<AtomicU64>,
}

enum Piece {
    Text(Vec<u8>),
    /// A request to report that all earlier pieces were written.
    Written(SyncSender<()>),
}

/// Standard output.
pub fn stdout() -> &'static Output {
    static STDOUT: OnceLock<Output> = OnceLock::new();
    STDOUT.get_or_init(|| Output::to(io::stdout().as_fd().try_clone_to_owned().map(File::from)))
}

/// Standard error.
pub fn stderr() -> &'static Output {
    static STDERR: OnceLock<Output> = OnceLock::new();
    STDERR.get_or_init(|| Output::to(io::stderr().as_fd().try_clone_to_owned().map(File::from)))
}

/// Writes the waiting pieces of both streams, for at most the given time.
pub fn flush(within: Duration) {
    let end = Instant::now() + within;
    for output in [stdout(), stderr()] {
        output.flush(end.saturating_duration_since(Instant::now()));
    }
}

/// Reports panics through the same output, because a thread that panics must not wait for a reader either.
pub fn tell_panics() {
    std::panic::set_hook(Box::new(|info| stderr().say(&info.to_string())));
}

impl Output {
    fn to(stream: io::Result<impl Write + Send + 'static>) -> Self {
        let (queue, pieces) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        if let Ok(stream) = stream {
            // Without the thread, every line is dropped, and there is no place to report that.
            let _ = thread::Builder::new()
                .name("output".to_owned())
                .spawn(move || write_all(stream, &pieces, &lost));
        }
        Self { queue, dropped }
    }

    /// Prints a line, without characters that would fake another line or hide text.
    pub fn say(&self, line: &str) {
        self.write(format!("{}\n", plain(line)).into_bytes());
    }

    /// Prints an error, which may quote a part of a file. The lines after the first one are indented, so that none of
    /// them looks like a separate message.
    pub fn say_error(&self, lead: &str, error: &str) {
        for (n, line) in error.lines().enumerate() {
            self.say(&if n == 0 { format!("{lead}{line}") } else { format!("    {line}") });
        }
    }

    /// Prints bytes as they are. Text longer than 16 KiB is cut off.
    pub fn write(&self, mut text: Vec<u8>) {
        if text.len() > PIECE_MAX {
            text.truncate(PIECE_MAX);
            text.push(b'\n');
        }
        if self.queue.try_send(Piece::Text(text)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// A writer for code that writes one line at a time, such as a logger.
    pub fn writer(&'static self) -> impl Write {
        Lines(self)
    }

    /// Waits until everything so far is written, but at most for the given time.
    fn flush(&self, within: Duration) {
        let (written, done) = sync_channel(1);
        let end = Instant::now() + within;
        let mut piece = Piece::Written(written);
        // The queue may have no room even for this request.
        while let Err(std::sync::mpsc::TrySendError::Full(back)) = self.queue.try_send(piece) {
            if Instant::now() >= end {
                return;
            }
            piece = back;
            thread::sleep(TRY_AGAIN);
        }
        let _ = done.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

struct Lines(&'static Output);

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.write(text.to_vec());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(mut stream: impl Write, pieces: &Receiver<Piece>, dropped: &AtomicU64) {
    while let Ok(piece) = pieces.recv() {
        match piece {
            Piece::Text(text) => write(&mut stream, &text),
            Piece::Written(done) => drop(done.send(())),
        }
        // The lines that were dropped came after the piece that was just written.
        match dropped.swap(0, Relaxed) {
            0 => {}
            lost => write(
                &mut stream,
                format!("({lost} lines were dropped: no process read them)\n").as_bytes(),
            ),
        }
    }
}

/// Errors are ignored: the output has no reader any more, so there is no place to report them.
fn write(stream: &mut impl Write, mut text: &[u8]) {
    while !text.is_empty() {
        match stream.write(text) {
            Ok(0) => return,
            Ok(count) => text = &text[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(TRY_AGAIN),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn without_a_reader_lines_are_dropped_and_counted_and_no_writer_waits() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let output = Output::to(Ok(writer));
        // This is more than a pipe and the queue hold together.
        for n in 0..20_000 {
            output.say(&format!("{n:0100}"));
        }
        output.flush(Duration::from_millis(100));
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        output.flush(Duration::from_secs(30));
        output.say("again");
        output.flush(Duration::from_secs(30));
        drop(output);
        let text = reading.join().expect("it reads").expect("text");
        let lines: Vec<&str> = text.lines().collect();
        let lost: usize = lines
            .iter()
            .filter_map(|line| line.strip_prefix('(')?.split(' ').next()?.parse::<usize>().ok())
            .sum();
        let told = lines.iter().filter(|line| line.starts_with("00")).count();
        assert_eq!(told + lost, 20_000);
        assert!(lost > 0);
        assert_eq!(lines.last(), Some(&"again"));
    }

    #[test]
    fn a_line_stays_one_line() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let output = Output::to(Ok(writer));
        output.say("ok\n2026-01-01 ERROR\u{202e}");
        output.flush(Duration::from_secs(30));
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        assert_eq!(text, "ok\\n2026-01-01 ERROR\\u{202e}\n");
    }
}
