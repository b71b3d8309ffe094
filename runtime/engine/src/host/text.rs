//! Small files of /proc, /sys and /etc on the hot path.

use rustix::fs::{Mode, OFlags};
use std::path::Path;

/// The text of a file of less than 16 KiB: open, read, read to its end, close. `std::fs` asks for the size first, which
/// /proc does not tell.
pub(super) fn small(path: impl AsRef<Path>) -> Option<String> {
    let file = rustix::fs::open(path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = [0; 16 << 10];
    let mut length = 0;
    while length < buffer.len() {
        match rustix::io::read(&file, &mut buffer[length..]) {
            Ok(0) => return std::str::from_utf8(buffer.get(..length)?).ok().map(str::to_owned),
            Ok(n) => length += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::small;

    #[test]
    fn whole_text_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), bytes).unwrap();
            path
        };
        assert_eq!(small(file("a", b"1024\n")).as_deref(), Some("1024\n"));
        assert_eq!(small(file("empty", b"")).as_deref(), Some(""));
        assert_eq!(small(file("binary", b"\xff")), None);
        assert_eq!(small(file("large", &[b'x'; 16 << 10])), None);
        assert_eq!(small(dir.path()), None);
        assert_eq!(small("/no/such/file"), None);
    }
}
