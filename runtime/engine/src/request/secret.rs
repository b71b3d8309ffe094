//! `--secret`: which secret, and how the container gets it. The value is not here and in no record.

use super::Invalid;
use serde::{Deserialize, Serialize};

/// Where files of secrets are.
pub const DIRECTORY: &str = "/run/secrets";

/// One `--secret`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRequest {
    /// Name or id of the secret.
    pub name: String,
    /// How it is given.
    pub form: SecretForm,
}

/// How a container gets a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretForm {
    /// As a file in memory.
    File {
        /// Absolute path.
        target: String,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Mode.
        mode: u32,
    },
    /// As a variable of pid 1.
    Variable(String),
}

/// Reads `NAME[,type=mount|env][,target=...][,uid=...][,gid=...][,mode=...]`.
///
/// # Errors
/// When an option is unknown or does not go with the type.
pub fn secret(word: &str) -> Result<SecretRequest, Invalid> {
    let invalid = |why: String| Invalid::new("--secret", word, why);
    let (mut name, mut kind, mut target) = (None, "mount", None);
    let (mut uid, mut gid, mut mode) = (None, None, None);
    for (index, field) in word.split(',').enumerate() {
        let number = |value: &str, radix| {
            u32::from_str_radix(value, radix).map_err(|_| invalid(format!("{field}: is not a number")))
        };
        match field.split_once('=') {
            None if index == 0 => name = Some(field),
            Some(("source" | "id", value)) => name = Some(value),
            Some(("type", value @ ("mount" | "env"))) => kind = value,
            Some(("target", value)) if !value.is_empty() => target = Some(value),
            Some(("uid", value)) => uid = Some(number(value, 10)?),
            Some(("gid", value)) => gid = Some(number(value, 10)?),
            Some(("mode", value)) => {
                mode = Some(
                    number(value, 8)
                        .ok()
                        .filter(|m| *m <= 0o777)
                        .ok_or_else(|| invalid(format!("{field}: is no mode")))?,
                )
            }
            _ => {
                return Err(invalid(format!("{field}: is unknown"))
                    .hint("write NAME,type=mount|env,target=...,uid=...,gid=...,mode=..."));
            }
        }
    }
    let name = super::super::secrets::name("--secret", name.unwrap_or_default())?;
    if kind == "env" {
        if uid.or(gid).or(mode).is_some() {
            return Err(invalid("a variable has no owner and no mode".to_owned()));
        }
        let variable = target.unwrap_or(&name).to_owned();
        if variable.contains(['=', '\0']) {
            return Err(invalid("target is not the name of a variable".to_owned()));
        }
        return Ok(SecretRequest { name, form: SecretForm::Variable(variable) });
    }
    let target = target.unwrap_or(&name);
    let path = if target.starts_with('/') { target.to_owned() } else { format!("{DIRECTORY}/{target}") };
    let target = super::mount::destination("--secret", word, &path)?;
    let form = SecretForm::File { target, uid: uid.unwrap_or(0), gid: gid.unwrap_or(0), mode: mode.unwrap_or(0o444) };
    Ok(SecretRequest { name, form })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_file_or_a_variable() {
        let file = |target: &str, uid, gid, mode| SecretForm::File { target: target.to_owned(), uid, gid, mode };
        for (word, form) in [
            ("key", file("/run/secrets/key", 0, 0, 0o444)),
            ("key,target=other", file("/run/secrets/other", 0, 0, 0o444)),
            ("source=key,target=/etc/key,uid=5,gid=6,mode=0400", file("/etc/key", 5, 6, 0o400)),
            ("key,type=env", SecretForm::Variable("key".to_owned())),
            ("key,type=env,target=KEY", SecretForm::Variable("KEY".to_owned())),
        ] {
            assert_eq!(secret(word).unwrap(), SecretRequest { name: "key".to_owned(), form }, "{word}");
        }
        for bad in [
            "",
            "a/b",
            "key,mode=9",
            "key,type=x",
            "key,type=env,uid=1",
            "key,target=/proc/x",
            "key,bogus",
            "key,mode=4755",
        ] {
            assert!(secret(bad).is_err(), "{bad}");
        }
    }
}
