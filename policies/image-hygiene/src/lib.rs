//! `image-hygiene`: what is wrong with an image, told before it comes in: before a layer is unpacked or a name points
//! to it. What an image says of itself is its maker's word; this finds carelessness, not malice.
//!
//! | code | what |
//! |---|---|
//! | HYG001 | it runs as root |
//! | HYG002 | its tag is `latest`, or it has neither tag nor digest |
//! | HYG003 | a secret in its environment |
//! | HYG004 | a secret in its history |
//! | HYG005 | `ADD` of a URL |
//! | HYG006 | an instruction that sets a set-user-ID or set-group-ID bit |
//! | HYG007 | no signature was verified |
//! | HYG008 | signed by none of the accepted keys |
//! | HYG009 | no statement of where it comes from |
//! | HYG010 | larger, or of more layers, than wanted |
//! | HYG011 | it exposes port 22 |
//! | HYG012 | a package manager is run without a version, or its index is left behind |
//! | HYG013 | a file in a layer has a set-user-ID or set-group-ID bit or capabilities, or that is not known |
//!
//! HYG013 is found when a container starts, because layers are extracted after the image was asked about. Where programs cannot
//! raise privileges, as is usual, such files do nothing: then it refuses where `deny` names it, and does not warn.
//!
//! ```toml
//! deny = ["HYG003", "HYG004"]      # these refuse; by default HYG003, HYG004, and what the settings below ask for
//! skip = ["HYG012"]                # these are not looked at; all others warn
//! require-signature = true
//! signers = ["sha256:..."]         # digests of public keys
//! require-provenance = true
//! max-bytes = 1000000000
//! max-layers = 40
//! allow-secrets = ["EXAMPLE_TOKEN"]
//! allow-privileged-files = ["/usr/bin/su"]
//! ```

use rlrun_policy::contents::{PrivilegedFile, PrivilegedFiles};
use rlrun_policy::{
    Caller, Container, Create, Diagnostic, Image, ImageInfo, Policy, Severity, Verdict, contents, finding, glue,
    policy, secret_scan,
};
use serde::Deserialize;

/// The policy.
pub struct ImageHygiene;

const CODES: [&str; 13] = [
    "HYG001", "HYG002", "HYG003", "HYG004", "HYG005", "HYG006", "HYG007", "HYG008", "HYG009", "HYG010", "HYG011",
    "HYG012", "HYG013",
];

/// Nobody means to hand out a secret. The others deny where the settings ask for what they are about.
const DENY: [&str; 6] = ["HYG003", "HYG004", "HYG007", "HYG008", "HYG009", "HYG010"];

/// `image-hygiene.toml`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Codes that refuse the image.
    pub deny: Option<Vec<String>>,
    /// Codes that are left out.
    pub skip: Vec<String>,
    /// A signature has to have been verified.
    pub require_signature: bool,
    /// Digests of the keys that count; empty: any.
    pub signers: Vec<String>,
    /// A statement about where the image comes from has to be with it.
    pub require_provenance: bool,
    /// Compressed bytes of all layers.
    pub max_bytes: Option<u64>,
    /// Layers.
    pub max_layers: Option<u32>,
    /// Names of variables that only look like secrets.
    pub allow_secrets: Vec<String>,
    /// Paths that may have set-user-ID bits and the like.
    pub allow_privileged_files: Vec<String>,
}

impl rlrun_policy::Settings for Settings {
    fn read(json: &str) -> Result<Self, String> {
        let settings: Settings = glue::from_json(json)?;
        let mut named = settings.deny.iter().flatten().chain(&settings.skip);
        match named.find(|code| !CODES.contains(&code.as_str())) {
            Some(unknown) => Err(format!("`{unknown}` is no code: HYG001 to HYG013")),
            None => Ok(settings),
        }
    }
}

impl Settings {
    fn denies(&self, code: &str) -> bool {
        match &self.deny {
            Some(list) => list.iter().any(|c| c == code),
            None => DENY.contains(&code),
        }
    }
}

impl Policy for ImageHygiene {
    type Settings = Settings;
}

impl Image for ImageHygiene {
    fn image(settings: &Settings, info: &ImageInfo, _: &Caller) -> Verdict {
        let mut found = Vec::new();
        configuration(settings, info, &mut found);
        history(info, &mut found);
        origin(settings, info, &mut found);
        judged(settings, found)
    }
}

impl Create for ImageHygiene {
    fn create(settings: &Settings, container: &Container, _: &Caller) -> Verdict {
        let harmless = container.no_new_privileges && !settings.denies("HYG013");
        if harmless || settings.skip.iter().any(|code| code == "HYG013") {
            return Verdict::abstain();
        }
        let Some(files) = contents::privileged() else { return Verdict::abstain() };
        let mut found = Vec::new();
        privileged(settings, &files, &mut found);
        judged(settings, found)
    }
}

