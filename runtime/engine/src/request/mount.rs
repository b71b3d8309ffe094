//! `-v`, `--mount` and `--tmpfs`. What a path really is on the host is found out later; here only the words count.

use super::limits::bytes;
use super::{Invalid, csv};
use serde::{Deserialize, Serialize};

/// A mount that the user asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountRequest {
    /// A file or directory of the host.
    Bind {
        /// Host path, as written.
        source: String,
        /// Absolute, without `.` and `..`.
        destination: String,
        /// Flags.
        flags: Flags,
    },
    /// A volume of rlrun's.
    Volume {
        /// Its name; None for one of the container's own.
        name: Option<String>,
        /// Absolute, without `.` and `..`.
        destination: String,
        /// Flags.
        flags: Flags,
        /// A directory of the volume instead of the whole.
        subpath: Option<String>,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Absolute, without `.` and `..`.
        destination: String,
        /// Flags.
        flags: Flags,
        /// The file system's own options, `size=64m`.
        data: Vec<String>,
    },
    /// A directory of the host, below a layer that takes what is written and goes with the run (`O`).
    Overlay {
        /// Host path, as written.
        source: String,
        /// Absolute, without `.` and `..`.
        destination: String,
        /// Flags.
        flags: Flags,
    },
    /// The files of an image.
    Image {
        /// As written.
        image: String,
        /// Its id, once it was found: a container keeps what it was made with.
        id: Option<String>,
        /// Absolute, without `.` and `..`.
        destination: String,
        /// Flags.
        flags: Flags,
    },
    /// Another file system of the kernel's.
    Kernel {
        /// Which.
        kind: KernelFs,
        /// Absolute, without `.` and `..`.
        destination: String,
        /// Flags.
        flags: Flags,
        /// The file system's own options, `mode=0700`.
        data: Vec<String>,
    },
}

/// File systems that `--mount` can make beside a tmpfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KernelFs {
    /// Terminals.
    Devpts,
    /// Memory that is never swapped out, of any size.
    Ramfs,
}

impl KernelFs {
    /// As mount(8) calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            KernelFs::Devpts => "devpts",
            KernelFs::Ramfs => "ramfs",
        }
    }
}

impl MountRequest {
    /// Where it is mounted.
    #[must_use]
    pub fn destination(&self) -> &str {
        match self {
            MountRequest::Bind { destination, .. }
            | MountRequest::Volume { destination, .. }
            | MountRequest::Overlay { destination, .. }
            | MountRequest::Image { destination, .. }
            | MountRequest::Kernel { destination, .. }
            | MountRequest::Tmpfs { destination, .. } => destination,
        }
    }

    /// How it is mounted.
    #[must_use]
    pub fn flags(&self) -> &Flags {
        match self {
            MountRequest::Bind { flags, .. }
            | MountRequest::Volume { flags, .. }
            | MountRequest::Overlay { flags, .. }
            | MountRequest::Image { flags, .. }
            | MountRequest::Kernel { flags, .. }
            | MountRequest::Tmpfs { flags, .. } => flags,
        }
    }
}

/// Flags; None where the user said nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    /// `ro`, `rw`.
    pub read_only: Option<bool>,
    /// `nosuid`, `suid`.
    pub nosuid: Option<bool>,
    /// `nodev`, `dev`.
    pub nodev: Option<bool>,
    /// `noexec`, `exec`.
    pub noexec: Option<bool>,
    /// `rslave`: later mounts of the host appear inside.
    pub slave: bool,
    /// `bind` without `r`: nothing that is mounted below the source.
    pub not_recursive: bool,
    /// `z`, `Z`: the user expects SELinux labels to be changed.
    pub relabel: bool,
    /// `notmpcopyup`, `nocopy`: a tmpfs or a new volume starts empty.
    pub no_copy_up: bool,
    /// `U`: what is mounted is given to the container's user.
    pub chown: bool,
}

