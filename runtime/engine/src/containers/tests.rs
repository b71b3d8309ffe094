use super::*;
use crate::place::tests::place;
use crate::record::file::{self, tests::summary};
use crate::record::{RECORD, Record, Remains};

fn make(place: &Place, id: &str, name: &str) -> Record {
    let record = record::create(place, id, name, Remains::Record).unwrap();
    record.write(RECORD, &file::render(&summary(id, name, None), &()).unwrap()).unwrap();
    record
}

fn say(record: &Record, state: &State) {
    file::write_aside(&record.directory, STATE, state.render().as_bytes()).unwrap();
}

#[test]
fn what_is_shown_is_what_is() {
    let (_dir, place) = place();
    let mut record = make(&place, "aa", "web");
    let status = || find(&place, "web").unwrap().status;
    assert_eq!(status(), Status::Created);
    let running = State { pid: 7, started: 1, ..State::default() };
    say(&record, &running);
    assert_eq!(status(), Status::Running);
    say(&record, &State { paused: true, ..running.clone() });
    assert_eq!(status(), Status::Paused);
    say(&record, &running);
    drop(record.hand_over().unwrap());
    let dead = find(&place, "web").unwrap();
    assert_eq!((dead.status, dead.state.exit_code, dead.state.pid), (Status::Exited, 137, 0));
    say(&record, &State { finished: 2, exit_code: 3, ..running });
    let ended = find(&place, "web").unwrap();
    assert_eq!((ended.status, ended.state.exit_code), (Status::Exited, 3));
}

#[test]
fn names_come_before_ids_and_ids_may_be_short() {
    let (_dir, place) = place();
    let _records = [make(&place, "abc1", "x"), make(&place, "abd2", "abc1"), make(&place, "bb", "y")];
    let id = |word: &str| find(&place, word).map(|c| c.summary.id);
    assert_eq!(id("abc1").unwrap(), "abd2");
    assert_eq!(id("abc").unwrap(), "abc1");
    assert_eq!(id("b").unwrap(), "bb");
    assert!(id("ab").unwrap_err().to_string().contains("more than one"));
    for nobody in ["", ".", "..", "../containers", "zz", "bb/"] {
        assert!(id(nobody).unwrap_err().to_string().contains("no such container"), "{nobody}");
    }
}

#[test]
fn a_directory_that_is_no_container_is_not_listed() {
    let (_dir, place) = place();
    let _record = make(&place, "aa", "web");
    fs::create_dir(place.data.join("containers/bb")).unwrap();
    fs::create_dir(place.data.join("containers/cc")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.data.join("containers/cc/record")).unwrap();
    let names: Vec<String> = list(&place).unwrap().into_iter().map(|c| c.summary.name).collect();
    assert_eq!(names, ["web"]);
    assert!(find(&place, "bb").is_err());
}
