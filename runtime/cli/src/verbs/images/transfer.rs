//! `load`, `import`, `pull`, `push` and `save`: names, ids and digests on standard output.

use super::progress::progress;
use super::{each, hex};
use crate::arguments::transfer::{
    CompressionFormat, ImportArgs, LoadArgs, PullArgs, PushArgs, PushFormat, SaveArgs, SaveFormat, SearchArgs,
    VerifyArgs, combined,
};
use crate::format::{Format, Heading, Row};
use crate::report;
use crate::verbs::{Outcome, place, read};
use clap::ArgMatches;
use rlrun_engine::images::{
    self, Changes, Compression, Files, ImportRequest, ManifestForm, Signatures, Stored, Workshop,
};
use rlrun_engine::request::Fetch;
use rlrun_engine::request::change::{Change, change};
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::json;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn load(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: LoadArgs = read(matches)?;
    check_policy(args.signature_policy.as_deref())?;
    if args.input.is_none() && std::io::stdin().is_terminal() {
        return Err(usage("--input", "standard input is a terminal, and no archive").hint("-i FILE reads a file"));
    }
    let loaded = Workshop::open(place()?)?.load(args.input.as_deref(), &progress(args.quiet))?;
    let names = |image: &Stored| match image.names.is_empty() {
        true => vec![image.identity.id.clone()],
        false => image.names.clone(),
    };
    let lines = loaded.iter().flat_map(names).map(|name| format!("Loaded image: {name}\n"));
    report::print(&if args.quiet { String::new() } else { lines.collect() })
}

pub(crate) fn import(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ImportArgs = read(matches)?;
    let mut changes = Vec::new();
    for word in &args.change {
        changes.extend(change(word)?);
    }
    if changes.iter().any(|change| matches!(change, Change::OnBuild(_))) {
        return Err(usage("--change", "ONBUILD has no place in an OCI image"));
    }
    let platform = combined(args.os, args.arch, args.variant);
    let request = ImportRequest { name: args.name, changes, message: args.message, platform };
    let image = Workshop::open(place()?)?.import(&args.file, &request, &progress(args.quiet))?;
    report::print(&format!("{}\n", image.identity.id))
}

pub(crate) fn pull(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: PullArgs = read(matches)?;
    check_policy(args.signature_policy.as_deref())?;
    let workshop = Workshop::open(place()?)?;
    let fetch = Fetch { when: args.policy.into(), options: args.fetch.into() };
    let told = progress(args.quiet);
    each(&args.images, |name| {
        let pulled = match args.all_tags {
            true => workshop.pull_all_tags(name, &fetch, &told)?,
            false => workshop.pull(name, &fetch, &told)?,
        };
        Ok(pulled.iter().map(|id| format!("{}\n", hex(id))).collect())
    })
}

