//! `--trace`: every stage appends its times to one shared memory file; the supervisor prints them together.

use crate::at::At;
use rlrun_spec::Failure;
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write;
use std::os::fd::OwnedFd;

/// CLOCK_MONOTONIC in nanoseconds.
#[must_use]
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// The shared record, or nothing when no trace was asked for.
pub struct Trace(Option<OwnedFd>);

impl Trace {
    /// A record that forked stages inherit.
    ///
    /// # Errors
    /// When there is no memory file to be had.
    pub fn new(wanted: bool) -> Result<Self, Failure> {
        if !wanted {
            return Ok(Trace(None));
        }
        let fd = memfd_create("rlrun-trace", MemfdFlags::CLOEXEC).at("trace", "create", "trace")?;
        fcntl_setfl(&fd, OFlags::APPEND).at("trace", "set up", "trace")?;
        Ok(Trace(Some(fd)))
    }

    /// The record of another stage, inherited over an exec.
    pub(crate) fn inherited(record: Option<OwnedFd>) -> Self {
        Trace(record)
    }

    /// A descriptor of the record, to hand it on over an exec.
    pub(crate) fn share(&self) -> Option<OwnedFd> {
        self.0.as_ref().and_then(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3).ok())
    }

    /// Notes that `step` is complete. A trace that cannot be written is no reason to stop.
    pub fn mark(&self, step: &str) {
        if let Some(fd) = &self.0 {
            let line = format!("{} {step}\n", now());
            if rustix::io::write(fd, line.as_bytes()).is_err() {
                // Out of memory for one line of a trace: the line is missing from the print.
            }
        }
    }

    /// The record beside the marks of the command line, as a table: milliseconds since the first, since the previous.
    #[must_use]
    pub fn render(&self, before: &[(String, u64)]) -> String {
        let Some(fd) = &self.0 else { return String::new() };
        let mut bytes = vec![0; 16384];
        let len = rustix::io::pread(fd, &mut bytes, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..len]);
        let mut marks: Vec<(u64, &str)> = before.iter().map(|(step, ns)| (*ns, step.as_str())).collect();
        marks.extend(text.lines().filter_map(|l| l.split_once(' ')).filter_map(|(ns, s)| Some((ns.parse().ok()?, s))));
        marks.sort_by_key(|m| m.0);
        let Some(&(first, _)) = marks.first() else { return String::new() };
        let mut table = String::from("   total      step\n");
        let mut previous = first;
        for (ns, step) in marks {
            let ms = |ns: u64| ns / 1_000_000;
            let us = |ns: u64| ns / 1_000 % 1_000;
            let (total, delta) = (ns - first, ns - previous);
            // Writing to a String cannot fail.
            if writeln!(table, "{:4}.{:03} {:4}.{:03} ms  {step}", ms(total), us(total), ms(delta), us(delta)).is_err()
            {
                break;
            }
            previous = ns;
        }
        table
    }
}
