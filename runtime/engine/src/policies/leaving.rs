//! Asked before anything of a container leaves it.

use super::{Choice, heard, load};
use crate::containers::Container;
use crate::host::account;
use crate::images::caller_as;
use crate::place::Place;
use crate::record::{Details, failed};
use rlrun_admission::Hook;
use rlrun_spec::Failure;
use rlrun_spec::policy::{CopyOut, Outward, Subject};

/// Asks the policies that the container was started under.
///
/// # Errors
/// When one of them refuses or cannot be asked.
pub(crate) fn may_leave(
    place: &Place,
    container: &Container,
    (operation, source, destination): (Outward, &str, &str),
) -> Result<(), Failure> {
    let unreadable = |error| failed("copy-files", "read the record of", &container.directory, &error);
    let details = Details::read(&container.directory).map_err(unreadable)?;
    let policies = load(place, Choice::of(&details.request.launching))?;
    if !policies.asks(Hook::CopyOut) {
        return Ok(());
    }
    let subject = Subject {
        id: container.summary.id.clone(),
        name: container.summary.name.clone(),
        image: container.summary.image.clone(),
    };
    let request = CopyOut { operation, source: source.to_owned(), destination: destination.to_owned() };
    let uid = rustix::process::geteuid().as_raw();
    let caller = caller_as(uid, rustix::process::getegid().as_raw(), account::of(uid).name);
    heard(policies.on_copy_out(&request, &subject, &caller), &container.summary.name).map(drop)
}