/// Sets an option once; the opposite word after it is a contradiction.
fn set(slot: &mut Option<bool>, value: bool) -> Result<(), String> {
    match slot.replace(value) {
        Some(before) if before != value => Err("contradicts another option".to_owned()),
        _ => Ok(()),
    }
}

impl Flags {
    /// These of a volume, and what its user asked for, which counts more.
    pub(crate) fn with(self, asked: &Flags) -> Flags {
        Flags {
            // What is made read-only stays it.
            read_only: self.read_only.filter(|read_only| *read_only).or(asked.read_only).or(self.read_only),
            nosuid: asked.nosuid.or(self.nosuid),
            nodev: asked.nodev.or(self.nodev),
            noexec: asked.noexec.or(self.noexec),
            slave: self.slave || asked.slave,
            not_recursive: self.not_recursive || asked.not_recursive,
            relabel: self.relabel || asked.relabel,
            no_copy_up: self.no_copy_up || asked.no_copy_up,
            chown: self.chown || asked.chown,
        }
    }

    /// Takes one option word; false when it is not a flag.
    fn take(&mut self, word: &str) -> Result<bool, String> {
        match word {
            "ro" => set(&mut self.read_only, true)?,
            "rw" => set(&mut self.read_only, false)?,
            "nosuid" => set(&mut self.nosuid, true)?,
            "suid" => set(&mut self.nosuid, false)?,
            "nodev" => set(&mut self.nodev, true)?,
            "dev" => set(&mut self.nodev, false)?,
            "noexec" => set(&mut self.noexec, true)?,
            "exec" => set(&mut self.noexec, false)?,
            "rprivate" | "private" | "rbind" => {}
            "rslave" | "slave" => self.slave = true,
            "rshared" | "shared" => return Err("shared mounts would reach back to the host".to_owned()),
            "bind" => self.not_recursive = true,
            "z" | "Z" => self.relabel = true,
            "U" => self.chown = true,
            "O" => return Err("an overlay is made of a directory of the host, named by its path".to_owned()),
            "idmap" => {
                return Err(
                    "mounts with ids of their own are root's to make (mount_setattr(2)); U gives the files to \
                            the container's user, and --userns=keep-id keeps yours"
                        .to_owned(),
                );
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// An absolute path inside without `.`, `..` and doubled slashes.
pub(crate) fn destination(option: &'static str, word: &str, path: &str) -> Result<String, Invalid> {
    let invalid = |why: &str| Err(Invalid::new(option, word, why));
    if !path.starts_with('/') {
        return invalid(&format!("the destination {path} is not an absolute path"));
    }
    if path.contains('\0') {
        return invalid("the destination holds a NUL byte");
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            // Nothing is above the root, as in the kernel's own path walk.
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let clean = format!("/{}", parts.join("/"));
    match parts.first().copied() {
        None => invalid("the destination is the root itself"),
        // A mount inside /proc can redirect what the launch and the payload write to /proc/self (CVE-2019-19921).
        Some("proc") => Err(Invalid::new(option, word, "nothing can be mounted on or in /proc").hint(
            "choose a place outside of /proc; --sysctl and --security-opt unmask=PATH change what is seen there",
        )),
        Some("dev" | "sys") if parts.len() == 1 => invalid(&format!("{clean} itself is made by rlrun")),
        Some(_) => Ok(clean),
    }
}

/// `-v [SOURCE:]CONTAINER[:OPTIONS]`: a source that begins with `/` or `.` is a path of the host, another one the name of
/// a volume, and none means a volume of the container's own.
///
/// # Errors
/// When an option is unknown, or a name cannot be one.
pub fn volume(word: &str) -> Result<MountRequest, Invalid> {
    let invalid = |why: String| Invalid::new("--volume", word, why);
    let parts: Vec<&str> = word.split(':').collect();
    let (source, path, options) = match parts[..] {
        [path] => (None, path, ""),
        // `-v /path:ro`: options can follow a volume without a name.
        [path, options] if !options.starts_with('/') && path.starts_with('/') && are_options(options) => {
            (None, path, options)
        }
        [source, path] => (Some(source), path, ""),
        [source, path, options] => (Some(source), path, options),
        _ => {
            return Err(invalid("has too many parts".to_owned())
                .hint("a path with a colon goes into --mount type=bind,source=...,destination=..."));
        }
    };
    let mut flags = Flags::default();
    let is_bind = source.is_some_and(|s| s.starts_with(['/', '.']));
    let mut is_overlay = false;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "O" if is_bind => is_overlay = true,
            _ if option.starts_with("upperdir=") || option.starts_with("workdir=") => {
                return Err(invalid(format!("option {option}: what is written to an overlay goes with the run"))
                    .hint("a volume keeps what is written: rlrun volume create"));
            }
            "nocopy" if !is_bind => flags.no_copy_up = true,
            "copy" if !is_bind => flags.no_copy_up = false,
            _ => match flags.take(option) {
                Ok(true) => {}
                Ok(false) => return Err(invalid(format!("unknown option {option}"))),
                Err(why) => return Err(invalid(format!("option {option}: {why}"))),
            },
        }
    }
    let destination = destination("--volume", word, path)?;
    match source {
        Some(source) if is_overlay => Ok(MountRequest::Overlay { source: source.to_owned(), destination, flags }),
        Some(source) if is_bind => Ok(MountRequest::Bind { source: source.to_owned(), destination, flags }),
        name => {
            let name = name.map(|n| volume_name("--volume", n)).transpose()?;
            Ok(MountRequest::Volume { name, destination, flags, subpath: None })
        }
    }
}

fn are_options(words: &str) -> bool {
    words.split(',').all(|w| matches!(w, "copy" | "nocopy") || Flags::default().take(w) == Ok(true))
}

/// The name of a volume.
///
/// # Errors
/// When podman would not take it either.
pub fn volume_name(option: &'static str, word: &str) -> Result<String, Invalid> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let begins = word.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if begins && word.len() <= 255 && word.bytes().all(ok) {
        return Ok(word.to_owned());
    }
    let why = if word.is_empty() { "the name of the volume is empty" } else { "is not the name of a volume" };
    Err(Invalid::new(option, word, why).hint(
        "use letters, digits, `_`, `.` and `-`, beginning with a letter or digit; a path begins with `/` or `./`",
    ))
}

/// `--tmpfs CONTAINER[:OPTIONS]`.
///
/// # Errors
/// When an option is unknown.
pub fn tmpfs(word: &str) -> Result<MountRequest, Invalid> {
    let (path, options) = word.split_once(':').unwrap_or((word, ""));
    let mut flags = Flags::default();
    let mut data = Vec::new();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        tmpfs_option(option, &mut flags, &mut data)
            .map_err(|why| Invalid::new("--tmpfs", word, format!("option {option}: {why}")))?;
    }
    Ok(MountRequest::Tmpfs { destination: destination("--tmpfs", word, path)?, flags, data })
}

/// One option of tmpfs(5).
fn tmpfs_option(option: &str, flags: &mut Flags, data: &mut Vec<String>) -> Result<(), String> {
    let valid = |ok: bool| if ok { Ok(()) } else { Err("is not a valid value".to_owned()) };
    match option.split_once('=') {
        Some(("size", value)) => {
            let percent = value.strip_suffix('%').and_then(|n| n.parse::<u32>().ok());
            valid(percent.is_some() || bytes(value).is_some())?;
        }
        Some(("mode", value)) => valid(u32::from_str_radix(value, 8).is_ok_and(|m| m <= 0o7777))?,
        Some(("uid" | "gid" | "nr_inodes", value)) => valid(value.parse::<u32>().is_ok())?,
        Some(_) => return Err("is unknown".to_owned()),
        None => {
            return match option {
                "tmpcopyup" => Ok(()),
                "notmpcopyup" => {
                    flags.no_copy_up = true;
                    Ok(())
                }
                "z" | "Z" | "bind" | "rbind" | "slave" | "rslave" => Err("is not an option of tmpfs".to_owned()),
                _ if flags.take(option)? => Ok(()),
                _ => Err("is unknown".to_owned()),
            };
        }
    }
    data.push(option.to_owned());
    Ok(())
}

/// The fields of `--mount`, collected before it is known which type they belong to.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    source: Option<String>,
    destination: Option<String>,
    subpath: Option<String>,
    flags: Flags,
    data: Vec<String>,
}

