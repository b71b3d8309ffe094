//! `images`: which ones, in which order, and their columns.

use super::{hex, short};
use crate::arguments::images::{ImagesArgs, Sort};
use crate::format::{Filters, Format, Heading, Row, label_fits};
use crate::table::{ago, seconds_of, size};
use rlrun_engine::images::{self, ImageSummary};
use rlrun_engine::place::Place;
use rlrun_spec::Failure;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

const FILTERS: &[&str] = &[
    "after",
    "before",
    "containers",
    "dangling",
    "digest",
    "id",
    "intermediate",
    "label",
    "label!",
    "manifest",
    "readonly",
    "reference",
    "since",
    "until",
];
const HEADINGS: &[(&str, &str)] = &[("Id", "IMAGE ID"), ("CreatedSince", "CREATED"), ("Created", "CREATED")];

/// What filters ask of the store, each only if it is asked.
pub(in crate::verbs) trait Asked {
    /// When the image that a word means was made.
    fn age_of(&self, name: &str) -> Result<u64, Failure>;
    /// The id of the image that a word means.
    fn id_of(&self, name: &str) -> Result<Option<String>, Failure>;
    /// How many containers each image has, by its id.
    fn containers(&self) -> BTreeMap<String, usize>;
}

impl Asked for Place {
    fn age_of(&self, name: &str) -> Result<u64, Failure> {
        Ok(created(&images::details(self, name)?.summary))
    }

    fn id_of(&self, name: &str) -> Result<Option<String>, Failure> {
        images::id_of(self, name)
    }

    fn containers(&self) -> BTreeMap<String, usize> {
        images::containers(self)
    }
}

/// What `rlrun images` prints.
pub(super) fn list(place: &Place, args: &ImagesArgs, now: u64) -> Result<String, Failure> {
    let mut all = images::list(place)?;
    // A name is a filter, as podman has it.
    let mut words = args.list.filter.clone();
    words.extend(args.name.iter().map(|name| format!("reference={name}")));
    let fits = fits_filters(&words, now, place)?;
    all.retain(fits);
    sort(&mut all, args.sort);
    if args.list.quiet {
        return Ok(ids(&all, args.list.no_trunc));
    }
    let columns = if args.digests {
        "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.Id}}\t{{.CreatedSince}}\t{{.Size}}"
    } else {
        "{{.Repository}}\t{{.Tag}}\t{{.Id}}\t{{.CreatedSince}}\t{{.Size}}"
    };
    let wanted = args.list.format.as_deref();
    let format = Format::parse(wanted, columns)?;
    // The columns of the table need no more than is put there in any case.
    let containers = wanted.map(|_| images::containers(place)).unwrap_or_default();
    let types = wanted.is_some_and(|format| format.contains(".ManifestType"));
    let base = |image: &ImageSummary| -> Result<Value, Failure> {
        if wanted.is_none() {
            return Ok(json!({}));
        }
        let mut document = document(image, containers.get(&image.id).copied().unwrap_or_default());
        if types {
            document["ManifestType"] = super::inspect::manifest_type(&images::details(place, &image.id)?);
        }
        Ok(document)
    };
    let mut found: Vec<Row> = Vec::new();
    for image in &all {
        let document = base(image)?;
        match format {
            // One document an image, and one row a name.
            Format::Json => found.push(Row { document, fields: Value::Null }),
            Format::Lines(_) | Format::Table(_) => found.extend(rows(image, &document, args.list.no_trunc, now)),
        }
    }
    format.list(&found, HEADINGS, Heading::from(args.list.noheading))
}

