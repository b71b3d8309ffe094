//! `load`, `import`, `pull`, `images`, `rmi` and `rm`: names and ids on standard output, progress on a terminal only.

use super::{Outcome, place, read};
use crate::arguments::images::{Format, ImagesArgs, ImportArgs, LoadArgs, PullArgs, RmArgs, RmiArgs};
use crate::report;
use crate::table::{ago, columns, now, seconds_of, size};
use clap::ArgMatches;
use rlrun_engine::images::{self, ImageSummary, Progress, RemoveMode, Stored, Workshop};
use rlrun_engine::trace::Marks;
use rlrun_spec::Failure;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::IsTerminal as _;

/// What is told while something long goes on.
pub(super) fn progress(quiet: bool) -> impl Fn(&Progress) + Sync {
    let told = !quiet && std::io::stderr().is_terminal();
    move |event| {
        if told && let Some(line) = line(event) {
            eprintln!("{line}");
        }
    }
}

fn line(event: &Progress) -> Option<String> {
    match event {
        Progress::Trying(reference) => Some(format!("Trying to pull {reference}...")),
        Progress::BlobStarted { name, size: 0 } => Some(format!("Copying blob {}", short(name))),
        Progress::BlobStarted { name, size: bytes } => Some(format!("Copying blob {} ({})", short(name), size(*bytes))),
        Progress::Present(name) => Some(format!("Copying blob {} skipped: already exists", short(name))),
        Progress::Unpacking { layers: 1 } => Some("Unpacking 1 layer".to_owned()),
        Progress::Unpacking { layers } => Some(format!("Unpacking {layers} layers")),
        Progress::BlobProgress { .. } | Progress::BlobDone(_) | Progress::Finished(_) => None,
    }
}

/// The digest's first twelve digits.
fn short(digest: &str) -> &str {
    let hex = hex(digest);
    hex.get(..12).unwrap_or(hex)
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

pub(super) fn load(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: LoadArgs = read(matches)?;
    let loaded = Workshop::open(place()?)?.load(args.input.as_deref(), &progress(args.quiet))?;
    let names = |image: &Stored| match image.names.is_empty() {
        true => vec![image.identity.id.clone()],
        false => image.names.clone(),
    };
    let lines = loaded.iter().flat_map(names).map(|name| format!("Loaded image: {name}\n"));
    report::print(&if args.quiet { String::new() } else { lines.collect() })
}

pub(super) fn import(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ImportArgs = read(matches)?;
    let image = Workshop::open(place()?)?.import(&args.file, args.name.as_deref(), &progress(args.quiet))?;
    report::print(&format!("{}\n", image.identity.id))
}

pub(super) fn pull(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: PullArgs = read(matches)?;
    let workshop = Workshop::open(place()?)?;
    let options = args.fetch.into();
    let mut ids = String::new();
    for name in &args.images {
        let image = workshop.pull(name, &options, &progress(args.quiet))?;
        ids.push_str(hex(&image.identity.id));
        ids.push('\n');
    }
    report::print(&ids)
}

pub(super) fn remove(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: RmiArgs = read(matches)?;
    let workshop = Workshop::open(place()?)?;
    let mode = if args.force { RemoveMode::Force } else { RemoveMode::Normal };
    each(&args.images, |name| {
        let removed = workshop.remove(name, mode)?;
        let untagged = removed.untagged.iter().map(|name| format!("Untagged: {name}\n"));
        let deleted = removed.deleted.iter().map(|id| format!("Deleted: {}\n", hex(id)));
        Ok(untagged.chain(deleted).collect())
    })
}

pub(super) fn remove_containers(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: RmArgs = read(matches)?;
    let workshop = Workshop::open(place()?)?;
    let remove = |name: &String| workshop.remove_container(name).map(|()| format!("{name}\n"));
    each(&args.containers, remove)
}

/// Does something to each name; the first failure is the verb's, and the others are done all the same.
fn each(names: &[String], act: impl Fn(&String) -> Result<String, Failure>) -> Outcome {
    let (mut text, mut failed) = (String::new(), None);
    for name in names {
        match act(name) {
            Ok(said) => text.push_str(&said),
            Err(failure) => {
                let code = report::failure(&failure);
                failed.get_or_insert(code);
            }
        }
    }
    let printed = report::print(&text)?;
    Ok(failed.unwrap_or(printed))
}

pub(super) fn list(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ImagesArgs = read(matches)?;
    let mut all = images::list(&place()?, args.name.as_deref())?;
    // Newest first, as podman has them; then by name, so that the order is always the same.
    all.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| a.names.cmp(&b.names)));
    report::print(&match (args.quiet, args.format) {
        (true, _) => ids(&all, &args),
        (false, Format::Json) => format!("{:#}\n", Value::Array(all.iter().map(document).collect())),
        (false, Format::Table) => table(&all, &args, now()),
    })
}

