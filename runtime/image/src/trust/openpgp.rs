//! Signatures that GnuPG made. gpgv(1) verifies them, in a process of its own: whoever wrote a signature may have written
//! it for a parser of OpenPGP, and rlrun's memory holds none. What it says counts only as its status lines, which come
//! through a pipe that nothing else writes to.

use super::statement::{self, VerifiedSignature};
use crate::digest::Digest;
use crate::error::{ImageError, store_io};
use base64::Engine as _;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Error, ErrorKind, Read, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const KIND: &str = "atomic container signature";
const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
/// A statement is a few hundred bytes; a packed one may unpack to anything.
const MAX_SAID: usize = 64 << 10;
/// It takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The keys that are accepted, where gpgv finds them.
#[derive(Debug)]
pub(super) struct Keyring {
    dir: TempDir,
}

/// What gpgv has let pass.
struct Signed {
    payload: Vec<u8>,
    fingerprint: String,
}

impl Keyring {
    /// Each of `keys` may hold several, armoured or not.
    pub(super) fn write(keys: &[(PathBuf, Vec<u8>)]) -> Result<Self, ImageError> {
        let mut all = Vec::new();
        for (path, key) in keys {
            all.extend(plain(key).map_err(|why| ImageError::configuration(path, why))?);
        }
        let keyring =
            Keyring { dir: tempfile::tempdir().map_err(store_io("create a directory", &std::env::temp_dir()))? };
        put(&keyring.at("keys"), &all)?;
        Ok(keyring)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A signature about `digest`, by one of the keys, for a name that is accepted; else why it is none.
    pub(super) fn verify(
        &self,
        signature: &[u8],
        digest: &Digest,
        accept: &dyn Fn(&str) -> bool,
    ) -> Result<Result<VerifiedSignature, String>, ImageError> {
        let said = match self.signed(signature)? {
            Ok(Signed { payload, fingerprint: key }) => {
                statement::name_in(&payload, KIND, digest).map(|identity| (identity, key))
            }
            Err(why) => Err(why),
        };
        Ok(match said {
            Ok((identity, key)) if accept(&identity) => {
                Ok(VerifiedSignature { scheme: "gpg-key".to_owned(), digest: digest.to_string(), identity, key })
            }
            Ok((identity, _)) => Err(format!("its signature is for `{}`", identity.escape_default())),
            Err(why) => Err(why),
        })
    }

    fn signed(&self, signature: &[u8]) -> Result<Result<Signed, String>, ImageError> {
        let file = self.at("signature");
        put(&file, signature)?;
        let (status, sink) = std::io::pipe().map_err(|e| gpgv_failed(&e))?;
        let mut command = Command::new("gpgv");
        command.args(["--quiet", "--status-fd", "0", "--output", "-", "--homedir"]).arg(self.dir.path());
        command.arg("--keyring").arg(self.at("keys")).arg(&file);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("LC_ALL", "C");
        let mut child =
            command.stdin(sink).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(|e| gpgv_failed(&e))?;
        // Its end of the pipe, which would keep ours open.
        drop(command);
        let said = said(&mut child, status);
        if said.is_err() {
            // It may be gone, which is what is wanted.
            child.kill().ok();
        }
        let ended = child.wait().map_err(|e| gpgv_failed(&e))?;
        let (payload, status) = match said {
            Ok(said) => said,
            Err(e) if e.kind() == ErrorKind::Other => return Ok(Err(e.to_string())),
            Err(e) => return Err(gpgv_failed(&e)),
        };
        Ok(judge(&String::from_utf8_lossy(&status)).and_then(|fingerprint| match ended.success() {
            true => Ok(Signed { payload, fingerprint }),
            false => Err(format!("gpgv ends with {ended}")),
        }))
    }
}

/// Payload and status, unless they are too long or too long in coming. One after the other: a status that does not fit
/// into its pipe is none that counts.
fn said(child: &mut Child, mut status: std::io::PipeReader) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let mut out = child.stdout.take().ok_or_else(|| Error::from(ErrorKind::BrokenPipe))?;
    let deadline = Instant::now() + PATIENCE;
    let payload = read_until(deadline, &mut out)?;
    Ok((payload, read_until(deadline, &mut status)?))
}

fn read_until(deadline: Instant, from: &mut (impl Read + AsFd)) -> Result<Vec<u8>, Error> {
    let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Error::from(ErrorKind::TimedOut))?;
        match poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(Error::other("gpgv does not come to an end with its signature")),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        match from.read(&mut chunk)? {
            0 => return Ok(all),
            n => all.extend(&chunk[..n]),
        }
        if all.len() > MAX_SAID {
            return Err(Error::other("its signed statement is too long"));
        }
    }
}

