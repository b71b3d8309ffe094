//! `rlrun update`: other limits for a container that is there, at once where it runs and at every later start.

use crate::cgroup;
use crate::config::controls::Controls;
use crate::config::limits;
use crate::containers::Container;
use crate::host::probe;
use crate::images::caller;
use crate::life::is_looked_after;
use crate::place::Place;
use crate::policies::{self, Choice};
use crate::record::file::{self, Details, RECORD};
use crate::record::lock;
use crate::request::limits::{Cgroups, LimitRequest};
use crate::supervisor::Supervisor;
use rlrun_spec::cgroup::Held;
use rlrun_spec::policy::{Admitted, Answer};
use rlrun_spec::protocol::Request;
use rlrun_spec::{ContainerSpec, Control, Failure, HostFacts, Kind, Stage, limits as spec_limits};
use serde::Serialize;
use serde_json::json;

/// [`Details`], borrowed.
#[derive(Serialize)]
struct Updated<'a> {
    request: &'a crate::request::RunRequest,
    spec: &'a ContainerSpec,
    verdicts: &'a [Answer],
}

/// Changes the limits of a container. The policies are asked about the container as it would be; what they tighten is
/// tightened. Returns what the user is to be told.
///
/// # Errors
/// When the limits do not go together, a policy objects, or the container's supervisor cannot be reached; nothing is
/// changed then.
pub fn update(
    place: &Place,
    container: &Container,
    change: &dyn Fn(&mut LimitRequest) -> Result<(), Failure>,
) -> Result<Vec<String>, Failure> {
    let name = &container.summary.name;
    let failed = |why: String| {
        Failure::new(Stage::Cli, Kind::Runtime, "update", "change the limits of the container", name).why(why)
    };
    let directory = &container.directory;
    // No rename or start in between.
    let _change = lock::change(directory, lock::Patience::Endless).map_err(|e| failed(e.to_string()))?;
    let container = &Container::read(directory.clone()).unwrap_or_else(|| container.clone());
    let mut details = Details::read(&container.directory).map_err(|e| failed(e.to_string()))?;
    let before = details.request.limits.clone();
    change(&mut details.request.limits)?;
    limits::check(&details.request.limits, details.request.init)?;
    let mut host = probe(&place.data);
    if details.request.limits.cgroups == Cgroups::Disabled {
        host.cgroup.keep(|_| false);
    }
    // Also one that waits for its restart, which is its supervisor's, with the plan as it was sealed.
    let running = is_looked_after(container);
    let membership = if running { cgroup::of(&container.directory) } else { None };
    if running {
        // A running container stays where it was started.
        host.cgroup.keep(|controller| membership.as_ref().is_some_and(|m| m.held.uses(controller)));
    }
    let admitted = admit(place, &mut details, &host)?;
    let mut told = admitted.1;
    let spec = admitted.0.spec();
    if running && let Some(supervisor) = Supervisor::of(container)? {
        let mut limits = launch_limits(spec).map_err(failed)?;
        let mut held = Held::default();
        if let Some(membership) = &membership {
            let resources = spec.parts().oci.linux().as_ref().and_then(|l| l.resources().clone()).unwrap_or_default();
            held = cgroup::update(membership, &resources, &host.cgroup)?;
            held.take_from(&mut limits);
        }
        supervisor.ask_mapper(Request::Limit(Box::new(limits)))?;
        told.extend(later(&before, &details.request.limits, held));
    }
    let updated = Updated { request: &details.request, spec, verdicts: admitted.0.answers() };
    let text = file::render(&container.summary, &updated).map_err(|e| failed(e.to_string()))?;
    file::write_aside(&container.directory, RECORD, &text).map_err(|e| failed(e.to_string()))?;
    crate::journal::event("container", "update", &container.summary.id, name, json!({}));
    Ok(told)
}

