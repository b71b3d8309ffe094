//! `rlrun cp`: from one end to another, where an end is a path of the host, a path in a container, or a stream.

use super::inside::Task;
use super::reach::{Reach, View, Working, details};
use super::{failure, pipe};
use crate::containers::{self, Container};
use crate::place::Place;
use crate::policies::may_leave;
use rlrun_image::files::{self, Base, Destination, Manner, Owner, Source};
use rlrun_sandbox::Lent;
use rlrun_spec::policy::Outward;
use rlrun_spec::{Failure, Kind, Stage};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A path of the host.
    Host(String),
    /// A path in a container: its name or id, and the path.
    Container(String, String),
    /// `-`: standard input or output, a tar archive.
    Stream,
}

/// Reads one of the two words of `cp`: `CONTAINER:PATH`, `PATH`, `-`. What begins with `/` or `.` is a path.
#[must_use]
pub fn end(word: &str) -> End {
    match word.split_once(':') {
        _ if word == "-" => End::Stream,
        Some((name, path)) if !name.is_empty() && !word.starts_with(['/', '.']) && !name.contains('/') => {
            End::Container(name.to_owned(), path.to_owned())
        }
        _ => End::Host(word.to_owned()),
    }
}

/// How it is copied.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Files in a container become its user's; else owners stay as they are.
    pub archive: bool,
    /// A file may take the place of a directory, and the other way round.
    pub overwrite: bool,
}

/// Copies.
///
/// # Errors
/// When neither end is a container, or something cannot be read or made.
pub fn copy(place: &Place, from: &End, to: &End, options: Options) -> Result<(), Failure> {
    let usage = |why: &str| {
        Failure::new(Stage::Cli, Kind::Usage, "copy-files", "copy", "what was named")
            .why(why)
            .hint("write `rlrun cp CONTAINER:PATH PATH` or `rlrun cp PATH CONTAINER:PATH`; `-` is a tar archive")
    };
    if !matches!(from, End::Container(..)) && !matches!(to, End::Container(..)) {
        return Err(usage("one of the two must be in a container"));
    }
    for end in [from, to] {
        if let End::Container(_, path) | End::Host(path) = end
            && path.is_empty()
        {
            return Err(usage("a path is empty"));
        }
    }
    if let End::Container(..) = from {
        let (container, path) = find(place, from)?;
        let destination = match to {
            End::Host(path) => path.clone(),
            End::Stream => "-".to_owned(),
            End::Container(name, path) => format!("{name}:{path}"),
        };
        may_leave(place, &container, (Outward::Cp, &String::from_utf8_lossy(&path), &destination))?;
    }
    if let End::Container(..) = to {
        // Before the other end begins: it would only tell that nobody listens.
        drop(find(place, to)?);
    }
    let name = source_name(from);
    let (read, write) = pipe("the copy")?;
    match (from, to) {
        (End::Container(..), End::Stream) => {
            drop((read, write));
            let out = std::io::stdout().as_fd().try_clone_to_owned();
            let out = out.map_err(|e| failure("write to", "standard output").why(e.to_string()))?;
            // What is copied has its name in the archive, unless only what is in it was asked for.
            let named = name.unwrap_or_default();
            send(place, from, named, out)?.finish().map(drop)
        }
        (End::Container(..), End::Container(..)) => {
            let sender = send(place, from, Vec::new(), write)?;
            let receiver = take(place, to, Some(name), options, read)?;
            both(sender.finish().map(drop), receiver.finish().map(drop))
        }
        (End::Container(..), End::Host(path)) => {
            let sender = send(place, from, Vec::new(), write)?;
            let to = Destination {
                base: &Base::Host,
                path: path.as_bytes(),
                how: Manner::Copy(name.as_deref()),
                owner: Owner::Receiver,
                overwrite: options.overwrite,
            };
            let received = files::receive(File::from(read), &to).map(drop);
            both(sender.finish().map(drop), received)
        }
        (End::Stream, _) => {
            drop((read, write));
            let input = std::io::stdin().as_fd().try_clone_to_owned();
            let input = input.map_err(|e| failure("read", "standard input").why(e.to_string()))?;
            told(&take(place, to, None, options, input)?.finish()?);
            Ok(())
        }
        (End::Host(path), _) => {
            let receiver = take(place, to, Some(name), options, read)?;
            let owner = owners_inside(place);
            let source = Source { base: &Base::Host, path: path.as_bytes(), name: b"", owner: &owner };
            let sent = files::pack(&source, File::from(write));
            both(sent, receiver.finish().map(drop))
        }
    }
}

/// What the source is called in a directory that it is copied into; None when only what is in it is copied.
fn source_name(from: &End) -> Option<Vec<u8>> {
    let (End::Host(path) | End::Container(_, path)) = from else { return None };
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    let last = parts.next_back()?;
    match last {
        // `cp dir/.`, and `cp ctr:/` as `cp /.`.
        "." | ".." => None,
        name => Some(name.as_bytes().to_vec()),
    }
}

