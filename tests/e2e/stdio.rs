//! Standard streams: separate, exact, and ending when they should.

use rlrun_tests::{Exit, case, stream_compare, stream_digest, stream_emit};
use std::io::{Read, Write};
use std::process::Stdio;

/// More than 32 bits of a signed length, more than any buffer.
const MUCH: u64 = (1 << 30) + 12345;

#[test]
fn output_and_errors_are_separate() {
    let case = case!(Userns);
    let out = case.in_base(["sh", "-c", "echo out; echo err >&2"]);
    out.ok().prints("out");
    assert_eq!(out.err(), "err\n");
}

#[test]
fn gigabytes_arrive_exactly_on_both_streams_at_once() {
    let case = case!(Userns);
    let (mut out, out_writer) = std::io::pipe().unwrap();
    let (mut err, err_writer) = std::io::pipe().unwrap();
    let bytes = MUCH.to_string();
    let running = case.base(&[], ["probe", "emit-both", &bytes]).within(300).spawn_with(
        Stdio::null(),
        out_writer.into(),
        err_writer.into(),
    );
    let errors = std::thread::spawn(move || stream_compare(&mut err, 2));
    assert_eq!(stream_compare(&mut out, 1), Ok(MUCH));
    assert_eq!(errors.join().unwrap(), Ok(MUCH));
    running.wait();
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_a_reader_that_went_away_is_none() {
    let case = case!(Userns);
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let lost = |options: &[&str], script: &str, code| {
        let (mut errors, writer) = std::io::pipe().unwrap();
        let running = case.base(options, ["sh", "-c", script]).spawn_with(Stdio::null(), full(), writer.into());
        let mut told = String::new();
        errors.read_to_string(&mut told).unwrap();
        assert_eq!(running.wait(), Exit::Code(code));
        assert!(told.contains("standard output: No space left on device"), "{told}");
        assert_eq!(told.matches("hint:").count(), 1, "{told}");
    };
    lost(&[], "echo lost", 126);
    lost(&[], "echo lost; exit 3", 3);
    // It is in the log, and still not where it was wanted.
    lost(&["--log-driver", "k8s-file"], "echo lost", 126);
    // There is nowhere to tell it, but the exit code.
    let running = case.base(&[], ["sh", "-c", "echo lost >&2"]).spawn_with(Stdio::null(), Stdio::null(), full());
    assert_eq!(running.wait(), Exit::Code(126));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (mut errors, told) = std::io::pipe().unwrap();
    let running =
        case.base(&[], ["sh", "-c", "echo unread; exit 0"]).spawn_with(Stdio::null(), writer.into(), told.into());
    let mut told = String::new();
    errors.read_to_string(&mut told).unwrap();
    assert_eq!(running.wait(), Exit::Code(0));
    assert_eq!(told, "");
}

#[test]
fn a_slow_reader_loses_nothing() {
    let case = case!(Userns);
    let (mut out, writer) = std::io::pipe().unwrap();
    let running =
        case.base(&[], ["probe", "emit", "1", "300000"]).spawn_with(Stdio::null(), writer.into(), Stdio::null());
    // Nothing is read until the payload can only have finished or be blocked on a full pipe.
    let mut first = [0; 1];
    out.read_exact(&mut first).unwrap();
    let mut all = first.to_vec();
    out.read_to_end(&mut all).unwrap();
    assert_eq!(stream_compare(&mut all.as_slice(), 1), Ok(300_000));
    running.wait();
}

#[test]
fn without_i_standard_input_is_empty() {
    let case = case!(Userns);
    case.base(&[], ["probe", "digest-stdin"]).stdin("not for the container").run().ok().prints(&stream_digest(b""));
}

#[test]
fn with_i_standard_input_arrives_and_ends() {
    let case = case!(Userns);
    let mut input = Vec::new();
    stream_emit(&mut input, 7, 3_000_000).unwrap();
    let expected = stream_digest(&input);
    case.base(&["-i"], ["probe", "digest-stdin"]).stdin(input).run().ok().prints(&expected);
}

#[test]
fn input_can_end_while_output_goes_on() {
    let case = case!(Userns);
    let mut container = case.base(&["-i"], ["sh", "-c", "cat; echo ended; probe emit 1 100000 >&2; echo done"]).spawn();
    let mut stdin = container.stdin.take().unwrap();
    stdin.write_all(b"first\n").unwrap();
    container.wait_for("first");
    drop(stdin);
    container.wait_for("ended");
    let out = container.finish();
    out.ok().prints("first\nended\ndone");
    assert_eq!(stream_compare(&mut out.stderr.as_slice(), 1), Ok(100_000));
}

#[test]
fn a_payload_that_never_reads_ends_all_the_same() {
    let case = case!(Userns);
    let container = case.base(&["-i"], ["echo", "done"]).spawn();
    // Standard input stays open on this side.
    container.wait_for("done");
    container.finish().ok();
}

#[test]
fn a_reader_that_goes_away_stops_the_payload() {
    let case = case!(Userns);
    let (reader, writer) = std::io::pipe().unwrap();
    let running = case.base(&[], ["sh", "-c", "yes"]).spawn_with(Stdio::null(), writer.into(), Stdio::null());
    drop(reader);
    // As for any command in a pipeline: it does not run on for ever.
    running.wait();
}

#[test]
fn closed_standard_streams_are_no_reason_to_fail() {
    let case = case!(Userns);
    let rlrun = case.program();
    let script = format!(
        "{} run --rm --network none {} sh -c 'ls -l /proc/self/fd >/tmp/x; exit 7' <&- >&- 2>&-",
        rlrun.display(),
        rlrun_tests::BASE
    );
    case.invoke("/bin/sh".as_ref()).args(["-c", &script]).run().code(7);
}

#[test]
fn output_of_processes_that_outlive_the_payload_ends_with_it() {
    let case = case!(Userns);
    // The background process holds standard output open; its death with the container must close it.
    case.in_base(["sh", "-c", "sleep 1000 & echo done"]).ok().prints("done");
}
