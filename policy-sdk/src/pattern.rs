//! Patterns in settings: `*` in names, whole segments in paths.

/// Whether a text matches a pattern in which `*` stands for any number of characters.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    // The earliest place for each part leaves the most for those after it.
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

/// Where a path lies, seen from the place that a pattern names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Elsewhere.
    Apart,
    /// Above it: mounting the path shows the place.
    Above,
    /// There.
    Same,
    /// Below it.
    Below,
}

/// Where an absolute path lies, seen from an absolute pattern whose segments may hold `*`.
#[must_use]
pub fn relation(path: &str, pattern: &str) -> Relation {
    if begin_differently(path, pattern) {
        return Relation::Apart;
    }
    let (mut have, mut wanted) = (segments(path), segments(pattern));
    loop {
        match (have.next(), wanted.next()) {
            (None, None) => return Relation::Same,
            (None, Some(_)) => return Relation::Above,
            (Some(_), None) => return Relation::Below,
            (Some(a), Some(b)) if a == b || glob(b, a) => {}
            (Some(_), Some(_)) => return Relation::Apart,
        }
    }
}

/// Most paths differ from most patterns in the first letter, and a policy compares many with many.
fn begin_differently(path: &str, pattern: &str) -> bool {
    let plain = |text: &str| text.as_bytes().get(1).copied().filter(u8::is_ascii_alphanumeric);
    match (plain(path), plain(pattern)) {
        (Some(a), Some(b)) => a != b,
        _ => false,
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|s| !s.is_empty() && *s != ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_anything() {
        assert!(glob("docker.io/*", "docker.io/library/busybox:1"));
        assert!(glob("*/busybox:*", "docker.io/library/busybox:1"));
        assert!(glob("a*b*c", "a-b-b-c") && glob("*", "") && glob("abc", "abc"));
        assert!(!glob("docker.io/*", "docker.io.evil.example/x") && !glob("a*a", "a") && !glob("a*b", "abc"));
    }

    #[test]
    fn paths_compare_by_segment() {
        use Relation::{Above, Apart, Below, Same};
        for (path, pattern, expected) in [
            ("/", "/etc", Above),
            ("/etc/", "/etc", Same),
            ("//etc/./ssl", "/etc", Below),
            ("/etcetera", "/etc", Apart),
            ("/srv", "/etc", Apart),
            ("/run/user", "/run/user/*/docker.sock", Above),
            ("/run/user/1000", "/run/user/*/docker.sock", Above),
            ("/run/user/1000/docker.sock", "/run/user/*/docker.sock", Same),
            ("/dev/sda1", "/dev/sd*", Same),
            ("/anything", "/*", Same),
        ] {
            assert_eq!(relation(path, pattern), expected, "{path} {pattern}");
        }
    }
}
