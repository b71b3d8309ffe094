use super::*;
use proptest::prelude::*;

const ANN: Owner<'_> = Owner { name: "ann", uid: 1500 };

fn r(start: u32, count: u32) -> IdRange {
    IdRange { start, count }
}

fn faults(text: &[u8]) -> Vec<(usize, Fault)> {
    lines(text).filter_map(|(n, line)| Some((n, line.err()?))).collect()
}

#[test]
fn name_and_uid_both_grant_in_the_order_of_the_file() {
    let text = b"bob:1:10\nann:300000:10\n1500:100000:65536\nann:200000:5\n";
    assert_eq!(granted(text, ANN), [r(300_000, 10), r(100_000, 65536), r(200_000, 5)]);
}

#[test]
fn a_user_named_like_another_users_uid_gets_only_what_newuidmap_would_give() {
    let digits = Owner { name: "1600", uid: 7 };
    assert_eq!(granted(b"1600:100000:1\n7:200000:1\n", digits), [r(100_000, 1), r(200_000, 1)]);
    assert_eq!(granted(b"annabel:100000:1\nan:1:1\n01500:5:5\n", ANN), []);
}

#[test]
fn overlaps_count_once_and_no_range_crosses_a_line() {
    assert_eq!(granted(b"ann:100:10\nann:110:10\n", ANN), [r(100, 10), r(110, 10)]);
    assert_eq!(granted(b"ann:100:10\nann:100:10\n", ANN), [r(100, 10)]);
    assert_eq!(granted(b"ann:100:10\nann:90:30\n", ANN), [r(100, 10), r(90, 10), r(110, 10)]);
}

#[test]
fn hostile_lines_grant_nothing_and_say_why() {
    let long = [b"ann:".as_slice(), &[b'1'; 5000], b":1"].concat();
    let cases: [(&[u8], Fault); 16] = [
        (b"ann", Fault::Malformed),
        (b"ann:1", Fault::Malformed),
        (b"ann:1:2:3", Fault::Malformed),
        (b":1:2", Fault::Malformed),
        (b"ann::2", Fault::Malformed),
        (b"ann:1:", Fault::Malformed),
        (b"an\0n:1:2", Fault::Malformed),
        (&long, Fault::Malformed),
        (b"ann:-1:2", Fault::NotANumber),
        (b"ann: 1:2", Fault::NotANumber),
        (b"ann:0x10:2", Fault::NotANumber),
        (b"ann:0100000:65536", Fault::NotANumber),
        (b"ann:99999999999999999999999:2", Fault::NotANumber),
        (b"ann:4294967295:1", Fault::BeyondLastId),
        (b"ann:1:0", Fault::Empty),
        (b"ann:0:65536", Fault::GrantsRoot),
    ];
    for (line, fault) in cases {
        assert_eq!(faults(line), [(1, fault)], "{}", String::from_utf8_lossy(line));
        assert_eq!(granted(line, ANN), [], "{}", String::from_utf8_lossy(line));
    }
    assert_eq!(granted(b"ann:4294967294:1\nann:18446744073709551615:18446744073709551615", ANN), [r(u32::MAX - 1, 1)]);
}

#[test]
fn good_lines_between_faulty_ones_count_and_line_numbers_are_the_files() {
    let text = b"# comment\n\nann:100:1\nnonsense\n  \nann:200:1\r\nann:300:1";
    assert_eq!(faults(text), [(4, Fault::Malformed), (6, Fault::NotANumber)]);
    assert_eq!(granted(text, ANN), [r(100, 1), r(300, 1)]);
}

#[test]
fn the_free_range_avoids_everybody_in_both_files() {
    assert_eq!(first_free([b"", b""], 65536), Some(100_000));
    assert_eq!(first_free([b"bob:100000:65536\n", b""], 65536), Some(165_536));
    assert_eq!(first_free([b"bob:165536:10\n", b"eve:100000:65536\n"], 65536), Some(165_546));
    assert_eq!(first_free([b"bob:300000:10\neve:50:10\n", b""], 65536), Some(100_000));
    assert_eq!(first_free([b"bob:1:4294967294\n", b""], 65536), None);
    assert_eq!(first_free([b"bob:100000:4294867294\n", b""], 2), None);
}

#[test]
fn the_own_id_and_ids_unknown_here_cannot_be_mapped() {
    let everything = known_ids("         0          0 4294967295\n");
    assert_eq!(usable(&[r(100, 10)], 104, &everything), [r(100, 4), r(105, 5)]);
    // A rootless outer container: its root is one extent, its subordinate ids another.
    let nested = known_ids("         0       1000          1\n         1     100000      65536\n");
    assert_eq!(usable(&[r(60_000, 10_000), r(100_000, 65536)], 0, &nested), [r(60_000, 5537)]);
    assert_eq!(usable(&[r(5, 10)], 0, &[r(0, 8), r(8, 100)]), [r(5, 3), r(8, 7)]);
}

#[test]
fn a_missing_file_grants_nothing_and_an_unreadable_one_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read(&dir.path().join("subuid")).unwrap(), b"");
    assert!(read(dir.path()).is_err());
}

fn ids(ranges: &[IdRange]) -> Vec<u32> {
    ranges.iter().flat_map(|range| range.start..range.start + range.count).collect()
}

fn small_range() -> impl Strategy<Value = IdRange> {
    (1_u32..200, 1_u32..60).prop_map(|(start, count)| r(start, count))
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_never_grant_root_or_the_no_id(text in any::<Vec<u8>>()) {
        for (_, entry) in lines(&text) {
            if let Ok(entry) = entry {
                prop_assert!(entry.range.start > 0 && entry.range.count > 0 && end(entry.range) <= u64::from(u32::MAX));
            }
        }
    }

    #[test]
    fn near_misses_are_read_without_panic(text in "(ann|1500|bob|):[-0-9xa]{0,24}:[-0-9 ]{0,24}(:|\n|\r\n|\0){1,2}") {
        drop(granted(text.as_bytes(), ANN));
        prop_assert!(first_free([text.as_bytes(), b"ann:100000:7"], 65536).is_some_and(|start| start >= 100_000));
    }

    #[test]
    fn disjoint_keeps_each_id_once_in_first_come_order(ranges in prop::collection::vec(small_range(), 0..8)) {
        let mut expected = Vec::new();
        for id in ids(&ranges) {
            if !expected.contains(&id) {
                expected.push(id);
            }
        }
        prop_assert_eq!(ids(&disjoint(ranges)), expected);
    }

    #[test]
    fn subtract_leaves_what_no_hole_has(range in small_range(), holes in prop::collection::vec(small_range(), 0..6)) {
        let holed = ids(&holes);
        let expected: Vec<u32> = ids(&[range]).into_iter().filter(|id| !holed.contains(id)).collect();
        prop_assert_eq!(ids(&subtract(range, &holes)), expected);
    }
}
