//! What is left of a container when it has ended: its record, or nothing.

use crate::book::Book;
use crate::control::{ACCOMPANYING, Control};
use crate::run::{Watch, failure};
use rlrun_limits::cgroup;
use rlrun_spec::Failure;
use rlrun_spec::plan::Launch;
use rlrun_spec::supervision::Reply;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Removes the record of a container that is to leave none, or writes how it ended; and says that this one needs
/// nobody any more.
pub(crate) fn end(watch: &mut Watch<'_>, code: &Result<u8, Failure>) -> Result<(), Failure> {
    let facts = &watch.launch.facts;
    let exit_code = code.as_ref().map_or_else(|f| f.kind.exit_code(), |code| *code);
    if watch.started && !watch.mourned {
        watch.book.tell_end(exit_code);
    }
    let removed = (facts.remove && !watch.spared) || (!watch.started && facts.remove_unstarted);
    let written = match removed {
        true => leave_cgroups(watch.launch).and_then(|()| forget(watch.launch, &watch.book)),
        // How it ended is written whatever becomes of the rest, which the next command finds by the link.
        false => watch
            .book
            .ended(exit_code, code.as_ref().err().map(ToString::to_string).unwrap_or_default())
            .and_then(|()| watch.control.as_ref().map_or(Ok(()), Control::close))
            .and_then(|()| leave_cgroups(watch.launch))
            .and_then(|()| gone(fs::remove_file(&facts.live_link), &facts.live_link)),
    };
    if let Err(failure) = code {
        watch.reply(ACCOMPANYING, &Reply::Failed(Box::new(failure.clone())));
    }
    watch.announce(&Reply::Ended(exit_code));
    written
}

fn leave_cgroups(launch: &Launch) -> Result<(), Failure> {
    let Some(membership) = &launch.facts.cgroup else { return Ok(()) };
    cgroup::remove(&membership.directories)?;
    let file = launch.facts.container_dir.join(rlrun_spec::cgroup::FILE);
    gone(fs::remove_file(&file), &file)
}

fn forget(launch: &Launch, book: &Book) -> Result<(), Failure> {
    let facts = &launch.facts;
    // The mapper has emptied it; what is left if it was killed belongs to us or is found by the next command.
    let emptied = rlrun_sandbox::remove_contents(&facts.container_dir);
    emptied.and_then(|()| gone(fs::remove_dir(&facts.container_dir), &facts.container_dir))?;
    book.tell("remove");
    // Without its files its name was free, and may be another's by now.
    if fs::read_link(&book.name_link).is_ok_and(|target| target.file_name() == facts.container_dir.file_name()) {
        gone(fs::remove_file(&book.name_link), &book.name_link)?;
    }
    gone(fs::remove_file(&facts.live_link), &facts.live_link)
}

fn gone(result: std::io::Result<()>, path: &Path) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failure("forget", "remove", &path.display().to_string()).why(e.to_string())),
    }
}
