use super::sweep::{Orphan, orphaned};
use super::*;
use crate::place::tests::place;

fn nothing_foreign(_: &Path) -> Result<(), Failure> {
    panic!("all files are ours")
}

fn is_empty(place: &Place) -> bool {
    ["containers", "names", "live"].iter().all(|d| fs::read_dir(place.data.join(d)).unwrap().next().is_none())
}

#[test]
fn a_name_is_claimed_once_and_free_again() {
    let (_dir, place) = place();
    let first = create(&place, "aa", "web", Remains::Nothing).unwrap();
    let error = create(&place, "bb", "web", Remains::Nothing).unwrap_err();
    assert!(error.to_string().contains("in use by container aa"), "{error}");
    assert!(first.directory.join("upper").is_dir(), "the loser takes back only its own");
    drop(first);
    assert!(is_empty(&place));
    drop(create(&place, "cc", "web", Remains::Nothing).unwrap());
}

#[test]
fn a_living_container_is_not_swept() {
    let (_dir, place) = place();
    let record = create(&place, "aa", "web", Remains::Nothing).unwrap();
    sweep(&place, Reach::All, &mut nothing_foreign).unwrap();
    assert!(record.directory.is_dir());
}

#[test]
fn a_killed_container_leaves_nothing_or_its_record() {
    let (_dir, place) = place();
    let mut gone = create(&place, "aa", "gone", Remains::Nothing).unwrap();
    let mut kept = create(&place, "bb", "kept", Remains::Record).unwrap();
    kept.write(RECORD, &file::render(&file::tests::summary("bb", "kept", None), &()).unwrap()).unwrap();
    drop((gone.hand_over().unwrap(), kept.hand_over().unwrap()));
    sweep(&place, Reach::All, &mut nothing_foreign).unwrap();
    assert!(!gone.directory.exists() && !gone.live_link.is_symlink() && !gone.name_link.is_symlink());
    assert!(kept.directory.is_dir() && !kept.live_link.is_symlink() && kept.name_link.exists());
    drop(create(&place, "cc", "gone", Remains::Nothing).unwrap());
    assert!(create(&place, "dd", "kept", Remains::Nothing).is_err());
}

#[test]
fn a_removal_after_one_that_took_the_record_takes_the_name() {
    let (_dir, place) = place();
    let mut record = create(&place, "aa", "web", Remains::Record).unwrap();
    drop(record.hand_over().unwrap());
    remove(&place, (&record.directory, "aa"), OwnVolumes::Keep, &mut nothing_foreign).unwrap();
    assert!(!record.directory.exists() && !record.live_link.is_symlink() && !record.name_link.is_symlink());
}

#[test]
fn a_command_killed_while_it_writes_the_record_leaves_nothing() {
    let (_dir, place) = place();
    let mut record = create(&place, "aa", "web", Remains::Record).unwrap();
    std::fs::create_dir(record.directory.join("record.new")).unwrap();
    let text = file::render(&file::tests::summary("aa", "web", None), &()).unwrap();
    record.write(RECORD, &text).unwrap_err();
    drop(record.hand_over().unwrap());
    sweep(&place, Reach::All, &mut nothing_foreign).unwrap();
    assert!(!record.directory.exists() && !record.live_link.is_symlink() && !record.name_link.is_symlink());
}

#[test]
fn nobody_starts_a_killed_container_while_it_is_swept() {
    let (_dir, place) = place();
    let mut kept = create(&place, "bb", "kept", Remains::Record).unwrap();
    kept.write(RECORD, &file::render(&file::tests::summary("bb", "kept", None), &()).unwrap()).unwrap();
    drop(kept.hand_over().unwrap());
    let swept = orphaned(&kept.directory);
    assert!(matches!(swept, Some(Orphan::Resting(_))));
    assert!(Record::reopen(&place, &kept.directory, "kept").is_err());
    drop(swept);
    Record::reopen(&place, &kept.directory, "kept").unwrap().rest().unwrap();
}

#[test]
fn a_removal_that_was_killed_is_finished_by_the_next_command() {
    let (_dir, place) = place();
    let mut record = create(&place, "aa", "web", Remains::Record).unwrap();
    record.write(RECORD, &file::render(&file::tests::summary("aa", "web", None), &()).unwrap()).unwrap();
    drop(record.hand_over().unwrap());
    condemn(&record.directory, &record.live_link).unwrap();
    sweep(&place, Reach::All, &mut nothing_foreign).unwrap();
    assert!(!record.directory.exists() && !record.live_link.is_symlink());
}