/// The configuration with the new limits, past the policies; and what does not hold as asked.
fn admit(place: &Place, details: &mut Details, host: &HostFacts) -> Result<(Admitted, Vec<String>), Failure> {
    let mut controls = Controls::default();
    let bounding = bounding(details);
    limits::decide(&mut controls, &details.request.limits, host, (bounding, details.request.launching.remove))?;
    if let Some(mut linux) = details.spec.oci.linux().clone() {
        linux.set_resources(Some(limits::resources(&details.request.limits)));
        details.spec.oci.set_linux(Some(linux));
    }
    replace(&mut details.spec.controls, controls.all);
    details.spec.imposable = limits::imposable(&details.request.limits, host, bounding);
    let shown = details.spec.controls.clone();
    let name = details.spec.name.clone();
    let mut spec = ContainerSpec::new(details.spec.clone()).map_err(|invalid| {
        Failure::new(Stage::Cli, Kind::Internal, "update", "change the limits of the container", &*name)
            .why(invalid.to_string())
    })?;
    let policies = policies::load(place, Choice::of(&details.request.launching))?;
    let refused = |denied: Box<rlrun_spec::policy::Denied>| {
        crate::journal::denied(&denied);
        denied.failure(&name)
    };
    let asking = caller(host);
    crate::journal::asked(place, &mut spec, &asking);
    let admitted = policies.evaluate(spec, &asking).map_err(refused)?;
    crate::journal::admitted(&admitted);
    controls.warnings.extend(limits::check_imposed(
        details.request.limits.level,
        &shown,
        &admitted.spec().parts().controls,
    )?);
    Ok((admitted, controls.warnings))
}

/// The bounding set as a mask.
fn bounding(details: &Details) -> u64 {
    let sets = details.spec.oci.process().as_ref().and_then(|p| p.capabilities().as_ref());
    let bounding = sets.and_then(|sets| sets.bounding().as_ref()).into_iter().flatten();
    bounding.fold(0, |mask, capability| mask | 1 << crate::request::capability::number(*capability))
}

/// New controls for old ones of the same name. Limits that were lifted go.
fn replace(all: &mut Vec<Control>, new: Vec<Control>) {
    all.retain(|old| !limits::NAMES.contains(&old.name.as_str()) && !new.iter().any(|n| n.name == old.name));
    all.extend(new);
    all.sort_by(|a, b| a.name.cmp(&b.name));
}

fn launch_limits(spec: &ContainerSpec) -> Result<spec_limits::Limits, String> {
    let resources = spec.parts().oci.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let Some(resources) = resources else { return Ok(spec_limits::Limits::default()) };
    // Which processes count together was decided when the container was started.
    spec_limits::from_resources(resources, 0).map_err(|(field, why)| format!("{field}: {why}"))
}

/// What holds for a running container only when it is started again.
fn later(before: &LimitRequest, after: &LimitRequest, held: Held) -> Vec<String> {
    let lighter = after.cpu_shares.unwrap_or(1024) > before.cpu_shares.unwrap_or(1024);
    let more_memory = match (before.memory, after.memory) {
        (Some(before), Some(after)) => after > before,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let all = [
        (before.pids != after.pids && !held.pids, "--pids-limit: the kernel counts what was set at the start"),
        (lighter && !held.weight, "--cpu-shares: going back up needs privilege"),
        (
            more_memory && !held.memory,
            "--memory: each process keeps the wall that it was started with, at least twice the old limit",
        ),
    ];
    let told = all.into_iter().filter(|(is, _)| *is);
    told.map(|(_, why)| format!("holds from the next start of the container on: {why}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::limits::Pids;

    #[test]
    fn what_a_running_container_cannot_be_given_is_told() {
        let limits = |pids, memory| LimitRequest { pids: Some(Pids::AtMost(pids)), memory, ..LimitRequest::default() };
        assert!(later(&limits(5, Some(9)), &limits(5, Some(8)), Held::default()).is_empty());
        assert!(later(&limits(5, None), &limits(6, None), Held::default())[0].contains("--pids-limit"));
        assert!(later(&limits(5, Some(8)), &limits(5, Some(9)), Held::default())[0].contains("--memory"));
    }
}
