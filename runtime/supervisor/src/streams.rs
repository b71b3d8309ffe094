//! The caller's streams, in the foreground: where the payload's output goes, and where its input comes from.

use crate::log::Stream;
use crate::output::{Departure, Output};
use crate::relay::{Relay, Sink};
use crate::run::failure;
use rlrun_sandbox::Streams;
use rlrun_spec::Failure;
use rlrun_spec::plan::Launch;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    fd.try_clone_to_owned().map_err(|e| failure("relay", "duplicate", "a stream").why(e.to_string()))
}

/// The payload's output, watched by the caller in the foreground. With a log the payload outlives its reader, as it
/// does in the background.
pub(crate) fn outputs(launch: &Launch, streams: &Streams) -> Result<Vec<Output>, Failure> {
    let life = &launch.facts.life;
    let departure = if life.log == rlrun_spec::life::Log::None { Departure::Ends } else { Departure::Ignored };
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let all = [
        (&streams.terminal, Stream::Stdout, stdout.as_fd()),
        (&streams.stdout, Stream::Stdout, stdout.as_fd()),
        (&streams.stderr, Stream::Stderr, stderr.as_fd()),
    ];
    let mut outputs = Vec::new();
    for (source, stream, sink) in all {
        let Some(source) = source else { continue };
        let mut output = Output::new(duplicate(source.as_fd())?, stream);
        if !life.detached {
            output.watch(duplicate(sink)?, departure);
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// The caller's standard input, in the foreground.
pub(crate) fn inputs(launch: &Launch, streams: &Streams) -> Result<Vec<Relay>, Failure> {
    if launch.facts.life.detached {
        return Ok(Vec::new());
    }
    let stdin = std::io::stdin();
    let terminal = streams.terminal.as_ref().filter(|_| launch.process.interactive);
    let ends = [(terminal, Sink::Terminal), (streams.stdin.as_ref(), Sink::Pipe)];
    let ends = ends.into_iter().filter_map(|(fd, kind)| Some((fd?, kind)));
    ends.map(|(fd, kind)| Relay::input(duplicate(stdin.as_fd())?, duplicate(fd.as_fd())?, kind)).collect()
}
