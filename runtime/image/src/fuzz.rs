//! Everything that reads what strangers write, given changed samples for a while: nothing may panic, hang, or reach out
//! of its directory. `make fuzz` runs it for longer (RLRUN_FUZZ_SECONDS each); in the tests it is a short smoke.
//!
//! The changes follow from a seed that is told when a target fails: RLRUN_FUZZ_SEED repeats the run.

use crate::config;
use crate::decompress::{Bounded, decompressed};
use crate::digest::Digest;
use crate::limits::Limits;
use crate::manifest;
use crate::reference::Reference;
use crate::registry::fuzz as registry;
use crate::tarball::TarReader;
use crate::transport::Transport;
use crate::trust::fuzz as trust;
use crate::unpack::fuzz as unpack;
use std::io::{BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// xorshift64*: the same changes on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    /// Values on which length fields, counters and terminators go wrong.
    fn byte(&mut self) -> u8 {
        const INTERESTING: &[u8] = b"\x00\x01\x7f\x80\xff/.\"{}[]:,-09 \\'@\n";
        match self.below(3) {
            0 => INTERESTING[self.below(INTERESTING.len())],
            _ => self.next().to_le_bytes()[0],
        }
    }
}

/// One to eight changes: bytes, cuts, repetitions, pieces of another sample.
fn changed(samples: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = samples[random.below(samples.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len());
        let length = random.below(64).min(bytes.len() - at);
        match random.below(7) {
            0..=2 if !bytes.is_empty() => bytes[at] = random.byte(),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let piece = bytes[at..at + length].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => {
                let other = &samples[random.below(samples.len())];
                let from = random.below(other.len());
                let piece = other[from..(from + length).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(bytes.len() - random.below(16).min(bytes.len())),
        }
    }
    bytes
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a target until its time is over; gives back how often.
#[track_caller]
fn fuzz(samples: &[Vec<u8>], target: impl Fn(&[u8])) {
    let time = variable("RLRUN_FUZZ_SECONDS").map_or(Duration::from_millis(300), Duration::from_secs);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let seed = variable("RLRUN_FUZZ_SEED").unwrap_or_else(|| u64::from(now) | 1);
    let (mut random, start, mut rounds) = (Random(seed.max(1)), Instant::now(), 0_u64);
    samples.iter().for_each(|sample| target(sample));
    while start.elapsed() < time {
        let input = changed(samples, &mut random);
        let began = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            panic!("RLRUN_FUZZ_SEED={seed}, round {rounds}: {}", input.escape_ascii());
        }
        assert!(began.elapsed() < Duration::from_secs(20), "RLRUN_FUZZ_SEED={seed}: {}", input.escape_ascii());
        rounds += 1;
    }
    assert!(rounds > 0);
    println!("{rounds} rounds, seed {seed}");
}

fn texts(samples: &[&str]) -> Vec<Vec<u8>> {
    samples.iter().map(|s| s.as_bytes().to_vec()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Entries of every kind, whiteouts, long names, attributes.
fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let long = format!("dir/{}", "n".repeat(150));
    let entries: [(u8, &str, &str, &[u8]); 9] = [
        (b'5', "dir", "", b""),
        (b'0', "dir/file", "", b"content"),
        (b'1', "dir/hard", "dir/file", b""),
        (b'2', "dir/soft", "../../outside", b""),
        (b'6', "dir/fifo", "", b""),
        (b'0', "dir/.wh.gone", "", b""),
        (b'0', "dir/.wh..wh..opq", "", b""),
        (b'0', &long, "", b"x"),
        (b'3', "dir/device", "", b""),
    ];
    tar.append_pax_extensions([("SCHILY.xattr.user.a", &b"b"[..]), ("mtime", b"1.5")]).unwrap();
    for (kind, name, link, data) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(data.len() as u64);
        header.set_mode(0o755);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mtime(1);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        tar.append_data(&mut header, name, data).unwrap();
    }
    tar.into_inner().unwrap()
}

fn layers() -> Vec<Vec<u8>> {
    let plain = layer();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    vec![zstd::encode_all(&plain[..], 1).unwrap(), gzip.finish().unwrap(), plain]
}

const LIMIT: u64 = 4 << 20;

#[test]
fn fuzz_the_reader_of_archives() {
    fuzz(&layers(), |input| {
        let Ok(plain) = decompressed(input) else { return };
        let mut reader = TarReader::new(BufReader::new(Bounded::new(plain, LIMIT)));
        while let Ok(Some(_)) = reader.next_entry() {}
    });
}

#[test]
fn fuzz_decompression() {
    fuzz(&layers(), |input| {
        let Ok(plain) = decompressed(input) else { return };
        let mut out = Vec::new();
        drop(Bounded::new(plain, LIMIT).read_to_end(&mut out));
        assert!(out.len() as u64 <= LIMIT);
    });
}

#[test]
fn fuzz_the_extraction_of_layers() {
    let limits = Limits { layer_bytes: LIMIT, layer_entries: 1000, layers: 10 };
    fuzz(&layers(), |input| {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        for dir in ["outside", "stage"] {
            std::fs::create_dir(at(dir)).unwrap();
        }
        std::fs::File::create(at("blob")).unwrap().write_all(input).unwrap();
        unpack::extract(&at("blob"), &at("stage"), limits, &Digest::of(input));
        let names =
            |path: &str| std::fs::read_dir(at(path)).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(names("outside").len(), 0);
        assert_eq!(names(".").len(), 3);
        assert!(names("stage").iter().all(|name| name == "layer"));
    });
}

#[test]
fn fuzz_manifests_and_configurations() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let one = format!(r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":1}}"#);
    let image = format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{one}],"annotations":{{"a":"b"}}}}"#);
    let platform = r#""platform":{"os":"linux","architecture":"amd64"}"#;
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":1,{platform}}}]}}"#);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","config":{{"Env":["A=b"],"Cmd":["/x"],
        "Labels":{{"a":"b"}},"Volumes":{{"/v":{{}}}}}},"rootfs":{{"diff_ids":["{digest}"]}},"history":[{{"created_by":"x"}}]}}"#
    );
    fuzz(&texts(&[&image, &index, &config]), |input| {
        drop(manifest::parse(input, None, "x"));
        drop(config::parse(input, "x"));
    });
}

