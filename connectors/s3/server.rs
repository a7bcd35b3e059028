//! moto's S3 server for tests, a process of its own. Standard library only: the tests of the fraud job share this file.
//!
//! Invariant: it ends with the test that started it, and whoever has no server says that tests are left out.
#![allow(clippy::disallowed_methods, reason = "tests wait for processes and look for programs")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What `script/bootstrap --tests` has installed.
fn program() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/waterwheel"));
    let cache = std::env::var_os("WATERWHEEL_CACHE").map(PathBuf::from).or_else(home)?;
    let moto = cache.join("moto-5.2.1");
    moto.join("complete").exists().then(|| moto.join("bin/moto_server"))
}

/// A running server with the bucket `bucket`.
pub(crate) struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// `None`, and a line that says so, where it is not installed.
    pub(crate) fn start() -> Option<Server> {
        let Some(program) = program() else {
            println!("LEFT OUT: moto's server is not in the cache; script/bootstrap --tests installs it, if there is Python");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server { child: command.spawn().unwrap(), port };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "moto's server does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        server.make_bucket();
        Some(server)
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn make_bucket(&self) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "PUT /bucket HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
