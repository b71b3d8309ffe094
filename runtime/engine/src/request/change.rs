//! `--change` of `commit`: one instruction of a Containerfile that changes an image's configuration.

use super::Invalid;
use serde_json::{Map, Value, json};

const OPTION: &str = "--change";

/// One instruction, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `Cmd` or `Entrypoint`, by that name.
    Words(&'static str, Vec<String>),
    /// One variable.
    Env(String, String),
    /// One label.
    Label(String, String),
    /// Members of `ExposedPorts` or `Volumes`, by that name.
    Members(&'static str, Vec<String>),
    /// `User`, `WorkingDir` or `StopSignal`, by that name.
    Text(&'static str, String),
    /// `OnBuild`, which only docker's format has.
    OnBuild(String),
}

/// Reads `CMD ["a"]`, `CMD=a`, `ENV A=b` and the like.
///
/// # Errors
/// When it is no such instruction.
pub fn change(word: &str) -> Result<Vec<Change>, Invalid> {
    let invalid = |why: &str| Invalid::new(OPTION, word, why);
    let (name, rest) = word.trim().split_once([' ', '=']).ok_or_else(|| {
        invalid("is no instruction").hint("write for example --change 'CMD [\"sh\"]' or --change ENV=NAME=value")
    })?;
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(invalid("has no value"));
    }
    let pairs = |make: fn(String, String) -> Change| {
        let all: Option<Vec<Change>> = pairs(rest).map(|all| all.into_iter().map(|(k, v)| make(k, v)).collect());
        all.ok_or_else(|| invalid("is not NAME=VALUE"))
    };
    let text = |name| Ok(vec![Change::Text(name, rest.to_owned())]);
    match name.to_ascii_uppercase().as_str() {
        "CMD" => Ok(vec![Change::Words("Cmd", program(rest))]),
        "ENTRYPOINT" => Ok(vec![Change::Words("Entrypoint", program(rest))]),
        "ENV" => pairs(Change::Env),
        "LABEL" => pairs(Change::Label),
        "EXPOSE" => ports(rest)
            .map(|all| vec![Change::Members("ExposedPorts", all)])
            .ok_or_else(|| invalid("is not a port").hint("write EXPOSE 80, 80/udp or several")),
        "VOLUME" => {
            let all = list(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            match all.iter().all(|path| path.starts_with('/')) {
                true => Ok(vec![Change::Members("Volumes", all)]),
                false => Err(invalid("is not an absolute path")),
            }
        }
        "USER" => text("User"),
        "WORKDIR" if !rest.starts_with('/') => Err(invalid("is not an absolute path")),
        "WORKDIR" => text("WorkingDir"),
        "STOPSIGNAL" => match super::limits::signal(rest) {
            Ok(_) => text("StopSignal"),
            Err(error) => Err(invalid(&error.why)),
        },
        "ONBUILD" => Ok(vec![Change::OnBuild(rest.to_owned())]),
        _ => Err(invalid("no such instruction")
            .hint("CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR can be changed")),
    }
}

/// A JSON array of strings.
fn list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// A JSON array, or a line for the shell.
fn program(text: &str) -> Vec<String> {
    list(text).unwrap_or_else(|| ["/bin/sh", "-c", text].map(str::to_owned).to_vec())
}

/// `A=b C="d e"`, or the old `A all the rest`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let first = text.split_whitespace().next()?;
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', Some('"') | None) => word.extend(letters.next()),
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => quote = Some(letter),
            (letter, None) if letter.is_whitespace() => words.push(std::mem::take(&mut word)),
            (letter, _) => word.push(letter),
        }
    }
    words.push(word);
    let split = |word: String| {
        let (name, value) = word.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    words.into_iter().filter(|w| !w.is_empty()).map(split).collect()
}

