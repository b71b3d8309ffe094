//! What the same rules cost without a sandbox: `native RULES.rego CASE.json ROUNDS` reads the rules and asks them about a
//! case in this process, and prints microseconds, least and median, for both: read and asked once, and asked again.

use regorus::{Engine, Value};
use rlrun_policy::fixtures::{Ask, Case};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [rules, case, rounds] = &words[..] else { return Err("RULES CASE ROUNDS".into()) };
    let (rules, rounds) = (std::fs::read_to_string(rules)?, rounds.parse::<usize>()?);
    let Ask::Create(container, caller) = Case::load(Path::new(case))?.ask else {
        return Err("a case of create".into());
    };
    let input = serde_json::json!({"hook": "create", "container": container, "caller": caller});
    let input = underscored(&input).to_string();
    let (mut fresh, mut again) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        let mut engine = Engine::new();
        let package = engine.add_policy("policy.rego".to_owned(), rules.clone())?;
        let rule = format!("{package}.deny");
        engine.set_input(Value::from_json_str(&input)?);
        let first = engine.eval_rule(rule.clone())?;
        fresh.push(start.elapsed());
        let start = Instant::now();
        engine.set_input(Value::from_json_str(&input)?);
        let second = engine.eval_rule(rule)?;
        again.push(start.elapsed());
        if first != second {
            return Err("two answers to the same question differ".into());
        }
    }
    println!("fresh {}\nagain {}", told(fresh), told(again));
    Ok(())
}

fn told(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |index: usize| times.get(index).copied().unwrap_or_default().as_micros();
    format!("{} {}", at(0), at(times.len() / 2))
}

fn underscored(json: &serde_json::Value) -> serde_json::Value {
    match json {
        serde_json::Value::Array(list) => list.iter().map(underscored).collect(),
        serde_json::Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.replace('-', "_"), underscored(value))).collect()
        }
        other => other.clone(),
    }
}