/// The reader's trouble is usually the writer's fault, and a closed pipe is never the reason to tell.
fn both(sent: Result<(), Failure>, received: Result<(), Failure>) -> Result<(), Failure> {
    const BROKEN_PIPE: i32 = 32;
    match (sent, received) {
        (Err(sent), Err(received)) if sent.errno.is_some_and(|e| e.0 == BROKEN_PIPE) => Err(received),
        (Err(sent), _) => Err(sent),
        (Ok(()), received) => received,
    }
}

fn told(devices: &[u8]) {
    let devices = std::str::from_utf8(devices).unwrap_or_default();
    if !matches!(devices, "" | "0") {
        crate::warn(&format!("{devices} device nodes were left out: no user namespace can make them"));
    }
}

fn find(place: &Place, end: &End) -> Result<(Container, Vec<u8>), Failure> {
    let End::Container(name, path) = end else {
        return Err(failure("find", "the container").why("none was named"));
    };
    let container = containers::find(place, name)?;
    if path.starts_with('/') {
        return Ok((container, path.clone().into_bytes()));
    }
    // As podman: what is not absolute is below the working directory.
    let details = details(&container)?;
    let cwd = details.spec.oci.process().as_ref().map(|p| p.cwd().display().to_string()).unwrap_or_default();
    Ok((container, format!("{}/{path}", cwd.trim_end_matches('/')).into_bytes()))
}

fn send(place: &Place, from: &End, name: Vec<u8>, out: OwnedFd) -> Result<Working, Failure> {
    let (container, path) = find(place, from)?;
    let reach = Reach::open(place, &container, View::Inside)?;
    let out = Lent::of(out)?;
    reach.start(Task::Pack { path, name, out: out.number() }, vec![out])
}

fn take(
    place: &Place,
    to: &End,
    copy: Option<Option<Vec<u8>>>,
    options: Options,
    input: OwnedFd,
) -> Result<Working, Failure> {
    let (container, path) = find(place, to)?;
    let user = details(&container)?.spec.oci.process().as_ref().map_or((0, 0), |p| (p.user().uid(), p.user().gid()));
    let reach = Reach::open(place, &container, View::Inside)?;
    let input = Lent::of(input)?;
    let owner = options.archive.then_some(user);
    let task = Task::Receive { path, copy, owner, overwrite: options.overwrite, input: input.number() };
    reach.start(task, vec![input])
}

/// Host ids as the default id map shows them; what it does not map becomes root's.
fn owners_inside(place: &Place) -> impl Fn(u32, u32) -> (u32, u32) {
    let host = crate::host::probe(&place.data);
    let maps = super::reach::maps(&host, &rlrun_spec::container::UserNamespace::Default).ok();
    move |uid, gid| {
        let inside = |lines: &[rlrun_spec::IdMapping], id: u32| {
            let line = lines.iter().find(|l| id.checked_sub(l.host).is_some_and(|offset| offset < l.count));
            line.map_or(0, |l| l.container + (id - l.host))
        };
        maps.as_ref().map_or((0, 0), |m| (inside(&m.uids, uid), inside(&m.gids, gid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_paths_or_containers() {
        let inside = |name: &str, path: &str| End::Container(name.to_owned(), path.to_owned());
        for (word, want) in [
            ("web:/etc", inside("web", "/etc")),
            ("web:x:y", inside("web", "x:y")),
            ("-", End::Stream),
            ("/a:b", End::Host("/a:b".to_owned())),
            ("./a:b", End::Host("./a:b".to_owned())),
            ("dir/a:b", End::Host("dir/a:b".to_owned())),
            (":x", End::Host(":x".to_owned())),
            ("file", End::Host("file".to_owned())),
        ] {
            assert_eq!(end(word), want, "{word}");
        }
    }

    #[test]
    fn a_source_has_a_name_unless_only_its_contents_are_meant() {
        let name = |path: &str| source_name(&End::Host(path.to_owned())).map(|n| String::from_utf8(n).unwrap());
        assert_eq!(name("/a/b/").as_deref(), Some("b"));
        assert_eq!(name("a").as_deref(), Some("a"));
        for contents in ["/", "a/.", ".", "a/..", "//"] {
            assert_eq!(name(contents), None, "{contents}");
        }
    }

    #[test]
    fn the_first_cause_is_told() {
        let broken = || Err(failure("write", "x").errno(32));
        let full = || Err(failure("write", "y").errno(28));
        assert_eq!(both(broken(), full()), full());
        assert_eq!(both(full(), broken()), full());
        assert_eq!(both(Ok(()), full()), full());
        assert_eq!(both(Ok(()), Ok(())), Ok(()));
    }
}
