//! The tables of what is checked by which number, held against the policies' codes and their cases.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The codes that a policy says it has, and those that some case of it denies.
fn codes(policy: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let directory = policies().join(policy);
    let said = json(&directory.join("meta.json"))["codes"].as_object().unwrap().keys().cloned().collect();
    let cases = fs::read_dir(directory.join("fixtures")).unwrap().map(|entry| json(&entry.unwrap().path()));
    let denied = cases.filter(|case| case["expect"]["decision"] == "deny").flat_map(|case| {
        let codes = case["expect"]["codes"].as_array().cloned().unwrap_or_default();
        codes.into_iter().map(|code| code.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    });
    (said, denied.collect())
}

/// The rows of the table that begins with this heading.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(policies().join("CHECKLISTS.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn section_5_of_the_cis_benchmark_is_there_by_number() {
    let numbers: Vec<String> = (1..=32).map(|n| format!("5.{n}")).collect();
    let rows = table("CIS");
    assert_eq!(rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), numbers);
    let (said, denied) = codes("cis");
    for row in &rows {
        let code = format!("CIS-{}", row[0]);
        if row[2].starts_with("rlrun has no") {
            assert!(!said.contains(&code), "{code}");
        } else {
            assert!(said.contains(&code) && denied.contains(&code), "{code}");
        }
    }
}

#[test]
fn owasps_rules_are_there_by_number() {
    let rows = table("OWASP");
    assert_eq!(
        rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>(),
        (0..=13).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    let (said, denied) = codes("guardrails");
    let named: BTreeSet<String> = rows.iter().flat_map(|row| row[2].split('`')).map(str::to_owned).collect();
    for code in &said {
        assert!(named.contains(code) && denied.contains(code), "{code}");
    }
    let about_images = codes("image-hygiene").0;
    for code in named.iter().filter(|word| ["OWASP-", "NET", "HYG"].iter().any(|family| word.starts_with(family))) {
        assert!(said.contains(code) || about_images.contains(code), "{code}");
    }
}

#[test]
fn every_finding_has_a_case_and_every_setting_a_description() {
    for entry in fs::read_dir(policies()).unwrap() {
        let directory = entry.unwrap().path();
        let meta = directory.join("meta.json");
        if !meta.exists() {
            continue;
        }
        let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
        let meta = json(&meta);
        assert!(meta["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
        // What a text finds is the text's own.
        let codes = if ["cel", "javascript", "rego"].contains(&name.as_str()) { &Value::Null } else { &meta["codes"] };
        for code in codes.as_object().into_iter().flat_map(serde_json::Map::keys) {
            let cases = fs::read_dir(directory.join("fixtures")).unwrap().map(|entry| json(&entry.unwrap().path()));
            let found =
                |case: &Value| case["expect"]["codes"].as_array().is_some_and(|codes| codes.iter().any(|c| c == code));
            assert!(cases.into_iter().any(|case| found(&case)), "{name}: no case finds {code}");
        }
        if directory.join("settings.schema.json").exists() {
            let schema = json(&directory.join("settings.schema.json"));
            for (setting, about) in schema["properties"].as_object().into_iter().flatten() {
                assert!(about["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}: {setting}");
            }
        }
    }
}
