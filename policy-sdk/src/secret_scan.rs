//! What looks like a secret. A guess, by names that people give to secrets and by the shapes that issuers give to them;
//! it misses what is disguised, and a word that only looks like one has to be allowed by whoever knows.

/// Parts of names; `_` and `-` count alike.
const NAMES: [&str; 12] = [
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SECRET",
    "TOKEN",
    "API_KEY",
    "APIKEY",
    "PRIVATE_KEY",
    "ACCESS_KEY",
    "AUTH_KEY",
    "CREDENTIAL",
    "CLIENT_KEY",
];

/// Endings of names that say where a secret is, or something about it, and not what it is.
const HARMLESS: [&str; 9] = ["_FILE", "_PATH", "_DIR", "_URL", "_NAME", "_ID", "_LENGTH", "_TTL", "_TYPE"];

/// How issued secrets begin, and how long one is at least.
const SHAPES: [(&str, usize); 13] = [
    ("AKIA", 20),
    ("ASIA", 20),
    ("ghp_", 36),
    ("gho_", 36),
    ("ghs_", 36),
    ("github_pat_", 40),
    ("glpat-", 20),
    ("xoxb-", 24),
    ("xoxp-", 24),
    ("sk_live_", 24),
    ("npm_", 36),
    ("dckr_pat_", 24),
    ("AIza", 39),
];

/// Why a variable looks like a secret, if it does.
#[must_use]
pub fn variable(name: &str, value: &str) -> Option<&'static str> {
    if value.is_empty() || value.starts_with('$') {
        return None;
    }
    let upper = name.to_ascii_uppercase().replace('-', "_");
    // Alone `PWD` is where a shell is.
    let last = upper.rsplit_once('_').map(|(_, last)| last);
    let short = upper == "PASS" || matches!(last, Some("PASS" | "PAT" | "PWD"));
    let named =
        (short || NAMES.iter().any(|part| upper.contains(part))) && !HARMLESS.iter().any(|end| upper.ends_with(end));
    if named { Some("its name says so") } else { text(value) }
}

/// Why a text looks as if it held one.
#[must_use]
pub fn text(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN") && text.contains("PRIVATE KEY-----") {
        return Some("it holds a private key");
    }
    text.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '=' | ',' | ';')).find_map(word)
}

fn word(word: &str) -> Option<&'static str> {
    let plain = |w: &str| w.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if SHAPES.iter().any(|(start, length)| word.starts_with(start) && word.len() >= *length && plain(word)) {
        return Some("it has the shape of an issued key");
    }
    if word.starts_with("eyJ") && word.len() > 40 && word.split('.').count() == 3 {
        return Some("it has the shape of a signed token");
    }
    let password =
        word.split_once("://").and_then(|(_, rest)| rest.split_once('@')).and_then(|(who, _)| who.split_once(':'));
    password.filter(|(_, p)| !p.is_empty() && !p.starts_with('$')).map(|_| "it is an address with a password in it")
}

/// The variables of an instruction, `ENV A=b` and `A=b command`, and whatever in it has the shape of a secret.
#[must_use]
pub fn instruction(line: &str) -> Option<&'static str> {
    let assigned = line.split_whitespace().filter_map(|w| w.split_once('='));
    assigned.into_iter().find_map(|(name, value)| variable(name.trim_start_matches("--"), value)).or_else(|| text(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_shapes_are_seen() {
        for (name, value) in [
            ("DB_PASSWORD", "x"),
            ("api-key", "x"),
            ("DB_PASS", "abcdefgh"),
            ("GITHUB_PAT", "x"),
            ("X", "AKIAIOSFODNN7EXAMPLE"),
            ("DSN", "postgres://app:hunter2@db/x"),
            ("KEY", "-----BEGIN RSA PRIVATE KEY-----"),
        ] {
            assert!(variable(name, value).is_some(), "{name}");
        }
        for (name, value) in [
            ("PASSWORD", ""),
            ("DB_PASSWORD_FILE", "/run/secrets/db"),
            ("PASSWORD", "${PASSWORD}"),
            ("PATH", "/bin:/usr/bin"),
            ("DSN", "postgres://app@db/x"),
            ("MONKEY", "banana"),
            ("PWD", "/work"),
            ("COMPASS", "north"),
        ] {
            assert!(variable(name, value).is_none(), "{name}");
        }
    }

    #[test]
    fn instructions_are_read() {
        assert!(instruction("/bin/sh -c TOKEN=abc make").is_some() && instruction("ENV API_KEY=x").is_some());
        assert!(instruction("RUN curl https://u:p@host/x").is_some());
        assert!(instruction("ADD rootfs /").is_none() && instruction("RUN --mount=type=secret,id=x make").is_none());
    }
}