/// The fingerprint of the key, if there is one signature over one text and nothing is wrong with it.
fn judge(status: &str) -> Result<String, String> {
    let (mut texts, mut signatures, mut good, mut valid) = (0, 0, 0, Vec::new());
    for line in status.lines().filter_map(|line| line.strip_prefix("[GNUPG:] ")) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "PLAINTEXT" => texts += 1,
            "NEWSIG" => signatures += 1,
            "GOODSIG" => good += 1,
            "VALIDSIG" => valid = words,
            "EXPKEYSIG" => return Err("the key that signed it has expired".to_owned()),
            "REVKEYSIG" => return Err("the key that signed it was revoked".to_owned()),
            "EXPSIG" => return Err("its signature has expired".to_owned()),
            "BADSIG" => return Err("its signature was tampered with".to_owned()),
            "ERRSIG" => return Err("no signature of it was made by an accepted key".to_owned()),
            _ => {}
        }
    }
    if (texts, signatures, good) != (1, 1, 1) {
        return Err("what is said to be its signature is none".to_owned());
    }
    // VALIDSIG fingerprint date time expires version reserved algorithm hash class primary-fingerprint (gpg's DETAILS).
    match valid[..] {
        [_, _, _, _, _, _, _, _, "1" | "2" | "3", ..] => {
            Err("its signature is over a digest that is broken".to_owned())
        }
        [_, _, _, _, _, _, _, _, _, _, primary, ..] => Ok(primary.to_owned()),
        _ => Err("what is said to be its signature is none".to_owned()),
    }
}

/// Keys as packets. gpgv takes no armour.
fn plain(key: &[u8]) -> Result<Vec<u8>, String> {
    // The first bit of every packet (RFC 9580, 4.2).
    if key.first().is_some_and(|byte| byte & 0x80 != 0) {
        return Ok(key.to_vec());
    }
    let text = std::str::from_utf8(key).unwrap_or_default();
    let mut all = Vec::new();
    for block in text.split(BEGIN).skip(1) {
        let body = block.split_once(END).map(|(body, _)| body).ok_or("an armoured key has no end")?;
        let lines = body.lines().map(str::trim).skip(1).skip_while(|line| line.contains(':'));
        // A checksum, begun by `=`, ends the data; it is optional, and nobody relies on it.
        let data: String = lines.take_while(|line| !line.starts_with('=')).collect();
        let decoded = base64::engine::general_purpose::STANDARD.decode(data);
        all.extend(decoded.map_err(|_| "an armoured key is not base64")?);
    }
    if all.is_empty() { Err("it holds no OpenPGP key".to_owned()) } else { Ok(all) }
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let written = std::fs::File::create(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(store_io("write a file for gpgv", path))
}

fn gpgv_failed(error: &Error) -> ImageError {
    let failure = Failure::new(Stage::Cli, Kind::Host, "image-gpgv", "run", "gpgv");
    ImageError::Inner(match error.kind() {
        ErrorKind::NotFound => failure
            .why("policy.json demands GPG signatures, and the program that verifies them is not installed")
            .hint("install it: `apt install gpgv`, `dnf install gnupg2`"),
        _ => failure.why(error.to_string()),
    })
}

/// For [`crate::fuzz`].
#[cfg(test)]
pub(super) fn fuzz_read(input: &[u8]) {
    drop(plain(input));
    drop(judge(&String::from_utf8_lossy(input)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[GNUPG:] PLAINTEXT 62 1 m\n[GNUPG:] NEWSIG a@b\n[GNUPG:] GOODSIG 01 Name\n\
        [GNUPG:] VALIDSIG SUB 2026-01-01 1 0 4 0 1 10 00 PRIMARY\n";

    #[test]
    fn only_one_good_signature_over_one_text_counts() {
        assert_eq!(judge(GOOD).unwrap(), "PRIMARY");
        assert!(judge("").is_err() && judge(&GOOD.replace("GOODSIG", "XSIG")).is_err());
        assert!(judge(&format!("{GOOD}[GNUPG:] PLAINTEXT 62 1 n\n")).is_err());
        assert!(judge(&format!("{GOOD}[GNUPG:] NEWSIG\n")).is_err());
        for (word, why) in [("EXPKEYSIG", "expired"), ("REVKEYSIG", "revoked"), ("BADSIG", "tampered")] {
            assert!(judge(&GOOD.replace("GOODSIG", word)).unwrap_err().contains(why));
        }
        assert!(judge(&GOOD.replace(" 1 10 00 ", " 1 2 00 ")).unwrap_err().contains("broken"));
        // What a person called himself is no status.
        assert!(judge(&format!("gpgv: {}", GOOD.replace('\n', " "))).is_err());
    }

    #[test]
    fn keys_come_armoured_or_not() {
        let armoured = |data: &str| format!("hello\n{BEGIN}\nComment: x\n\n{data}\n=ab12\n{END}\n");
        assert_eq!(plain(armoured("mQEN\nAAAA").as_bytes()).unwrap(), [0x99, 1, 13, 0, 0, 0]);
        assert_eq!(plain((armoured("mQEN") + &armoured("mQEN")).as_bytes()).unwrap().len(), 6);
        assert_eq!(plain(&[0x99, 7]).unwrap(), [0x99, 7]);
        for bad in ["", "hello", BEGIN, &armoured("?")] {
            assert!(plain(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
