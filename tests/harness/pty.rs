//! A terminal for `-t`: the test holds the master, rlrun gets the slave as its controlling terminal.

use crate::process::{Invocation, Running, Streams};
use crate::wait::until;
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// A terminal with an rlrun on it.
pub struct Terminal {
    /// The process; its session owns the terminal.
    pub running: Running,
    master: File,
    slave: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
    /// The state of the terminal before rlrun touched it.
    pub before: Termios,
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    /// Starts an invocation on a new terminal of this size.
    pub fn start(invocation: Invocation, rows: u16, columns: u16) -> Terminal {
        let pty = openpty(&size(rows, columns), None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let stream = || pty.slave.try_clone().unwrap().into();
        let running = invocation.start(Streams::Given(stream(), stream(), stream()), true);
        let master = File::from(pty.master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (master.try_clone().unwrap(), seen.clone());
        // Ends with EIO when the last slave is closed, which is when the Terminal is dropped.
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut chunk) {
                sink.lock().unwrap().extend_from_slice(&chunk[..n]);
            }
        });
        Terminal { running, master, slave: pty.slave, seen, before }
    }

    /// What has appeared on the terminal.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// Waits until a text has appeared.
    pub fn wait_for(&self, text: &str) {
        let seen = until(30, || self.screen().contains(text).then_some(()));
        assert!(seen.is_some(), "never on the terminal: {text:?}\nscreen: {}", self.screen());
    }

    /// Types.
    pub fn type_text(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Changes the size, as a window manager does.
    pub fn resize(&self, rows: u16, columns: u16) {
        rustix::termios::tcsetwinsize(self.master.as_fd(), size_of_window(rows, columns)).unwrap();
    }

    /// The state of the terminal now.
    pub fn state(&self) -> Termios {
        tcgetattr(&self.slave).unwrap()
    }
}

fn size_of_window(rows: u16, columns: u16) -> rustix::termios::Winsize {
    rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
