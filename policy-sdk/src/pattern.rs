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

fn segments(path: &str) -> impl Iterator<Item = &str> + Clone {
    path.split('/').filter(|s| !s.is_empty() && *s != ".")
}

/// Whether a path is the place that a pattern names, or above it: mounting it shows that place. A segment of the
/// pattern may be `*`.
#[must_use]
pub fn covers(path: &str, pattern: &str) -> bool {
    let mut wanted = segments(pattern);
    segments(path).all(|s| wanted.next().is_some_and(|p| glob(p, s)))
}

/// Whether a path is the place that a pattern names, or below it.
#[must_use]
pub fn within(path: &str, pattern: &str) -> bool {
    let mut have = segments(path);
    segments(pattern).all(|p| have.next().is_some_and(|s| glob(p, s)))
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
    fn paths_match_by_segment() {
        assert!(covers("/", "/etc") && covers("/etc/", "/etc") && covers("/run/user", "/run/user/*/docker.sock"));
        assert!(covers("/run/user/1000", "/run/user/*/docker.sock") && !covers("/etc2", "/etc"));
        assert!(!covers("/etc/ssl", "/etc"));
        assert!(within("/etc/shadow", "/etc") && within("/etc", "/etc") && !within("/etcetera", "/etc"));
        assert!(!within("/", "/etc"));
    }
}
