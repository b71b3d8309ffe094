//! A command line without its secrets: values of variables, passwords, credentials in addresses.

use std::ffi::OsString;

/// Options whose value is a variable: its name is kept.
const VARIABLES: [&str; 4] = ["-e", "--env", "--build-arg", "--health-cmd"];
/// Options whose value is a secret as a whole.
const SECRETS: [&str; 4] = ["--creds", "--password", "--decryption-key", "--passwd-entry"];
/// What names a secret, whoever reads it: options and variables of programs inside.
const TELLING: [&str; 6] = ["password", "passwd", "secret", "token", "apikey", "api_key"];
pub(super) const HIDDEN: &str = "***";

/// The words, secrets hidden, up to `max` bytes altogether.
pub(super) fn words(words: &[OsString], max: usize) -> Vec<String> {
    let mut all = Vec::with_capacity(words.len());
    let mut left = max;
    let mut before = String::new();
    for word in words {
        let word = word.to_string_lossy().into_owned();
        let shown = hide(&before, &word);
        before = word;
        if shown.len() > left {
            all.push("...".to_owned());
            break;
        }
        left -= shown.len();
        all.push(shown);
    }
    all
}

fn hide(before: &str, word: &str) -> String {
    if SECRETS.contains(&before) || (before.starts_with("--") && tells(before) && !before.contains('=')) {
        return HIDDEN.to_owned();
    }
    if VARIABLES.contains(&before) {
        return variable(word);
    }
    if let Some((option, value)) = word.split_once('=') {
        if VARIABLES.contains(&option) {
            return format!("{option}={}", variable(value));
        }
        if SECRETS.contains(&option) || tells(option) {
            // `--secret NAME,type=env` names a secret and holds none.
            return if option == "--secret" { word.to_owned() } else { format!("{option}={HIDDEN}") };
        }
    }
    match word.strip_prefix("-e").filter(|rest| rest.contains('=')) {
        Some(joined) => format!("-e{}", variable(joined)),
        None => address(word),
    }
}

/// A variable's name.
pub(super) fn variable(word: &str) -> String {
    word.split_once('=').map_or_else(|| word.to_owned(), |(name, _)| format!("{name}={HIDDEN}"))
}

/// A value whose name does not tell of a secret.
pub(super) fn named(name: &str, value: &str) -> String {
    if tells(name) { HIDDEN.to_owned() } else { value.to_owned() }
}

fn tells(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name != "--secret" && TELLING.iter().any(|word| name.contains(word))
}

/// `https://user:secret@host` without the secret.
fn address(word: &str) -> String {
    let hidden = word.find("://").and_then(|scheme| {
        let rest = &word[scheme + 3..];
        let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
        let (account, _) = authority.rsplit_once('@')?;
        let (user, _) = account.split_once(':')?;
        Some(format!("{}{user}:{HIDDEN}{}", &word[..scheme + 3], &rest[account.len()..]))
    });
    hidden.unwrap_or_else(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        words(&line.split(' ').map(OsString::from).collect::<Vec<_>>(), 4096).join(" ")
    }

    #[test]
    fn secrets_are_hidden_and_the_rest_is_told() {
        for (line, want) in [
            ("run -e A=hunter2 -e B x", "run -e A=*** -e B x"),
            ("run --env=A=hunter2 -eB=hunter2 x", "run --env=A=*** -eB=*** x"),
            ("pull --creds me:hunter2 x", "pull --creds *** x"),
            ("pull --creds=me:hunter2 x", "pull --creds=*** x"),
            ("run x app --db-password hunter2", "run x app --db-password ***"),
            ("run x app --token=hunter2 DB_PASSWORD=hunter2", "run x app --token=*** DB_PASSWORD=***"),
            ("run x git clone https://me:hunter2@host/r", "run x git clone https://me:***@host/r"),
            ("run --secret key,type=mount x", "run --secret key,type=mount x"),
            ("run -v /a:/b -p 80:80 x ls /", "run -v /a:/b -p 80:80 x ls /"),
        ] {
            assert_eq!(shown(line), want);
        }
        assert_eq!(words(&["a".repeat(9).into(), "b".into()], 9), ["a".repeat(9), "...".to_owned()]);
    }
}