/// When it was made; when it came, if the image does not say.
fn created(image: &ImageSummary) -> u64 {
    image.created.as_deref().and_then(seconds_of).unwrap_or(image.added)
}

fn id(image: &ImageSummary, args: &ImagesArgs) -> String {
    if args.no_trunc { image.id.clone() } else { short(&image.id).to_owned() }
}

fn ids(all: &[ImageSummary], args: &ImagesArgs) -> String {
    let mut told = BTreeSet::new();
    all.iter().map(|image| id(image, args)).filter(|id| told.insert(id.clone())).map(|id| id + "\n").collect()
}

fn table(all: &[ImageSummary], args: &ImagesArgs, now: u64) -> String {
    let mut rows = Vec::new();
    if !args.noheading {
        let mut heading = vec!["REPOSITORY", "TAG"];
        heading.extend(args.digests.then_some("DIGEST"));
        heading.extend(["IMAGE ID", "CREATED", "SIZE"]);
        rows.push(heading.into_iter().map(str::to_owned).collect());
    }
    for image in all {
        for (repository, tag) in names(image) {
            let mut row = vec![repository, tag];
            row.extend(args.digests.then(|| image.digest.clone()));
            row.extend([id(image, args), ago(created(image), now), size(image.size)]);
            rows.push(row);
        }
    }
    columns(&rows)
}

/// Repository and tag of each name; one row of `<none>` for an image without any.
fn names(image: &ImageSummary) -> Vec<(String, String)> {
    let none = || "<none>".to_owned();
    let tagged = image.names.iter().filter_map(|name| name.rsplit_once(':'));
    let mut all: Vec<_> = tagged.map(|(repository, tag)| (repository.to_owned(), tag.to_owned())).collect();
    if all.is_empty() {
        let repository = image.digests.first().and_then(|d| d.split_once('@')).map(|(r, _)| r.to_owned());
        all.push((repository.unwrap_or_else(none), none()));
    }
    all
}

/// Field names as in `podman images --format json`.
fn document(image: &ImageSummary) -> Value {
    json!({
        "Id": hex(&image.id),
        "Names": image.names,
        "RepoTags": image.names,
        "RepoDigests": image.digests,
        "Digest": image.digest,
        "Created": created(image),
        "CreatedAt": image.created,
        "Size": image.size,
        "Platform": image.platform,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ImagesArgs {
        ImagesArgs {
            name: None,
            quiet: false,
            no_trunc: false,
            digests: false,
            noheading: false,
            format: Format::Table,
        }
    }

    fn image(names: &[&str], digests: &[&str]) -> ImageSummary {
        ImageSummary {
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            digests: digests.iter().map(|d| (*d).to_owned()).collect(),
            id: format!("sha256:{}", "ab".repeat(32)),
            digest: format!("sha256:{}", "cd".repeat(32)),
            created: Some("1970-01-02T00:00:00Z".to_owned()),
            added: 5,
            size: 4_456_789,
            platform: "linux/amd64".to_owned(),
        }
    }

    #[test]
    fn one_row_a_name_and_one_without() {
        let all = [
            image(&["localhost:5000/a:1", "docker.io/library/b:latest"], &[]),
            image(&[], &["quay.io/c@sha256:1"]),
            image(&[], &[]),
        ];
        let want = "\
REPOSITORY           TAG     IMAGE ID      CREATED    SIZE
localhost:5000/a     1       abababababab  2 days ago 4.45 MB
docker.io/library/b  latest  abababababab  2 days ago 4.45 MB
quay.io/c            <none>  abababababab  2 days ago 4.45 MB
<none>               <none>  abababababab  2 days ago 4.45 MB
"
        .replace("2 days ago ", "2 days ago  ")
        .replace("CREATED    ", "CREATED     ");
        assert_eq!(table(&all, &args(), 3 * 86_400), want);
    }

    #[test]
    fn ids_are_told_once() {
        let all = [image(&["a:1"], &[]), image(&["b:1"], &[])];
        assert_eq!(ids(&all, &args()), "abababababab\n");
        let whole = ImagesArgs { no_trunc: true, ..args() };
        assert_eq!(ids(&all, &whole).trim(), format!("sha256:{}", "ab".repeat(32)));
    }

    #[test]
    fn json_has_podmans_names() {
        let value = document(&image(&["a:1"], &[]));
        assert_eq!((&value["Created"], &value["Names"][0]), (&json!(86_400), &json!("a:1")));
    }
}
