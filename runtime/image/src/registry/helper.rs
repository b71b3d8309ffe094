//! Credential helpers: programs `docker-credential-NAME` that keep passwords elsewhere (docker-credential-helpers protocol).

use super::credentials::Credentials;
use crate::error::ImageError;
use serde::Deserialize;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// An answer is a name and a password, or a sentence.
const MAX_ANSWER: u64 = 64 << 10;
/// What a helper says when it has nothing; there is no code for it.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// The credentials that a helper has for a registry.
pub(super) fn get(name: &str, registry: &str) -> Result<Option<Credentials>, ImageError> {
    let answer = match run(name, "get", registry.as_bytes())? {
        Ok(answer) => answer,
        Err(said) if said.contains(NOT_FOUND) => return Ok(None),
        Err(said) => return Err(failed(name, said)),
    };
    // The answer holds a secret, and stays out of the message.
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|_| failed(name, "its answer is no JSON of Username and Secret"))?;
    Ok(match answer.username.as_str() {
        _ if answer.secret.is_empty() => None,
        "<token>" => Some(Credentials::Identity(answer.secret)),
        _ => Some(Credentials::Basic(answer.username, answer.secret)),
    })
}

/// Gives a helper credentials to keep.
pub(super) fn store(name: &str, registry: &str, user: &str, password: &str) -> Result<(), ImageError> {
    let document = serde_json::json!({"ServerURL": registry, "Username": user, "Secret": password});
    run(name, "store", document.to_string().as_bytes())?.map(drop).map_err(|said| failed(name, said))
}

/// Has a helper forget; false when it had nothing.
pub(super) fn erase(name: &str, registry: &str) -> Result<bool, ImageError> {
    match run(name, "erase", registry.as_bytes())? {
        Ok(_) => Ok(true),
        Err(said) if said.contains(NOT_FOUND) => Ok(false),
        Err(said) => Err(failed(name, said)),
    }
}

/// What it wrote, or what it complained about.
fn run(name: &str, verb: &str, input: &[u8]) -> Result<Result<Vec<u8>, String>, ImageError> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(word) {
        return Err(failed(name, "this is no name of a credential helper"));
    }
    let io = |e: std::io::Error| failed(name, e.to_string());
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(io)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper may end without having read.
        drop(stdin.write_all(input));
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_ANSWER).read_to_end(&mut answer).map_err(io)?;
    }
    let status = child.wait().map_err(io)?;
    if status.success() {
        return Ok(Ok(answer));
    }
    let said: String = String::from_utf8_lossy(&answer).chars().filter(|c| !c.is_control()).take(200).collect();
    Ok(Err(if said.is_empty() { status.to_string() } else { said }))
}

fn failed(name: &str, why: impl Into<String>) -> ImageError {
    ImageError::Configuration { path: format!("docker-credential-{name}"), why: why.into() }
}