policy!(ImageHygiene: image, create);

fn judged(settings: &Settings, found: Vec<Diagnostic>) -> Verdict {
    let kept = found.into_iter().filter(|f| !settings.skip.contains(&f.code));
    let (denied, warned): (Vec<Diagnostic>, Vec<Diagnostic>) = kept.partition(|f| settings.denies(&f.code));
    if denied.is_empty() { warned.into_iter().fold(Verdict::allow(), Verdict::warn) } else { Verdict::judged(denied) }
}

fn say(found: &mut Vec<Diagnostic>, code: &str, path: String, message: String, help: &str) {
    let severity = if DENY.contains(&code) { Severity::High } else { Severity::Medium };
    found.push(finding(code, severity, message).at(path).help(help).into());
}

fn configuration(settings: &Settings, info: &ImageInfo, found: &mut Vec<Diagnostic>) {
    let user = info.user.split(':').next().unwrap_or_default();
    if matches!(user, "" | "0" | "root") {
        let message = "the image runs as root".to_owned();
        say(found, "HYG001", "/user".to_owned(), message, "USER in the Containerfile, or rlrun run --user");
    }
    let reference = &info.image.reference;
    if reference.ends_with(":latest") && !reference.contains('@') {
        let message = format!("{reference} will be another image");
        say(found, "HYG002", "/image/reference".to_owned(), message, "name a version or a digest");
    }
    for (index, pair) in info.env.iter().enumerate().filter(|(_, p)| !settings.allow_secrets.contains(&p.name)) {
        if let Some(why) = secret_scan::variable(&pair.name, &pair.value) {
            let message = format!("the variable {} is a secret: {why}", pair.name);
            say(found, "HYG003", format!("/env/{index}"), message, "give it when it is run: rlrun run --secret");
        }
    }
    if info.exposed_ports.iter().any(|p| p == "22/tcp" || p == "22") {
        let message = "the image is made for logins".to_owned();
        say(found, "HYG011", "/exposed-ports".to_owned(), message, "use `rlrun exec`");
    }
}

/// As 0.1 tells it where the image has no full history.
fn lines(info: &ImageInfo) -> Vec<&str> {
    if info.facts.history.is_empty() {
        return info.history.iter().map(String::as_str).collect();
    }
    info.facts.history.iter().map(|entry| entry.created_by.as_str()).collect()
}

fn history(info: &ImageInfo, found: &mut Vec<Diagnostic>) {
    for (index, line) in lines(info).into_iter().enumerate() {
        let at = || format!("/history/{index}");
        if let Some(why) = secret_scan::instruction(line) {
            let message = format!("instruction {index} of its history holds a secret: {why}");
            say(found, "HYG004", at(), message, "RUN --mount=type=secret leaves nothing behind");
        }
        if adds_url(line) {
            let message = format!("instruction {index} adds what a server said that day");
            say(found, "HYG005", at(), message, "COPY a file whose digest was checked, or ADD --checksum");
        }
        if sets_id_bit(line) {
            let message = format!("instruction {index} makes a program run as its owner");
            say(found, "HYG006", at(), message, "give a capability to the container instead");
        }
        if careless_install(line) {
            let message = format!("instruction {index} leaves the index of packages in the image");
            say(found, "HYG012", at(), message, "remove /var/lib/apt/lists in the same RUN");
        }
    }
}

/// `ADD https://...`, as builders write it: with and without `/bin/sh -c #(nop)`.
fn adds_url(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|w| *w != "ADD");
    let add = words.next().is_some();
    let rest: Vec<&str> = words.collect();
    let remote = rest.iter().any(|w| w.starts_with("http://") || w.starts_with("https://"));
    add && remote && !rest.iter().any(|w| w.starts_with("--checksum"))
}

/// `chmod u+s`, `chmod 4755`, `install -m 2755`, `COPY --chmod=6755`.
fn sets_id_bit(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |w: &str| {
        let digits = w.trim_start_matches("--chmod=").trim_start_matches("--mode=").trim_start_matches('0');
        digits.len() == 4 && digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) && !digits.starts_with('1')
    };
    let symbol = |w: &str| {
        w.split_once('+').is_some_and(|(who, what)| {
            who.bytes().all(|b| b"ugoa".contains(&b))
                && what.bytes().all(|b| b"rwxXst".contains(&b))
                && what.contains('s')
        })
    };
    let changes = |i: usize| {
        let before = words.get(..i).unwrap_or_default();
        before.iter().rev().take(4).any(|w| matches!(w.rsplit('/').next(), Some("chmod" | "install")))
    };
    words
        .iter()
        .enumerate()
        .any(|(i, w)| ((number(w) || symbol(w)) && changes(i)) || (w.starts_with("--chmod=") && number(w)))
}