/// Whether an image fits all filters.
pub(in crate::verbs) fn fits_filters(
    words: &[String],
    now: u64,
    asked: &dyn Asked,
) -> Result<impl Fn(&ImageSummary) -> bool + use<>, Failure> {
    let filters = Filters::parse(words, FILTERS)?;
    let dangling = filters.truth("dangling")?;
    let read_only = filters.truth("readonly")?;
    // An image is one platform's, and made in one piece.
    let neither = [filters.truth("manifest")?, filters.truth("intermediate")?].contains(&Some(true));
    let used = filters.truth("containers")?;
    let containers = used.map(|_| asked.containers()).unwrap_or_default();
    let until = filters.moments("until", now)?;
    let ages = |key| filters.values(key).map(|name| asked.age_of(name)).collect::<Result<Vec<_>, _>>();
    let (before, mut since) = (ages("before")?, ages("since")?);
    since.extend(ages("after")?);
    let meant = filters.values("reference").map(|name| asked.id_of(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(move |image: &ImageSummary| {
        let labels = || image.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let names = || image.names.iter().chain(&image.digests);
        let dangles = image.names.is_empty();
        !neither
            && dangling.is_none_or(|wanted| wanted == dangles)
            && read_only.is_none_or(|wanted| wanted == image.read_only)
            && used.is_none_or(|wanted| wanted == containers.contains_key(&image.id))
            && until.iter().all(|moment| created(image) < *moment)
            && before.iter().all(|moment| created(image) < *moment)
            && since.iter().all(|moment| created(image) > *moment)
            && filters.any("id", |id| hex(&image.id).starts_with(hex(id)))
            && filters.any("digest", |digest| hex(&image.digest).starts_with(hex(digest)))
            && filters.all("label", |word| label_fits(word, labels()))
            && filters.all("label!", |word| !label_fits(word, labels()))
            && (filters.any("reference", |pattern| names().any(|name| is_meant(pattern, name)))
                || meant.iter().flatten().any(|id| *id == image.id))
    })
}

/// Whether a reference is what a pattern means: all of it, all but its registry, or its last component; each with or
/// without its tag or digest.
fn is_meant(pattern: &str, name: &str) -> bool {
    let bare = name.split('@').next().unwrap_or(name);
    let bare = bare.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(bare, |(bare, _)| bare);
    let fits = |text: &str| glob(pattern.as_bytes(), text.as_bytes());
    let tail = |from: Option<usize>, text: &str| fits(&text[from.map_or(0, |at| at + 1)..]);
    [name, bare].into_iter().any(|text| fits(text) || tail(bare.find('/'), text) || tail(bare.rfind('/'), text))
}

/// As Go's `path.Match`: `*` is anything but a slash, `?` one such character, `[a-z]` one of these and `[^a-z]` none of
/// them, `\` the next one itself. Linear in what it can try (two pointers).
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and how much it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if let Some(taken) = one(&pattern[p..], text[t]) {
            (p, t) = (p + taken, t + 1);
        } else {
            match star {
                Some((at, taken)) if text[taken] != b'/' => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                _ => return false,
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// How much of a pattern stands for this one character; None if it stands for another.
fn one(pattern: &[u8], c: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => (c != b'/').then_some(1),
        [b'[', class @ ..] => class_of(class, c).map(|taken| taken + 1),
        [b'\\', literal, ..] => (*literal == c).then_some(2),
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

/// As [`one`], for what follows a `[`. A class without an end stands for nothing.
fn class_of(class: &[u8], c: u8) -> Option<usize> {
    let none_of = class.first() == Some(&b'^');
    let mut at = usize::from(none_of);
    let (begin, mut among) = (at, false);
    loop {
        let escaped = |at: usize| if class.get(at) == Some(&b'\\') { at + 1 } else { at };
        match class.get(at)? {
            b']' if at > begin => return (among != none_of && c != b'/').then_some(at + 1),
            _ => {
                at = escaped(at);
                let low = *class.get(at)?;
                let mut high = low;
                if class.get(at + 1) == Some(&b'-') {
                    at = escaped(at + 2);
                    high = *class.get(at)?;
                }
                among |= (low..=high).contains(&c);
                at += 1;
            }
        }
    }
}

/// By name where what is asked for is equal; each key is made once.
fn sort(all: &mut [ImageSummary], by: Sort) {
    let tag = |i: &ImageSummary| i.names.first().and_then(|n| n.rsplit_once(':')).map(|(_, tag)| tag.to_owned());
    all.sort_by(|a, b| a.names.cmp(&b.names));
    match by {
        Sort::Created => all.sort_by_cached_key(|image| Reverse(created(image))),
        Sort::Id => all.sort_by(|a, b| a.id.cmp(&b.id)),
        Sort::Repository => {}
        Sort::Size => all.sort_by_key(|image| image.size),
        Sort::Tag => all.sort_by_cached_key(tag),
    }
}

/// When it was made; when it came, if the image does not say.
pub(crate) fn created(image: &ImageSummary) -> u64 {
    image.created.as_deref().and_then(seconds_of).unwrap_or(image.added)
}

fn id(image: &ImageSummary, whole: bool) -> String {
    if whole { image.id.clone() } else { short(&image.id).to_owned() }
}

fn ids(all: &[ImageSummary], whole: bool) -> String {
    let mut told = BTreeSet::new();
    all.iter().map(|image| id(image, whole)).filter(|id| told.insert(id.clone())).map(|id| id + "\n").collect()
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

fn rows(image: &ImageSummary, base: &Value, whole: bool, now: u64) -> Vec<Row> {
    let since = ago(created(image), now);
    let row = |(repository, tag): (String, String)| {
        let mut fields = base.clone();
        let texts = [
            ("Repository", json!(repository)),
            ("Tag", json!(tag)),
            ("Id", json!(id(image, whole))),
            ("Digest", json!(image.digest)),
            ("History", json!(image.names.join(", "))),
            ("Created", json!(since)),
            ("CreatedSince", json!(since)),
            ("CreatedTime", json!(image.created)),
            ("Size", json!(size(image.size))),
            ("VirtualSize", json!(size(image.size))),
        ];
        if let Value::Object(fields) = &mut fields {
            fields.extend(texts.map(|(name, value)| (name.to_owned(), value)));
        }
        Row { document: Value::Null, fields }
    };
    names(image).into_iter().map(row).collect()
}

/// Field names as in `podman images --format json`.
fn document(image: &ImageSummary, containers: usize) -> Value {
    json!({
        "Id": hex(&image.id),
        // Neither is kept: an image does not know what it was made from, and layers are counted by `system df`.
        "ParentId": "",
        "SharedSize": 0,
        "Containers": containers,
        "Names": image.names,
        "RepoTags": image.names,
        "History": image.names,
        "RepoDigests": image.digests,
        "Digest": image.digest,
        "Dangling": image.names.is_empty(),
        "Created": created(image),
        "CreatedAt": image.created,
        "Size": image.size,
        "VirtualSize": image.size,
        "Labels": image.labels,
        "ReadOnly": image.read_only,
        "Platform": image.platform,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            labels: [("team".to_owned(), "red".to_owned())].into(),
            read_only: false,
        }
    }

    /// Every word means an image of that day, and `short` one of these.
    struct Fixed;

    impl Asked for Fixed {
        fn age_of(&self, _: &str) -> Result<u64, Failure> {
            Ok(90_000)
        }

        fn id_of(&self, name: &str) -> Result<Option<String>, Failure> {
            Ok((name == "short").then(|| image(&[], &[]).id))
        }

        fn containers(&self) -> BTreeMap<String, usize> {
            BTreeMap::from([(image(&[], &[]).id, 2)])
        }
    }

    fn fits(words: &[&str]) -> usize {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let all = vec![image(&["localhost:5000/team/app:1", "docker.io/library/b:latest"], &[]), image(&[], &[])];
        let fits = fits_filters(&words, 100_000, &Fixed).unwrap();
        all.into_iter().filter(fits).count()
    }

    #[test]
    fn filters_choose_as_podmans_do() {
        for (words, count) in [
            (&[][..], 2),
            (&["dangling=true"], 1),
            (&["dangling=false", "label=team"], 1),
            (&["label=team=red"], 2),
            (&["label=team=blue"], 0),
            (&["label!=team"], 0),
            (&["id=abab"], 2),
            (&["id=cd"], 0),
            (&["digest=sha256:cdcd"], 2),
            (&["before=x"], 2),
            (&["since=x"], 0),
            (&["until=1h"], 2),
            (&["until=24h"], 0),
            (&["reference=app"], 1),
            (&["reference=team/app:1"], 1),
            (&["reference=app:2"], 0),
            (&["reference=*p", "reference=b"], 1),
            (&["reference=localhost:5000/*/a??"], 1),
            (&["reference=localhost*"], 0),
            (&["reference=a[p]p"], 1),
            (&["reference=a[^p]p"], 0),
            (&["reference=short"], 2),
            (&["containers=true"], 2),
            (&["containers=false"], 0),
            (&["manifest=true"], 0),
            (&["manifest=false", "intermediate=false"], 2),
            (&["intermediate=true"], 0),
        ] {
            assert_eq!(fits(words), count, "{words:?}");
        }
    }

    #[test]
    fn one_row_a_name_and_one_without() {
        let all = [
            image(&["localhost:5000/a:1", "docker.io/library/b:latest"], &[]),
            image(&[], &["quay.io/c@sha256:1"]),
            image(&[], &[]),
        ];
        let rows: Vec<Row> = all.iter().flat_map(|i| rows(i, &document(i, 0), false, 3 * 86_400)).collect();
        let format = Format::parse(None, "{{.Repository}}\t{{.Tag}}\t{{.Id}}\t{{.CreatedSince}}\t{{.Size}}").unwrap();
        let want = "\
REPOSITORY           TAG         IMAGE ID      CREATED     SIZE
localhost:5000/a     1           abababababab  2 days ago  4.45 MB
docker.io/library/b  latest      abababababab  2 days ago  4.45 MB
quay.io/c            <none>      abababababab  2 days ago  4.45 MB
<none>               <none>      abababababab  2 days ago  4.45 MB
";
        assert_eq!(format.list(&rows, HEADINGS, Heading::Shown).unwrap(), want);
    }

    #[test]
    fn ids_are_told_once() {
        let all = [image(&["a:1"], &[]), image(&["b:1"], &[])];
        assert_eq!(ids(&all, false), "abababababab\n");
        assert_eq!(ids(&all, true).trim(), format!("sha256:{}", "ab".repeat(32)));
    }

    #[test]
    fn json_has_podmans_names() {
        let value = document(&image(&["a:1"], &[]), 3);
        assert_eq!((&value["Created"], &value["Names"][0]), (&json!(86_400), &json!("a:1")));
        assert_eq!((&value["Containers"], &value["ParentId"]), (&json!(3), &json!("")));
    }

    #[test]
    fn patterns_are_gos() {
        for (pattern, text, fits) in [
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]a]", "a", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[a", "a", false),
            ("[\\]]", "]", true),
            ("*[0-9]", "app1", true),
            ("a[^b]c", "a/c", false),
            ("[", "[", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic_or_hang(pattern in "[]a^*?\\\\\\[-]{0,12}", text in "[]a/^-]{0,12}") {
            glob(pattern.as_bytes(), text.as_bytes());
        }

        #[test]
        fn a_pattern_without_wildcards_means_itself(text in "[a-c/]{0,8}", other in "[a-c/]{0,8}") {
            prop_assert!(glob(text.as_bytes(), text.as_bytes()));
            prop_assert_eq!(glob(text.as_bytes(), other.as_bytes()), text == other);
        }

        #[test]
        fn stars_stand_for_what_has_no_slash(before in "[a-c]{0,4}", inside in "[a-c/]{0,6}", after in "[a-c]{0,4}") {
            let pattern = format!("{before}*{after}");
            let text = format!("{before}{inside}{after}");
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), !inside.contains('/'));
        }
    }
}
