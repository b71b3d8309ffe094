//! A further process in a running container, sealed: the container's own confinement with another command in it. Made
//! from the configuration that was admitted and the policies' word on the command, and from nothing else.

use crate::container::ContainerSpec;
use crate::plan::{Job, Launch, LaunchFacts, SealError, VERSION};
use crate::plan_from_oci;
use crate::policy::{ExecRequest, Permit};
use oci_spec::runtime::{LinuxCapabilities, User};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the supervisor of a command that joins a container is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// [`VERSION`].
    pub version: u32,
    /// What events call it: 64 hex digits.
    pub session: String,
    /// The container as it was admitted, with the command in the place of its own.
    pub launch: Launch,
    /// Nobody waits for it: `-d`.
    pub detached: bool,
    /// Keys that leave it alone; none: nothing does.
    pub detach_keys: Vec<u8>,
}

/// What differs from the container's own process beside what policies are told ([`ExecRequest`]).
#[derive(Clone, Debug)]
pub struct Joining {
    /// What events call it.
    pub session: String,
    /// Its user; everything else of the confinement is the container's.
    pub user: User,
    /// Its capabilities. More than the container may have only with `--privileged`, which policies saw.
    pub capabilities: LinuxCapabilities,
    /// Working directory inside.
    pub cwd: PathBuf,
    /// Standard input is relayed.
    pub interactive: bool,
    /// Descriptors of the caller that it gets beside its streams, from 3 on.
    pub preserved: u32,
    /// Nobody waits for it.
    pub detached: bool,
    /// Keys that leave it alone.
    pub detach_keys: Vec<u8>,
}

/// The serialised plan of a command that joins a container.
#[derive(Debug)]
pub struct SealedExec {
    bytes: Vec<u8>,
}

impl SealedExec {
    /// The only way to a `SealedExec`: `request` is what the policies of `permit` were asked about `container`.
    ///
    /// # Errors
    /// [`SealError::Unsupported`] when it would be less confined than the container.
    pub fn seal(
        _permit: &Permit,
        request: &ExecRequest,
        container: &ContainerSpec,
        joining: Joining,
        facts: LaunchFacts,
    ) -> Result<Self, SealError> {
        let refuse = |field: &str, why: &str| SealError::Unsupported { field: field.to_owned(), why: why.to_owned() };
        let mut parts = container.parts().clone();
        let Some(own) = parts.oci.process().clone() else { return Err(refuse("/process", "is missing")) };
        let mut process = own;
        process
            .set_args(Some(request.args.clone()))
            .set_env(Some(request.env.clone()))
            .set_terminal(Some(request.tty))
            .set_user(joining.user)
            .set_cwd(joining.cwd)
            .set_capabilities(Some(joining.capabilities));
        parts.oci.set_process(Some(process));
        // They are there already, and nobody has looked for their layers again.
        let mounts = parts.oci.mounts().clone().unwrap_or_default();
        parts.oci.set_mounts(Some(mounts.into_iter().filter(|m| !plan_from_oci::is_layered(m)).collect()));
        parts.interactive = joining.interactive;
        let joined = ContainerSpec::new(parts).map_err(|e| refuse("/process", &e.to_string()))?;
        let mut launch = plan_from_oci::launch(&joined, facts)?;
        let bounding = plan_from_oci::bounding(container);
        if !request.privileged && launch.process.capabilities.bounding & !bounding != 0 {
            return Err(refuse("/process/capabilities", "are more than the container's"));
        }
        launch.process.preserved = joining.preserved;
        let job = Job::Exec(Box::new(Exec {
            version: VERSION,
            session: joining.session,
            launch,
            detached: joining.detached,
            detach_keys: joining.detach_keys,
        }));
        let bytes = postcard::to_stdvec(&job).map_err(|e| SealError::Encode(e.to_string()))?;
        Ok(SealedExec { bytes })
    }

    /// What goes into the memfd.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
