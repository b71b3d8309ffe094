//! `rlrun commit`: what a container has become, as an image.

use super::{Listener, Stored, Workshop, tell};
use crate::containers;
use crate::files;
use crate::policies::may_leave;
use crate::record::Details;
use crate::request::RunRequest;
use crate::request::change::{Change, set_env, set_member};
use crate::request::env::PROXIES;
use rlrun_image::{Commit, Incoming};
use rlrun_spec::policy::Outward;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Map, Value, json};
use std::fs::File;

/// What is asked of `commit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitRequest {
    /// The container.
    pub container: String,
    /// What the image is to be called.
    pub name: Option<String>,
    /// `--change`.
    pub changes: Vec<Change>,
    /// `--author`.
    pub author: Option<String>,
    /// `--message`.
    pub message: Option<String>,
    /// `--squash`: one layer.
    pub squash: bool,
    /// `--include-volumes`: the container's volumes are to be the image's.
    pub include_volumes: bool,
    /// `--format docker`.
    pub docker: bool,
}

impl Workshop {
    /// `rlrun commit`.
    ///
    /// # Errors
    /// When the container cannot be read, or a policy refuses the image.
    pub fn commit(&self, request: &CommitRequest, progress: Listener<'_>) -> Result<Stored, Failure> {
        let usage = |why: &str| {
            Failure::new(Stage::Cli, Kind::Usage, "commit", "make an image of", request.container.as_str()).why(why)
        };
        if !request.docker && request.changes.iter().any(|c| matches!(c, Change::OnBuild(_))) {
            return Err(usage("ONBUILD has no place in an OCI image").hint("--format docker keeps it"));
        }
        let container = containers::find(&self.place, &request.container)?;
        self.place.has_room()?;
        let details =
            Details::read(&container.directory).map_err(|e| usage("its record cannot be read").why(e.to_string()))?;
        let ports: Vec<String> = container
            .summary
            .ports
            .iter()
            .map(|p| match p.protocol {
                rlrun_spec::container::Protocol::Tcp => format!("{}/tcp", p.container_port),
                rlrun_spec::container::Protocol::Udp => format!("{}/udp", p.container_port),
            })
            .collect();
        let volumes: Vec<&str> = container
            .summary
            .mounts
            .iter()
            .filter(|m| request.include_volumes && m.kind == "volume")
            .map(|m| m.destination.as_str())
            .collect();
        let change = |config: &mut Map<String, Value>| {
            of_container(&details.request, config);
            ports.iter().for_each(|port| set_member(config, "ExposedPorts", port, json!({})));
            volumes.iter().for_each(|path| set_member(config, "Volumes", path, json!({})));
            request.changes.iter().for_each(|change| change.apply(config));
        };
        let words = container.summary.command.join(" ");
        let what = Commit {
            base: container.summary.image.as_ref().map(|image| image.id.as_str()),
            squash: request.squash || container.summary.image.is_none(),
            name: request.name.as_deref(),
            change: &change,
            author: request.author.as_deref(),
            message: request.message.as_deref(),
            created_by: &words,
            docker: request.docker,
        };
        may_leave(&self.place, &container, (Outward::Commit, "/", request.name.as_deref().unwrap_or_default()))?;
        let policies = self.policies()?;
        let approve = |image: &Incoming<'_>| self.judge(&policies, image);
        let (layer, working) = files::layer(&self.place, &container, what.squash)?;
        let object = container.summary.name.as_str();
        let stored = self.store.commit(&mut File::from(layer), object, &what, &self.work(progress, &approve));
        // Why the layer ended early is known to whoever wrote it.
        working.finish()?;
        let stored = stored.map_err(|e| self.told(e))?;
        tell("commit", &stored);
        crate::journal::event(
            "container",
            "commit",
            &container.summary.id,
            object,
            json!({"image": stored.identity.id}),
        );
        Ok(stored)
    }
}

/// What the user asked of the container is asked of every container of the image, but for what belongs to this host.
fn of_container(request: &RunRequest, config: &mut Map<String, Value>) {
    for (name, value) in request.env.iter().filter(|(name, _)| !PROXIES.contains(&name.as_str())) {
        set_env(config, name, value);
    }
    match &request.entrypoint {
        Some(words) => {
            config.insert("Entrypoint".to_owned(), json!(words));
            config.insert("Cmd".to_owned(), json!(request.command));
        }
        None if !request.command.is_empty() => {
            config.insert("Cmd".to_owned(), json!(request.command));
        }
        None => {}
    }
    for (key, value) in [("User", &request.user), ("WorkingDir", &request.workdir)] {
        if let Some(value) = value {
            config.insert(key.to_owned(), json!(value));
        }
    }
    if let Some(signal) = request.stop_signal {
        config.insert("StopSignal".to_owned(), json!(signal.to_string()));
    }
    request.labels.iter().for_each(|(name, value)| set_member(config, "Labels", name, json!(value)));
}
