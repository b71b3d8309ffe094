//! `rlrun plan`: what would be run, as JSON; nothing is run and nothing is left.

use serde_json::Value;

/// Puts the sets of a configuration, which come in any order, into one order, so that two plans can be compared.
pub fn sort_sets(value: &mut Value) {
    let Some(sets) = value.pointer_mut("/oci/process/capabilities").and_then(Value::as_object_mut) else { return };
    for set in sets.values_mut().filter_map(Value::as_array_mut) {
        set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
}
