//! The API server behind a relay that can make its answers late.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A relay to one address.
pub struct Relay {
    /// Where it listens.
    pub host: String,
    delay: Arc<Mutex<Duration>>,
}

impl Relay {
    /// A relay that makes nothing late.
    pub fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let delay = Arc::new(Mutex::new(Duration::ZERO));
        let (to, of_thread) = (address.to_owned(), Arc::clone(&delay));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&to) else { continue };
                let (from, back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let delay = Arc::clone(&of_thread);
                thread::spawn(move || copy(from, back, || Duration::ZERO));
                thread::spawn(move || copy(server, client, || *delay.lock().unwrap()));
            }
        });
        Self { host, delay }
    }

    /// From now on, each piece of an answer is this late.
    pub fn delay(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
    }
}

/// Passes on what one side says until it ends.
fn copy(mut from: TcpStream, mut to: TcpStream, delay: impl Fn() -> Duration) {
    let mut piece = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        thread::sleep(delay());
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
