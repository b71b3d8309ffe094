//! From the admitted OCI configuration to the decided launch: every field is taken over or refused, none ignored.

use crate::container::ContainerSpec;
use crate::plan::{Launch, LaunchFacts, SealError};

pub(crate) fn launch(spec: &ContainerSpec, _facts: LaunchFacts) -> Result<Launch, SealError> {
    let _ = spec;
    Err(SealError::Unsupported { field: String::new(), why: "not yet".to_owned() })
}