pub(crate) fn push(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: PushArgs = read(matches)?;
    check_policy(args.signature_policy.as_deref())?;
    let changes = changes(&args)?;
    let options = args.registry.into();
    let (destination, told) = (args.destination.as_deref(), progress(args.quiet));
    let digest = images::push(&place()?, &args.image, destination, (&options, &changes), &told)?;
    if let Some(path) = &args.digestfile {
        let Some(digest) = digest else {
            return Err(usage("--digestfile", "a docker-archive has no manifest, and so no digest"));
        };
        std::fs::File::create(path).and_then(|mut file| file.write_all(digest.as_bytes())).map_err(|e| {
            Failure::new(Stage::Cli, Kind::Runtime, "digestfile", "write the digest to", path.display().to_string())
                .why(e.to_string())
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Podman's hidden option for its own tests.
fn check_policy(given: Option<&Path>) -> Result<(), Failure> {
    match given {
        None => Ok(()),
        Some(_) => Err(usage("--signature-policy", "which images may come in is not for the command line to say")
            .hint("the first of ~/.config/containers/policy.json and /etc/containers/policy.json says so")),
    }
}

/// What push is to change about an image on its way.
fn changes(args: &PushArgs) -> Result<Changes, Failure> {
    let is_dir = args.destination.as_deref().is_some_and(|to| to.starts_with("dir:"));
    if args.compress && !is_dir {
        return Err(usage("--compress", "it is for dir: alone").hint("--compression-format is for all"));
    }
    let signing = [
        ("--sign-by", args.sign_by.is_some()),
        ("--sign-by-sigstore-private-key", args.sign_by_sigstore_private_key.is_some()),
        ("--sign-passphrase-file", args.sign_passphrase_file.is_some()),
    ];
    if let Some((option, _)) = signing.iter().find(|(_, given)| *given) {
        return Err(usage(option, "rlrun verifies signatures and makes none")
            .hint("skopeo copy --sign-by, or cosign sign, signs what is in the registry"));
    }
    let compression = match args.compression_format {
        None if args.compress => Compression::Missing,
        None => Compression::Kept,
        Some(CompressionFormat::Gzip) => Compression::Gzip,
        Some(CompressionFormat::Zstd) => Compression::Zstd,
    };
    let most = if compression == Compression::Zstd { 20 } else { 9 };
    match args.compression_level {
        Some(_) if compression == Compression::Kept => {
            return Err(usage("--compression-level", "layers are only compressed anew with --compression-format"));
        }
        Some(level) if !(1..=most).contains(&level) => {
            return Err(usage("--compression-level", "this format has other levels").hint(format!("1 to {most}")));
        }
        _ => {}
    }
    let form = args.format.map_or(ManifestForm::Kept, |format| match format {
        PushFormat::Oci => ManifestForm::Oci,
        PushFormat::V2s2 => ManifestForm::Docker,
    });
    let signatures = if args.remove_signatures { Signatures::Removed } else { Signatures::Kept };
    Ok(Changes { compression, level: args.compression_level, form, signatures })
}

pub(crate) fn save(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: SaveArgs = read(matches)?;
    let archive = matches!(args.format, SaveFormat::DockerArchive | SaveFormat::OciArchive);
    if args.compress && args.format != SaveFormat::DockerDir {
        return Err(usage("--compress", "it is for --format docker-dir"));
    }
    if args.multi_image_archive && args.format != SaveFormat::DockerArchive {
        return Err(usage("--multi-image-archive", "it is for --format docker-archive"));
    }
    let path = match args.output {
        Some(path) => path,
        None if !archive => return Err(usage("--output", "a directory has to be named")),
        None if std::io::stdout().is_terminal() => {
            return Err(usage("--output", "an archive is nothing for a terminal").hint("-o FILE, or a pipe"));
        }
        None => "-".into(),
    };
    let images: Vec<Vec<String>> = match args.multi_image_archive {
        true => args.images.into_iter().map(|name| vec![name]).collect(),
        false => vec![args.images],
    };
    let compression = if args.compress { Compression::Missing } else { Compression::Kept };
    let changes = Changes { compression, ..Changes::default() };
    images::save(&place()?, &images, &Files { layout: args.format.into(), path, name: None }, changes)?;
    Ok(ExitCode::SUCCESS)
}

/// What was verified, as JSON; that nothing has to be is told too.
pub(crate) fn verify(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: VerifyArgs = read(matches)?;
    let verified = images::verify(&place()?, &args.image, args.key.as_deref(), &args.registry.into())?;
    if verified.is_empty() {
        rlrun_engine::warn("policy.json demands no signature of it, so that none was verified; --key names a key");
    }
    let document = |s: &images::VerifiedSignature| json!({"scheme": s.scheme, "digest": s.digest, "identity": s.identity, "key": s.key});
    report::print(&format!("{:#}\n", serde_json::Value::Array(verified.iter().map(document).collect())))
}

pub(crate) fn search(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: SearchArgs = read(matches)?;
    for (option, given) in [("--compatible", args.compatible), ("--filter", !args.filter.is_empty())] {
        if given {
            return Err(usage(option, "registries tell names, and neither stars nor who is official"));
        }
    }
    place()?;
    let options = args.registry.into();
    let found = match args.list_tags {
        true => images::remote_tags(&args.term, &options)?,
        false => images::search(&args.term, &options)?,
    };
    let row = |name: String| {
        let (repository, tag) = name.rsplit_once(':').filter(|_| args.list_tags).unwrap_or((&name, ""));
        // Registries tell names alone; a template of podman's may ask for the rest.
        let index = repository.split('/').next().unwrap_or_default();
        let fields = json!({"Index": index, "Name": repository, "Description": "", "Stars": 0, "Official": "",
            "Automated": "", "Tag": tag});
        let document = match args.list_tags {
            true => json!({"Name": repository, "Tag": tag}),
            false => json!({"Index": index, "Name": repository, "Description": "", "Stars": 0, "Official": "",
                "Automated": "", "Tag": ""}),
        };
        Row { document, fields }
    };
    let rows: Vec<Row> = found.into_iter().take(args.limit).map(row).collect();
    let columns = if args.list_tags { "{{.Name}}\t{{.Tag}}" } else { "{{.Name}}" };
    report::print(&Format::parse(args.format.as_deref(), columns)?.list(&rows, &[], Heading::Shown)?)
}

fn usage(option: &str, why: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand the command line", option).why(why)
}
