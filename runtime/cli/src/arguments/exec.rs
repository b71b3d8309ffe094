//! `rlrun exec` and `rlrun attach`: names and meanings are podman's.

use clap::{ArgAction, Args};
use rlrun_engine::attach::Attaching;
use rlrun_engine::request::exec::{self, DETACH_KEYS, ExecWords, Which};
use rlrun_engine::request::{self, env};
use rlrun_spec::{Failure, Kind, Stage};
use std::path::PathBuf;

/// Which container, beside its name.
#[derive(Args, Debug)]
pub(crate) struct WhichArgs {
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// The container whose id is in this file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
}

impl WhichArgs {
    /// The container, of whose name `words` begin with unless an option names it.
    pub(crate) fn take(&self, words: &mut Vec<String>) -> Result<Which, Failure> {
        match (self.latest, &self.cidfile) {
            (true, Some(_)) => Err(missing("--latest and --cidfile").why("only one of them can name the container")),
            (true, None) => Ok(Which::Latest),
            (false, Some(path)) => Ok(Which::Named(exec::id_of_file(path)?)),
            (false, None) if words.is_empty() => Err(missing("CONTAINER").why("is missing")),
            (false, None) => Ok(Which::Named(words.remove(0))),
        }
    }
}

fn missing(what: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand the command line", what)
        .hint("name the container, or --latest for the newest; the command follows it")
}

/// The options before CONTAINER and the words after it.
#[derive(Args, Debug)]
pub(crate) struct ExecArgs {
    /// The container, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, num_args = 1.., value_name = "CONTAINER", hide = true)]
    words: Vec<String>,
    /// Run in the background and print a name for it
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave the command alone; an empty list for none
    #[arg(long, value_name = "KEYS", default_value = DETACH_KEYS)]
    detach_keys: String,
    /// Set a variable; a bare name takes your value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Pass that many descriptors on, from 3
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    preserve_fds: u32,
    /// All capabilities of the container's user namespace; policies see it
    #[arg(long)]
    privileged: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// User inside, from the container's passwd and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    #[command(flatten)]
    which: WhichArgs,
}

impl ExecArgs {
    /// Descriptors of the caller that the command gets.
    pub(crate) fn preserve_fds(&self) -> u32 {
        self.preserve_fds
    }

    /// Reads every word.
    pub(crate) fn request(self) -> Result<ExecWords, Failure> {
        let mut command = self.words;
        let container = self.which.take(&mut command)?;
        if command.is_empty() {
            return Err(missing("COMMAND").why("is missing"));
        }
        let lookup: env::Lookup<'_> = &|name| std::env::var_os(name);
        let mut variables = Vec::new();
        for file in &self.env_file {
            variables.extend(env::file(file, lookup)?);
        }
        for word in &self.env {
            variables.extend(env::variable("--env", word, lookup)?);
        }
        Ok(ExecWords {
            container,
            command,
            env: variables,
            user: self.user.as_deref().map(request::user).transpose()?,
            workdir: self.workdir.as_deref().map(request::workdir).transpose()?,
            interactive: self.interactive,
            tty: self.tty,
            privileged: self.privileged,
            detach: self.detach,
            detach_keys: exec::detach_keys(&self.detach_keys)?,
            preserve_fds: self.preserve_fds,
        })
    }
}

/// `rlrun attach`.
#[derive(Args, Debug)]
pub(crate) struct AttachArgs {
    /// The container
    #[arg(value_name = "CONTAINER")]
    name: Option<String>,
    /// Keys that leave the container alone; an empty list for none
    #[arg(long, value_name = "KEYS", default_value = DETACH_KEYS)]
    detach_keys: String,
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Forward signals to the container (default true)
    #[arg(long, default_value = "true", action = ArgAction::SetTrue)]
    sig_proxy: bool,
}

impl AttachArgs {
    /// Reads every word.
    pub(crate) fn request(self) -> Result<(Which, Attaching), Failure> {
        let which = match (self.latest, self.name) {
            (true, None) => Which::Latest,
            (false, Some(name)) => Which::Named(name),
            (true, Some(_)) => return Err(missing("--latest").why("the container is named already")),
            (false, None) => return Err(missing("CONTAINER").why("is missing")),
        };
        let detach_keys = exec::detach_keys(&self.detach_keys)?;
        Ok((which, Attaching { input: !self.no_stdin, sig_proxy: self.sig_proxy, detach_keys }))
    }
}