const TYPES: &str = "use type=volume, bind, tmpfs, image, glob, devpts or ramfs";

fn fields(word: &str) -> Result<Fields, Invalid> {
    let invalid = |why: String| Invalid::new("--mount", word, why);
    let fields = csv::fields(word).ok_or_else(|| invalid("its quotes do not match".to_owned()))?;
    let mut found = Fields::default();
    for field in &fields {
        take_field(&mut found, field).map_err(|why| invalid(format!("{field}: {why}")))?;
    }
    Ok(found)
}

/// `--mount`: one mount, or with `type=glob` one for each path of the host that fits.
///
/// # Errors
/// As [`mount`], and when no path fits.
pub fn mounts(word: &str) -> Result<Vec<MountRequest>, Invalid> {
    let found = fields(word)?;
    if found.kind.as_deref() != Some("glob") {
        return Ok(vec![mount(word)?]);
    }
    let invalid = |why: String| Invalid::new("--mount", word, why);
    if let Some(other) = found.data.first().map(String::as_str).or(found.subpath.as_deref()) {
        return Err(invalid(format!("{other} belongs to another type")));
    }
    let Some(pattern) = &found.source else { return Err(invalid("has no source".to_owned())) };
    let paths = glob::glob(pattern).map_err(|e| invalid(format!("source is no pattern: {e}")))?;
    let mut all = Vec::new();
    for path in paths {
        let path = path.map_err(|e| invalid(e.to_string()))?;
        let Some(source) = path.to_str() else {
            return Err(invalid(format!("{} fits, and is not UTF-8", path.display())));
        };
        let place = match (&found.destination, path.file_name()) {
            (Some(below), Some(name)) => format!("{below}/{}", name.to_string_lossy()),
            _ => source.to_owned(),
        };
        let destination = destination("--mount", word, &place)?;
        all.push(MountRequest::Bind { source: source.to_owned(), destination, flags: found.flags });
    }
    match all.is_empty() {
        true => Err(invalid(format!("no path fits {pattern}")).hint(format!("ls -d {pattern} shows what there is"))),
        false => Ok(all),
    }
}

