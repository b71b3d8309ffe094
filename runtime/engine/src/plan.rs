//! `rlrun plan`: what would be run, as JSON; nothing is run and nothing is left.

use crate::place::Place;
use crate::prepare::{Fetching, prepare};
use crate::request::RunRequest;
use crate::trace::Marks;
use rlrun_spec::{Failure, Kind, SealedPlan, Stage};
use serde_json::{Value, json};

/// Stands for the id that a run would draw, so that the same words always give the same plan.
const NO_ID: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Decides everything that `run` would decide and tells it.
///
/// # Errors
/// Where `run` would fail; an image that is not in the store is not fetched.
pub fn plan(place: &Place, request: &RunRequest) -> Result<Value, Failure> {
    let name = request.name.as_deref().unwrap_or("unnamed");
    let prepared = prepare(place, request, (NO_ID, name), Fetching::Forbidden, &mut Marks::default())?;
    for warning in &prepared.warnings {
        crate::warn(warning);
    }
    let facts = prepared.facts(place, request, &place.data.join("containers").join(NO_ID))?;
    let filters: Vec<usize> = facts.seccomp_filters.iter().map(Vec::len).collect();
    let files: Vec<Value> = facts.files.iter().map(|(p, c)| json!({"path": p, "contents": text(c)})).collect();
    let internal = |why: String| Failure::new(Stage::Cli, Kind::Internal, "plan", "print the plan", "").why(why);
    let rootfs = serde_json::to_value(&facts.rootfs).map_err(|e| internal(e.to_string()))?;
    let slirp = serde_json::to_value(&facts.slirp).map_err(|e| internal(e.to_string()))?;
    let sealed = SealedPlan::seal(&prepared.admitted, facts).map_err(|e| internal(e.to_string()))?;
    let mut value = serde_json::to_value(prepared.admitted.spec()).map_err(|e| internal(e.to_string()))?;
    rlrun_spec::container::sort_sets(&mut value["oci"]);
    if let Some(fields) = value.as_object_mut() {
        let verdicts = serde_json::to_value(prepared.admitted.answers()).map_err(|e| internal(e.to_string()))?;
        fields.insert("verdicts".to_owned(), verdicts);
        fields.insert(
            "launch".to_owned(),
            json!({
                "rootfs": rootfs,
                "slirp4netns": slirp,
                "files": files,
                "seccompFilterBytes": filters,
                "stopSignal": prepared.stop_signal,
                "remove": request.launching.remove,
                "planBytes": sealed.bytes().len(),
            }),
        );
    }
    Ok(value)
}

fn text(contents: &[u8]) -> String {
    String::from_utf8_lossy(contents).into_owned()
}
