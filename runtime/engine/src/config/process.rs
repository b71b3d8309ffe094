//! Arguments, environment and working directory: the command line over the image over defaults. An image's words are
//! data for the payload and nothing else.

use crate::request::RunRequest;
use rlrun_image::ImageConfig;

/// What podman and the shells search when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The payload's words. A new entrypoint makes the image's command meaningless, as in docker and podman.
#[must_use]
pub fn args(request: &RunRequest, image: &ImageConfig) -> Vec<String> {
    let (entrypoint, default_command): (&[String], &[String]) = match &request.entrypoint {
        Some(words) => (words, &[]),
        None => (&image.entrypoint, &image.cmd),
    };
    let command = if request.command.is_empty() { default_command } else { &request.command };
    entrypoint.iter().chain(command).cloned().collect()
}

/// Variables that depend on the container.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// `HOSTNAME`.
    pub hostname: &'a str,
    /// `HOME`.
    pub home: &'a str,
}

/// The payload's environment; of two values the later one counts, at the place of the first.
#[must_use]
pub fn environment(request: &RunRequest, image: &ImageConfig, around: Surroundings<'_>) -> Vec<String> {
    let mut env = Environment::default();
    let changes = &request.env_changes;
    env.set("PATH", DEFAULT_PATH);
    if request.tty {
        env.set("TERM", "xterm");
    }
    env.set("container", "rlrun");
    env.set("HOME", around.home);
    env.set("HOSTNAME", around.hostname);
    // An entry without a value is left out: taking it from the host would let an image read the caller's secrets.
    for (name, value) in image.env.iter().filter_map(|entry| entry.split_once('=')) {
        if !name.is_empty() {
            env.set(name, value);
        }
    }
    env.0.retain(|(name, _)| !changes.unset_all && !changes.unset.contains(name));
    for (name, template) in &changes.merge {
        let known = |wanted: &str| env.0.iter().find(|(n, _)| n == wanted).map(|(_, value)| value.clone());
        let value = crate::request::env::expand(template, &known);
        env.set(name, &value);
    }
    for (name, value) in &request.env {
        env.set(name, value);
    }
    env.0.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[derive(Default)]
struct Environment(Vec<(String, String)>);

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }
}

/// The working directory, absolute and without `..`.
#[must_use]
pub fn workdir(request: &RunRequest, image: &ImageConfig) -> String {
    let word = request.workdir.as_deref().unwrap_or(&image.workdir);
    let mut parts: Vec<&str> = Vec::new();
    for part in word.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::request;

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            env: vec!["PATH=/image".into(), "A=image".into(), "LEAK".into(), "=x".into(), "B=1=2".into()],
            workdir: "srv/../app/".into(),
            ..ImageConfig::default()
        }
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn entrypoint_and_command_merge_as_in_podman() {
        let mut request = request();
        assert_eq!(args(&request, &image()), ["/entry", "default"]);
        request.command = words(&["a", "b"]);
        assert_eq!(args(&request, &image()), ["/entry", "a", "b"]);
        request.entrypoint = Some(words(&["/other"]));
        assert_eq!(args(&request, &image()), ["/other", "a", "b"]);
        request.command.clear();
        assert_eq!(args(&request, &image()), ["/other"]);
        request.entrypoint = Some(Vec::new());
        assert!(args(&request, &image()).is_empty());
    }

    #[test]
    fn the_command_line_wins_over_the_image_over_the_default() {
        let mut request = request();
        request.tty = true;
        request.env = vec![("A".into(), "cli".into()), ("Z".into(), "1".into()), ("Z".into(), "2".into())];
        let env = environment(&request, &image(), Surroundings { hostname: "h", home: "/root" });
        let want =
            ["PATH=/image", "TERM=xterm", "container=rlrun", "HOME=/root", "HOSTNAME=h", "A=cli", "B=1=2", "Z=2"];
        assert_eq!(env, want);
    }

    #[test]
    fn the_working_directory_is_absolute() {
        let mut request = request();
        assert_eq!(workdir(&request, &image()), "/app");
        assert_eq!(workdir(&request, &ImageConfig::default()), "/");
        request.workdir = Some("/x//y".into());
        assert_eq!(workdir(&request, &image()), "/x/y");
    }
}