fn careless_install(line: &str) -> bool {
    let installs = ["apt-get install", "apt install"].iter().any(|c| line.contains(c));
    installs && !line.contains("/var/lib/apt/lists")
}

fn origin(settings: &Settings, info: &ImageInfo, found: &mut Vec<Diagnostic>) {
    let verified: Vec<&str> =
        info.signatures.iter().filter(|s| s.verified).filter_map(|s| s.key_id.as_deref()).collect();
    let help = "policy.json decides which signatures are verified (containers-policy.json(5))";
    if settings.require_signature && verified.is_empty() {
        let message = format!("no signature of {} was verified", info.image.reference);
        say(found, "HYG007", "/signatures".to_owned(), message, help);
    }
    let accepted = |key: &&str| settings.signers.iter().any(|s| s == key);
    if !settings.signers.is_empty() && !verified.iter().any(accepted) {
        let message = "none of the accepted keys has signed it".to_owned();
        say(found, "HYG008", "/signatures".to_owned(), message, help);
    }
    if settings.require_provenance && info.facts.attestations.is_empty() {
        let message = "nothing tells where it comes from".to_owned();
        let help = "build it with a statement of provenance (buildx --provenance)";
        say(found, "HYG009", "/facts/attestations".to_owned(), message, help);
    }
    if let Some(most) = settings.max_bytes.filter(|most| info.size_bytes > *most) {
        let message = format!("it has {} bytes, more than {most}", info.size_bytes);
        say(found, "HYG010", "/size-bytes".to_owned(), message, "build it in stages and copy what is needed");
    }
    if let Some(most) = settings.max_layers.filter(|most| info.layers > *most) {
        let message = format!("it has {} layers, more than {most}", info.layers);
        say(found, "HYG010", "/layers".to_owned(), message, "build it in stages and copy what is needed");
    }
}

/// Paths that a message names; it says how many there are.
const NAMED: usize = 5;

fn privileged(settings: &Settings, files: &PrivilegedFiles, found: &mut Vec<Diagnostic>) {
    let allowed = |file: &&PrivilegedFile| !settings.allow_privileged_files.contains(&file.path);
    let wrong: Vec<&PrivilegedFile> = files.files.iter().filter(allowed).collect();
    let place = || "/image".to_owned();
    if !wrong.is_empty() {
        let mut names: Vec<String> = wrong.iter().take(NAMED).map(|file| described(file)).collect();
        if wrong.len() > NAMED {
            names.push(format!("{} more", wrong.len() - NAMED));
        }
        let message = format!("files of the image raise privileges: {}", names.join(", "));
        let help = "take the bits away in the image, or list the paths in allow-privileged-files";
        say(found, "HYG013", place(), message, help);
    }
    if files.truncated {
        let message = "the image has more files that raise privileges than are noted".to_owned();
        say(found, "HYG013", place(), message, "take the bits away in the image");
    }
    if files.unknown {
        let message = "it is not known which files of the image raise privileges: it came before rlrun noted them";
        let help = "remove the image and get it again: rlrun rmi, rlrun pull";
        say(found, "HYG013", place(), message.to_owned(), help);
    }
}

/// `/usr/bin/su (set-user-ID 0)`
fn described(file: &PrivilegedFile) -> String {
    let mut what = Vec::new();
    if file.set_user_id {
        what.push(format!("set-user-ID {}", file.uid));
    }
    if file.set_group_id {
        what.push(format!("set-group-ID {}", file.gid));
    }
    if file.file_capabilities {
        what.push("capabilities".to_owned());
    }
    format!("{} ({})", file.path, what.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<ImageHygiene>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }

    #[test]
    fn modes_with_an_id_bit_are_seen_and_others_are_not() {
        for line in [
            "RUN chmod u+s /bin/x",
            "/bin/sh -c chmod 4755 /bin/x",
            "RUN chmod -R 06755 /x",
            "RUN install -m 2755 a /b",
            "COPY --chmod=4755 a /b",
        ] {
            assert!(sets_id_bit(line), "{line}");
        }
        for line in
            ["RUN chmod 0755 /x", "RUN chmod 1777 /tmp", "RUN chmod +x /x", "RUN echo 4755", "COPY --chmod=755 a b"]
        {
            assert!(!sets_id_bit(line), "{line}");
        }
    }
}