#[test]
fn a_removal_or_a_birth_that_was_killed_at_any_point_leaves_nothing() {
    let (_dir, place) = place();
    for left in ["lock", "nothing", "no directory"] {
        let mut record = create(&place, "aa", "web", Remains::Record).unwrap();
        drop(record.hand_over().unwrap());
        rlrun_sandbox::remove_contents(&record.directory).unwrap();
        match left {
            "lock" => drop(fs::File::create(record.directory.join("lock")).unwrap()),
            "nothing" => {}
            _ => fs::remove_dir(&record.directory).unwrap(),
        }
        sweep(&place, Reach::All, &mut nothing_foreign).unwrap();
        assert!(is_empty(&place), "{left}");
    }
}

#[test]
fn a_container_that_is_being_made_is_not_swept() {
    let (_dir, place) = place();
    drop(create(&place, "aa", "web", Remains::Record).unwrap());
    let birth = lock::birth(&place.data.join("containers")).unwrap();
    let link = place.data.join("live/bb");
    symlink("../containers/bb", &link).unwrap();
    sweep(&place, Reach::All, &mut nothing_foreign).unwrap();
    assert!(link.is_symlink());
    drop(birth);
    sweep(&place, Reach::All, &mut nothing_foreign).unwrap();
    assert!(!link.is_symlink());
}

#[test]
fn among_many_that_live_a_dead_one_is_found_in_time() {
    let (_dir, place) = place();
    let living: Vec<_> =
        (0..100).map(|n| create(&place, &format!("{n:03}"), &format!("c{n}"), Remains::Nothing).unwrap()).collect();
    let mut dead = create(&place, "dd", "dead", Remains::Nothing).unwrap();
    drop(dead.hand_over().unwrap());
    while dead.directory.exists() {
        sweep(&place, Reach::Some, &mut nothing_foreign).unwrap();
    }
    assert!(living.iter().all(|l| l.directory.exists()));
}

#[test]
fn a_removal_whose_lock_is_gone_is_finished_by_the_next_removal() {
    let (_dir, place) = place();
    let mut record = create(&place, "aa", "web", Remains::Record).unwrap();
    record.write(RECORD, &file::render(&file::tests::summary("aa", "web", None), &()).unwrap()).unwrap();
    drop(record.hand_over().unwrap());
    fs::remove_file(record.directory.join("lock")).unwrap();
    remove(&place, (&record.directory, "web"), OwnVolumes::Keep, &mut nothing_foreign).unwrap();
    assert!(is_empty(&place));
}

#[test]
fn a_name_that_a_killed_rename_left_is_free() {
    let (_dir, place) = place();
    let record = create(&place, "aa", "old", Remains::Record).unwrap();
    record.write(RECORD, &file::render(&file::tests::summary("aa", "new", None), &()).unwrap()).unwrap();
    claim(Path::new("../containers/aa"), &place.data.join("names/new"), "new").unwrap();
    // While a rename is under way both names are its.
    let change = lock::change(&record.directory, lock::Patience::Endless).unwrap();
    assert!(create(&place, "bb", "old", Remains::Record).is_err());
    drop(change);
    drop(create(&place, "cc", "old", Remains::Record).unwrap());
    assert!(create(&place, "dd", "new", Remains::Record).is_err());
}

#[test]
fn what_belongs_to_other_ids_is_removed_inside_the_id_map() {
    let (_dir, place) = place();
    let record = create(&place, "aa", "x", Remains::Nothing).unwrap();
    let mut asked = 0;
    // A directory that is no directory cannot be emptied by us, whoever runs the test.
    let wrong = record.directory.join("lock");
    let result = clear(&wrong, &mut |_| {
        asked += 1;
        Ok(())
    });
    assert!(result.is_err());
    assert_eq!(asked, 1);
}

#[test]
fn an_image_is_in_use_while_a_container_of_it_has_a_record() {
    let (_dir, place) = place();
    assert_eq!(user_of_image(&place, "sha256:1"), None);
    let record = create(&place, "aa", "web", Remains::Nothing).unwrap();
    let summary = file::tests::summary("aa", "web", Some("sha256:1"));
    record.write(RECORD, &file::render(&summary, &()).unwrap()).unwrap();
    assert_eq!(user_of_image(&place, "sha256:1").as_deref(), Some("web"));
    assert_eq!(user_of_image(&place, "sha256:2"), None);
}

#[test]
fn an_ended_container_is_removed_and_a_living_one_is_not() {
    let (_dir, place) = place();
    let mut record = create(&place, "aabb", "web", Remains::Record).unwrap();
    record.write(RECORD, &file::render(&file::tests::summary("aabb", "web", None), &()).unwrap()).unwrap();
    let living = remove(&place, (&record.directory, "web"), OwnVolumes::Keep, &mut nothing_foreign).unwrap_err();
    assert!(living.to_string().contains("it is running"), "{living}");
    drop(record.hand_over().unwrap());
    remove(&place, (&record.directory, "web"), OwnVolumes::Keep, &mut nothing_foreign).unwrap();
    // Once more, as when two commands do it.
    remove(&place, (&record.directory, "web"), OwnVolumes::Keep, &mut nothing_foreign).unwrap();
    assert!(is_empty(&place));
}