/// `--mount type=volume|bind|tmpfs|image|devpts|ramfs,...`.
///
/// # Errors
/// When a field is unknown, missing, or belongs to another type.
pub fn mount(word: &str) -> Result<MountRequest, Invalid> {
    let invalid = |why: String| Invalid::new("--mount", word, why);
    let found = fields(word)?;
    let Some(path) = &found.destination else {
        return Err(invalid("has no destination".to_owned()));
    };
    let destination = destination("--mount", word, path)?;
    let kind = found.kind.as_deref().unwrap_or("volume");
    let known: &[&str] = match kind {
        "tmpfs" => &["size", "mode"],
        "devpts" => &["mode", "uid", "gid", "max"],
        "ramfs" => &["mode"],
        _ => &[],
    };
    let strange = |data: &&String| !known.iter().any(|name| data.split('=').next() == Some(name));
    if let Some(data) = found.data.iter().find(strange) {
        return Err(invalid(format!("{data} does not belong to type={kind}")));
    }
    if found.subpath.is_some() && kind != "volume" {
        return Err(invalid("subpath belongs to type=volume".to_owned()));
    }
    match kind {
        "bind" => {
            let Some(source) = found.source else { return Err(invalid("has no source".to_owned())) };
            Ok(MountRequest::Bind { source, destination, flags: found.flags })
        }
        "volume" => {
            let name = found.source.as_deref().map(|n| volume_name("--mount", n)).transpose()?;
            Ok(MountRequest::Volume { name, destination, flags: found.flags, subpath: found.subpath })
        }
        "tmpfs" if found.source.is_some() => Err(invalid("a tmpfs has no source".to_owned())),
        "tmpfs" => Ok(MountRequest::Tmpfs { destination, flags: found.flags, data: found.data }),
        "image" => {
            let Some(image) = found.source else { return Err(invalid("has no source".to_owned())) };
            let mut flags = found.flags;
            // As in podman: an image is written to only on request, and then what is written goes with the run.
            flags.read_only.get_or_insert(true);
            Ok(MountRequest::Image { image, id: None, destination, flags })
        }
        "devpts" | "ramfs" if found.source.is_some() => Err(invalid(format!("a {kind} has no source"))),
        "devpts" => {
            Ok(MountRequest::Kernel { kind: KernelFs::Devpts, destination, flags: found.flags, data: found.data })
        }
        "ramfs" => {
            Ok(MountRequest::Kernel { kind: KernelFs::Ramfs, destination, flags: found.flags, data: found.data })
        }
        "artifact" => Err(invalid("images are all that the store holds".to_owned()).hint(TYPES)),
        kind => Err(invalid(format!("unknown type {kind}")).hint(TYPES)),
    }
}

