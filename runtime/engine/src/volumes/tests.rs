use super::*;
use crate::place::tests::place;
use std::os::unix::fs::MetadataExt as _;

fn nothing_foreign(_: &Path) -> Result<(), Failure> {
    panic!("all files are ours")
}

fn names(place: &Place) -> Vec<String> {
    list(place).unwrap().into_iter().map(|v| v.name).collect()
}

fn container(place: &Place) -> PathBuf {
    let directory = place.own("containers").unwrap().join("aa");
    fs::create_dir(&directory).unwrap();
    directory
}

fn own(place: &Place, container: &Path) -> String {
    let name = own_name("aa", "/d");
    let volume = Volume { name: name.clone(), anonymous: true, ..Volume::default() };
    make_own(&place.own(DIRECTORY).unwrap(), &volume, container).unwrap();
    name
}

#[test]
fn a_volume_is_made_once_found_by_its_beginning_and_gone_again() {
    let (_dir, place) = place();
    assert!(names(&place).is_empty());
    create(&place, "data", [("k".to_owned(), "v".to_owned())].into(), BTreeMap::new()).unwrap();
    assert!(
        create(&place, "data", BTreeMap::new(), BTreeMap::new()).unwrap_err().to_string().contains("exists already")
    );
    create(&place, "date", BTreeMap::new(), BTreeMap::new()).unwrap();
    assert_eq!(find(&place, "data").unwrap().labels["k"], "v");
    assert!(find(&place, "dat").unwrap_err().to_string().contains("more than one"));
    assert!(find(&place, "data").unwrap().mountpoint(&place).is_dir());
    for nobody in ["", ".", "..", ".lock", "../volumes/data", "x"] {
        assert!(find(&place, nobody).unwrap_err().to_string().contains("no such volume"), "{nobody}");
    }
    remove(&place, "data", &mut nothing_foreign).unwrap();
    assert_eq!(names(&place), ["date"]);
    assert_eq!(fs::read_dir(place.data.join(DIRECTORY)).unwrap().count(), 2, "the lock and date");
}

#[test]
fn a_containers_own_volume_goes_with_it_or_is_kept() {
    let (_dir, place) = place();
    let directory = container(&place);
    let name = own(&place, &directory);
    assert_eq!(names(&place), std::slice::from_ref(&name));
    let inode = fs::metadata(directory.join(DIRECTORY).join(&name)).unwrap().ino();
    keep_own(&place, &directory, &|_| true).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(fs::metadata(place.data.join(DIRECTORY).join(&name)).unwrap().ino(), inode);
    prune(&place, &|_| true, &mut nothing_foreign).unwrap();
    assert!(names(&place).is_empty());

    let directory = container(&place);
    own(&place, &directory);
    fs::remove_dir_all(&directory).unwrap();
    assert!(names(&place).is_empty(), "a link without a container is no volume");
    prune(&place, &|_| true, &mut nothing_foreign).unwrap();
    assert_eq!(fs::read_dir(place.data.join(DIRECTORY)).unwrap().count(), 1, "only the lock");
}

#[test]
fn what_a_killed_command_left_is_removed_and_shown_to_nobody() {
    let (_dir, place) = place();
    create(&place, "data", BTreeMap::new(), BTreeMap::new()).unwrap();
    for left in [".new-x-1", ".gone-y"] {
        fs::create_dir_all(place.data.join(DIRECTORY).join(left).join(DATA)).unwrap();
    }
    assert_eq!(names(&place), ["data"]);
    assert!(prune(&place, &|_| false, &mut nothing_foreign).unwrap().is_empty());
    assert_eq!(fs::read_dir(place.data.join(DIRECTORY)).unwrap().count(), 2);
}

#[test]
fn own_names_differ_by_container_and_place() {
    let all = [own_name("a", "/b"), own_name("a", "/c"), own_name("b", "/b"), own_name("a/b", "")];
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), 4);
    assert!(all.iter().all(|n| n.len() == 64));
}