#[test]
fn fuzz_what_users_and_administrators_write() {
    let names = ["docker.io/library/busybox:1", "localhost:5000/a/b__c@sha256:00", "oci:/a:b", "docker-archive:x:@1"];
    let registries =
        "unqualified-search-registries = ['a.io']\n[[registry]]\nprefix='*.b.io'\n[[registry.mirror]]\nlocation='c'";
    let auth = r#"{"auths":{"https://a.io/v1/":{"auth":"YTpi"},"b.io/c":{"identitytoken":"t"}}}"#;
    let policy = r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.io":[{"type":"sigstoreSigned","keyData":"eA==",
        "signedIdentity":{"type":"remapIdentity","prefix":"a","signedPrefix":"b"}}]}}}"#;
    let challenge = r#"Bearer realm="https://a.io/token",service="a",scope="repository:a:pull""#;
    let signed = r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/a","/b"],
        "signedIdentity":{"type":"exactReference","dockerReference":"a/b:1"}}]}"#;
    let lookaside =
        "default-docker:\n  sigstore: file:///a\ndocker:\n  'a.io/b': &x {lookaside: 'https://a/b'}\n  c: *x\n";
    let attached = r#"{"manifests":[{"artifactType":"application/spdx+json","digest":"sha256:00",
        "annotations":{"predicateType":"https://slsa.dev/provenance/v1"}}],"layers":[{"mediaType":"a"}]}"#;
    let mut samples = texts(&names);
    samples.extend(texts(&[registries, auth, policy, challenge, signed, lookaside, attached]));
    fuzz(&samples, |input| {
        let text = text(input);
        drop(Reference::parse(&text));
        drop(Transport::parse(&text));
        registry::read(&text);
        trust::read(input);
    });
}

#[test]
fn fuzz_signed_statements() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let statement = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"a/b"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}}}}"#
    );
    let status =
        "[GNUPG:] PLAINTEXT 62 1 m\n[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 01 N\n[GNUPG:] VALIDSIG A b 1 0 4 0 1 10 00 C\n";
    let armoured =
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\nmQEN\n=ab12\n-----END PGP PUBLIC KEY BLOCK-----\n";
    fuzz(&texts(&[&statement, include_str!("trust/testdata/p256.pub"), status, armoured]), trust::statement);
}