fn ports(text: &str) -> Option<Vec<String>> {
    let port = |word: &str| {
        let (number, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
        let ok = number.parse::<u16>().is_ok_and(|n| n > 0) && matches!(protocol, "tcp" | "udp" | "sctp");
        ok.then(|| format!("{number}/{protocol}"))
    };
    text.split_whitespace().map(port).collect()
}

/// `NAME=value`, in the place of a variable of that name.
pub(crate) fn set_env(config: &mut Map<String, Value>, name: &str, value: &str) {
    let mut all = config.get("Env").and_then(Value::as_array).cloned().unwrap_or_default();
    let entry = json!(format!("{name}={value}"));
    let is_same = |v: &Value| v.as_str().and_then(|v| v.split_once('=')).is_some_and(|(n, _)| n == name);
    match all.iter_mut().find(|v| is_same(v)) {
        Some(old) => *old = entry,
        None => all.push(entry),
    }
    config.insert("Env".to_owned(), Value::Array(all));
}

/// A member of an object that may be missing.
pub(crate) fn set_member(config: &mut Map<String, Value>, key: &str, name: &str, value: Value) {
    let mut members = config.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    members.insert(name.to_owned(), value);
    config.insert(key.to_owned(), Value::Object(members));
}

impl Change {
    /// Changes the `config` of an image configuration.
    pub fn apply(&self, config: &mut Map<String, Value>) {
        match self {
            Change::Words(key, words) => {
                // A new entrypoint makes the command of the old one meaningless.
                if *key == "Entrypoint" {
                    config.remove("Cmd");
                }
                config.insert((*key).to_owned(), json!(words));
            }
            Change::Env(name, value) => set_env(config, name, value),
            Change::Label(name, value) => set_member(config, "Labels", name, json!(value)),
            Change::Members(key, names) => names.iter().for_each(|name| set_member(config, key, name, json!({}))),
            Change::Text(key, value) => {
                config.insert((*key).to_owned(), json!(value));
            }
            Change::OnBuild(line) => {
                let mut all = config.get("OnBuild").and_then(Value::as_array).cloned().unwrap_or_default();
                all.push(json!(line));
                config.insert("OnBuild".to_owned(), Value::Array(all));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(words: &[&str]) -> Value {
        let mut config = json!({"Env": ["A=old", "B=2"], "Cmd": ["x"], "Labels": null}).as_object().cloned().unwrap();
        words.iter().flat_map(|w| change(w).unwrap()).for_each(|change| change.apply(&mut config));
        Value::Object(config)
    }

    #[test]
    fn both_spellings_are_read() {
        assert_eq!(applied(&["CMD [\"a\", \"b c\"]"])["Cmd"], json!(["a", "b c"]));
        assert_eq!(applied(&["cmd=echo hi"])["Cmd"], json!(["/bin/sh", "-c", "echo hi"]));
        assert_eq!(applied(&["ENV A=new C=\"d e\""])["Env"], json!(["A=new", "B=2", "C=d e"]));
        assert_eq!(applied(&["ENV=A=new", "ENV D e f"])["Env"], json!(["A=new", "B=2", "D=e f"]));
        assert_eq!(applied(&["LABEL k=v"])["Labels"], json!({"k": "v"}));
        assert_eq!(applied(&["EXPOSE 80 53/udp"])["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
        assert_eq!(applied(&["VOLUME [\"/a\"]", "VOLUME /b /c"])["Volumes"], json!({"/a": {}, "/b": {}, "/c": {}}));
        let all = applied(&["ENTRYPOINT [\"/e\"]", "USER 5", "WORKDIR /w", "STOPSIGNAL SIGINT", "ONBUILD RUN x"]);
        assert_eq!((&all["Entrypoint"], &all["Cmd"]), (&json!(["/e"]), &Value::Null));
        assert_eq!(
            (&all["User"], &all["WorkingDir"], &all["StopSignal"]),
            (&json!("5"), &json!("/w"), &json!("SIGINT"))
        );
        assert_eq!(all["OnBuild"], json!(["RUN x"]));
    }

    #[test]
    fn what_is_no_instruction_is_refused() {
        for bad in
            ["", "CMD", "RUN x", "ENV A", "EXPOSE x", "EXPOSE 0", "VOLUME a", "WORKDIR w", "STOPSIGNAL x", "CMD="]
        {
            assert!(change(bad).is_err(), "{bad}");
        }
    }
}