fn take_field(found: &mut Fields, field: &str) -> Result<(), String> {
    let (name, value) = match field.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (field, None),
    };
    match (name, value) {
        ("type", Some(v)) => found.kind = Some(v.to_owned()),
        ("source" | "src", Some(v)) => found.source = Some(v.to_owned()),
        ("destination" | "dst" | "target", Some(v)) => found.destination = Some(v.to_owned()),
        ("ro" | "readonly", None | Some("true" | "1")) => set(&mut found.flags.read_only, true)?,
        ("ro" | "readonly", Some("false" | "0")) => set(&mut found.flags.read_only, false)?,
        ("bind-propagation", Some(v)) => {
            if !matches!(v, "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared") {
                return Err("is no propagation".to_owned());
            }
            found.flags.take(v)?;
        }
        ("bind-nonrecursive", None | Some("true")) => found.flags.not_recursive = true,
        ("bind-nonrecursive", Some("false")) => found.flags.not_recursive = false,
        ("relabel", Some("shared" | "private")) => found.flags.relabel = true,
        ("chown" | "U", None | Some("true" | "1")) => found.flags.chown = true,
        ("chown" | "U", Some("false" | "0")) => found.flags.chown = false,
        ("subpath" | "volume-subpath", Some(v)) if !v.is_empty() => found.subpath = Some(v.to_owned()),
        ("nocopy" | "volume-nocopy", None | Some("true" | "1")) => found.flags.no_copy_up = true,
        ("copy" | "volume-nocopy", None | Some("false" | "0")) => found.flags.no_copy_up = false,
        ("tmpfs-size", Some(v)) => tmpfs_option(&format!("size={v}"), &mut found.flags, &mut found.data)?,
        ("tmpfs-mode" | "ramfs-mode" | "mode", Some(v)) => {
            tmpfs_option(&format!("mode={v}"), &mut found.flags, &mut found.data)?
        }
        ("uid" | "gid" | "max", Some(v)) if v.parse::<u32>().is_ok() => found.data.push(format!("{name}={v}")),
        ("rw" | "readwrite", Some("true" | "1")) => set(&mut found.flags.read_only, false)?,
        ("rw" | "readwrite", Some("false" | "0")) => set(&mut found.flags.read_only, true)?,
        ("tmpcopyup", None) => {}
        ("notmpcopyup", None) => found.flags.no_copy_up = true,
        (_, None) if found.flags.take(name)? => {}
        _ => return Err("is unknown".to_owned()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(request: MountRequest) -> (String, String, Flags) {
        match request {
            MountRequest::Bind { source, destination, flags } => (source, destination, flags),
            other => panic!("not a bind: {other:?}"),
        }
    }

    #[test]
    fn a_volume_has_two_paths_and_options() {
        let (source, destination, flags) = bind(volume("./a:/b/../c//d/:ro,Z,nosuid,rslave").unwrap());
        assert_eq!((source.as_str(), destination.as_str()), ("./a", "/c/d"));
        let want = Flags { read_only: Some(true), nosuid: Some(true), slave: true, relabel: true, ..Flags::default() };
        assert_eq!(flags, want);
    }

    #[test]
    fn a_destination_never_reaches_proc_or_the_root() {
        for path in ["/proc", "/proc/self/attr", "/../proc", "/x/../proc/sys", "//proc", "/", "/..", "/dev", "/sys"] {
            assert!(volume(&format!("/tmp:{path}")).is_err(), "{path}");
        }
        assert!(volume("/dev/fuse:/dev/fuse").is_ok());
        assert!(volume("/tmp:x").is_err());
    }

    #[test]
    fn what_there_is_not_says_why() {
        let known = [
            ("/a:/b:idmap", "root's"),
            ("data:/b:O", "named by its path"),
            ("/a:/b:O,upperdir=/u", "goes with the run"),
        ];
        for (word, why) in known {
            assert!(volume(word).unwrap_err().why.contains(why), "{word}");
        }
        let refused = mount("type=artifact,src=/a,dst=/b").unwrap_err();
        assert!(!refused.why.contains("unknown type"), "{refused:?}");
        for word in ["/a:/b:nocopy", "a/b:/c", "_a:/b", "/a:/b:rshared", "/a:/b:ro,rw", "/a:/b:x", "/a:/b:ro:z"] {
            assert!(volume(word).is_err(), "{word}");
        }
    }

    #[test]
    fn a_volume_has_a_name_or_belongs_to_the_container() {
        let named = |word: &str| match volume(word).unwrap() {
            MountRequest::Volume { name, destination, flags, .. } => (name, destination, flags),
            other => panic!("not a volume: {other:?}"),
        };
        let want = Flags { read_only: Some(true), no_copy_up: true, chown: true, ..Flags::default() };
        assert_eq!(named("data:/d:ro,nocopy,U"), (Some("data".to_owned()), "/d".to_owned(), want));
        assert_eq!(named("/d"), (None, "/d".to_owned(), Flags::default()));
        assert_eq!(named("/d:ro").2.read_only, Some(true));
        let request = mount("src=data,dst=/d,subpath=a/b,ro").unwrap();
        let MountRequest::Volume { name, subpath, .. } = request else { panic!("not a volume") };
        assert_eq!((name.as_deref(), subpath.as_deref()), (Some("data"), Some("a/b")));
        assert!(matches!(mount("type=volume,dst=/d").unwrap(), MountRequest::Volume { name: None, .. }));
    }

    #[test]
    fn tmpfs_options_are_checked() {
        let request = tmpfs("/t:size=64m,mode=1777,exec,notmpcopyup,ro").unwrap();
        let MountRequest::Tmpfs { flags, data, .. } = request else { panic!("a bind") };
        assert_eq!(data, ["size=64m", "mode=1777"]);
        assert_eq!((flags.noexec, flags.read_only, flags.no_copy_up), (Some(false), Some(true), true));
        assert!(tmpfs("/t:size=50%").is_ok());
        for bad in ["/t:size=x", "/t:mode=99", "/t:lowerdir=/", "/t:huge=always", "/t:z", "t", "/t:uid=-1"] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_overlay_is_of_a_directory_of_the_host() {
        let want =
            MountRequest::Overlay { source: "./a".to_owned(), destination: "/b".to_owned(), flags: Flags::default() };
        assert_eq!(volume("./a:/b:O").unwrap(), want);
        assert!(volume("/b:O").is_err());
    }

    #[test]
    fn an_image_is_read_only_unless_asked_otherwise() {
        let read_only = |word: &str| mount(word).unwrap().flags().read_only;
        assert_eq!(read_only("type=image,source=busybox,destination=/i"), Some(true));
        assert_eq!(read_only("type=image,source=busybox,destination=/i,rw=true"), Some(false));
        assert!(mount("type=image,destination=/i").is_err());
    }

    #[test]
    fn kernel_file_systems_take_their_own_options() {
        let MountRequest::Kernel { kind, data, .. } = mount("type=devpts,dst=/p,uid=1,gid=2,mode=0620,max=9").unwrap()
        else {
            panic!("no kernel's file system")
        };
        assert_eq!((kind, data.join(",").as_str()), (KernelFs::Devpts, "uid=1,gid=2,mode=0620,max=9"));
        assert!(mount("type=ramfs,dst=/r,ramfs-mode=0700").is_ok());
        for bad in ["type=ramfs,dst=/r,tmpfs-size=1m", "type=devpts,dst=/p,src=/a", "type=bind,src=/a,dst=/b,mode=0700"]
        {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_glob_is_one_bind_for_each_path_that_fits() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.so", "b.so", "c.txt"] {
            std::fs::File::create(dir.path().join(name)).unwrap();
        }
        let base = dir.path().display();
        let places = |word: &str| mounts(word).unwrap().iter().map(|m| m.destination().to_owned()).collect::<Vec<_>>();
        assert_eq!(places(&format!("type=glob,src={base}/*.so,dst=/lib")), ["/lib/a.so", "/lib/b.so"]);
        assert_eq!(places(&format!("type=glob,src={base}/c*,ro")), [format!("{base}/c.txt")]);
        assert!(mounts(&format!("type=glob,src={base}/x*,dst=/lib")).unwrap_err().why.contains("no path fits"));
        assert!(mounts("type=glob,src=/etc/host*,dst=/proc").is_err());
    }

    #[test]
    fn mount_takes_both_types() {
        let (source, destination, flags) = bind(mount(r#"type=bind,"src=/a,b",dst=/c,readonly"#).unwrap());
        assert_eq!((source.as_str(), destination.as_str(), flags.read_only), ("/a,b", "/c", Some(true)));
        assert!(matches!(mount("type=tmpfs,target=/t,tmpfs-size=1m").unwrap(), MountRequest::Tmpfs { .. }));
        for bad in [
            "type=bind,dst=/c",
            "type=tmpfs,src=/a,dst=/t",
            "type=bind,src=/a,dst=/c,tmpfs-size=1m",
            "type=bind,src=/a,dst=/c,subpath=x",
            "src=/a,dst=/b",
            "type=bind,src=/a",
            "type=x,dst=/y",
            "type=bind,src=/a,dst=/c,bind-propagation=rshared",
            "\"",
            "type=bind,src=/a,dst=/c,bind-propagation=ro",
        ] {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_words_lead_into_proc_or_onto_the_root(source in "[./a]{0,6}", path in "[/.a-dnop]{0,14}", options in "[a-z,=:]{0,9}") {
            for request in [volume(&format!("{source}:{path}:{options}")), tmpfs(&format!("{path}:{options}")),
                mount(&format!("type=bind,src={source},dst={path},{options}"))].into_iter().flatten() {
                let clean = request.destination();
                let parts: Vec<&str> = clean.split('/').skip(1).collect();
                proptest::prop_assert!(clean.starts_with('/') && !parts.iter().any(|p| matches!(*p, "" | "." | "..")), "{clean}");
                proptest::prop_assert!(parts[0] != "proc", "{clean}");
            }
        }

        #[test]
        fn any_words_are_read_without_panic(word in ".{0,40}") {
            drop((volume(&word), tmpfs(&word), mount(&word), super::super::security::request(std::slice::from_ref(&word))));
            drop((super::super::limits::cpus(&word), super::super::limits::ulimit(&word), bytes(&word)));
        }
    }
}
