//! One id map: which ids of the host are which inside a user namespace.
//!
//! A map covers some ids; all others have no id inside. So that a tree can hold those, too, without
//! losing what they are, each of them gets one of the ids that the map leaves free inside: the ids
//! that no range covers on either side are as many here as there, and are paired in ascending
//! order. Whether an id is such a one, and whose, follows from the map alone ("Owners" in the
//! specification).

use podkeep_format::snapshot::{ID_RANGES_MAX, IdRange};

/// A user or group id as the host counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostUid(pub u32);

/// A user or group id as the user namespace of Podman counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NsUid(pub u32);

/// An id of the host, seen from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Mapped(NsUid),
    /// No range covers it: what a tree holds in its place.
    Beyond(NsUid),
}

impl Seen {
    /// What a tree holds.
    pub fn id(self) -> NsUid {
        match self {
            Self::Mapped(id) | Self::Beyond(id) => id,
        }
    }
}

/// Why ranges are no map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    #[error("it has no range")]
    Empty,
    #[error("it has more than {ID_RANGES_MAX} ranges")]
    TooMany,
    #[error("a range is empty or passes the last id")]
    Range,
    #[error("two ranges overlap")]
    Overlap,
    #[error("a line of it is not understood")]
    Syntax,
}

/// All ids that a system can have: one less than 2^32, since the last means "none".
const ALL: IdRange = IdRange {
    inside: 0,
    outside: 0,
    len: u32::MAX,
};

/// A map that is one: both sides of its ranges overlap nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// Ascending by `inside`.
    ranges: Vec<IdRange>,
    /// What `ranges` leave free on both sides, paired; ascending.
    beyond: Vec<IdRange>,
}

impl Default for IdMap {
    fn default() -> Self {
        Self::identity()
    }
}

impl IdMap {
    /// Of a host's root: every id is itself.
    pub fn identity() -> Self {
        Self {
            ranges: vec![ALL],
            beyond: Vec::new(),
        }
    }

    pub fn new(ranges: &[IdRange]) -> Result<Self, MapError> {
        if ranges.is_empty() {
            return Err(MapError::Empty);
        }
        if ranges.len() as u64 > ID_RANGES_MAX {
            return Err(MapError::TooMany);
        }
        let mut by_inside = ranges.to_vec();
        by_inside.sort_by_key(|range| range.inside);
        let inside = free(by_inside.iter().map(|range| (range.inside, range.len)))?;
        let mut by_outside = ranges.to_vec();
        by_outside.sort_by_key(|range| range.outside);
        let outside = free(by_outside.iter().map(|range| (range.outside, range.len)))?;
        Ok(Self {
            ranges: by_inside,
            beyond: pair(&inside, &outside),
        })
    }

    /// What a snapshot says: no range stands for the identity.
    pub fn of_snapshot(ranges: &[IdRange]) -> Result<Self, MapError> {
        match ranges {
            [] => Ok(Self::identity()),
            ranges => Self::new(ranges),
        }
    }

    /// The text of `/proc/PID/uid_map`: "inside outside length" on each line.
    pub fn parse(text: &str) -> Result<Self, MapError> {
        let mut ranges = Vec::new();
        for line in text.lines().take(ID_RANGES_MAX as usize + 1) {
            let numbers: Vec<u32> = line
                .split_ascii_whitespace()
                .map(|word| word.parse().map_err(|_| MapError::Syntax))
                .collect::<Result<_, _>>()?;
            let [inside, outside, len] = numbers[..] else {
                return Err(MapError::Syntax);
            };
            ranges.push(IdRange {
                inside,
                outside,
                len,
            });
        }
        Self::new(&ranges)
    }

    pub fn is_identity(&self) -> bool {
        self.ranges == [ALL]
    }

    /// As a snapshot says it.
    pub fn to_snapshot(&self) -> Vec<IdRange> {
        match self.is_identity() {
            true => Vec::new(),
            false => self.ranges.clone(),
        }
    }

    pub fn see(&self, host: HostUid) -> Seen {
        if let Some(id) = across(&self.ranges, host.0, Side::Outside) {
            return Seen::Mapped(NsUid(id));
        }
        match across(&self.beyond, host.0, Side::Outside) {
            Some(id) => Seen::Beyond(NsUid(id)),
            // The number that is no id.
            None => Seen::Mapped(NsUid(host.0)),
        }
    }

    /// The host's id of one that a range covers.
    pub fn to_host(&self, inside: NsUid) -> Option<HostUid> {
        across(&self.ranges, inside.0, Side::Inside).map(HostUid)
    }

    /// The host's id for which a tree holds this one, although no range covers it.
    pub fn beyond(&self, held: NsUid) -> Option<HostUid> {
        across(&self.beyond, held.0, Side::Inside).map(HostUid)
    }
}

#[derive(Clone, Copy)]
enum Side {
    Inside,
    Outside,
}

/// `id` on the other side of the range that covers it on this one. At most 340 ranges.
fn across(ranges: &[IdRange], id: u32, from: Side) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let (here, there) = match from {
            Side::Inside => (range.inside, range.outside),
            Side::Outside => (range.outside, range.inside),
        };
        let offset = id.checked_sub(here)?;
        (offset < range.len).then(|| there + offset)
    })
}

/// The gaps between ascending ranges (start, length), up to the last id.
fn free(ranges: impl Iterator<Item = (u32, u32)>) -> Result<Vec<(u32, u32)>, MapError> {
    let mut gaps = Vec::new();
    let mut end = 0u32;
    for (start, len) in ranges {
        let behind = start.checked_add(len).filter(|_| len > 0);
        let behind = behind.ok_or(MapError::Range)?;
        let gap = start.checked_sub(end).ok_or(MapError::Overlap)?;
        if gap > 0 {
            gaps.push((end, gap));
        }
        end = behind;
    }
    if end < u32::MAX {
        gaps.push((end, u32::MAX - end));
    }
    Ok(gaps)
}

/// Pairs two lists of gaps that have as many ids, in ascending order.
fn pair(inside: &[(u32, u32)], outside: &[(u32, u32)]) -> Vec<IdRange> {
    let mut pairs = Vec::new();
    let (mut inside, mut outside) = (inside.iter().copied(), outside.iter().copied());
    let (mut here, mut there) = (inside.next(), outside.next());
    while let (Some((at, free_here)), Some((host, free_there))) = (here, there) {
        let len = free_here.min(free_there);
        pairs.push(IdRange {
            inside: at,
            outside: host,
            len,
        });
        let rest = |start: u32, free: u32| (free > len).then(|| (start + len, free - len));
        here = rest(at, free_here).or_else(|| inside.next());
        there = rest(host, free_there).or_else(|| outside.next());
    }
    pairs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    /// A user 1000 with two ranges of subordinate ids.
    const TWO: &str = "         0       1000          1\n         1     100000      65536\n     65537     300000       1000\n";

    #[test]
    fn what_the_kernel_prints_is_a_map() {
        let map = IdMap::parse(TWO).unwrap();
        for (host, inside) in [
            (1000, 0),
            (100_000, 1),
            (100_998, 999),
            (165_535, 65_536),
            (300_000, 65_537),
            (300_999, 66_536),
        ] {
            assert_eq!(map.see(HostUid(host)), Seen::Mapped(NsUid(inside)));
            assert_eq!(map.to_host(NsUid(inside)), Some(HostUid(host)));
        }
        assert_eq!(map.to_host(NsUid(66_537)), None);
        assert!(
            IdMap::parse("0 0 4294967295\n").unwrap().is_identity(),
            "that of the host's root"
        );
    }

    #[test]
    fn v_07_an_id_beyond_the_map_is_kept_and_never_taken_for_one_within() {
        let map = IdMap::parse(TWO).unwrap();
        for host in [
            0,
            999,
            1001,
            65_534,
            99_999,
            165_536,
            301_000,
            4_294_967_294,
        ] {
            let Seen::Beyond(held) = map.see(HostUid(host)) else {
                panic!("{host} is mapped");
            };
            assert_eq!(map.to_host(held), None, "{host}");
            assert_eq!(map.beyond(held), Some(HostUid(host)));
        }
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for (text, error) in [
            ("", MapError::Empty),
            ("0 0", MapError::Syntax),
            ("0 -1 5", MapError::Syntax),
            ("0 0 0", MapError::Range),
            ("0 4294967290 7", MapError::Range),
            ("0 0 10\n9 20 3", MapError::Overlap),
            ("0 0 10\n10 9 3", MapError::Overlap),
            (&"0 0 1\n".repeat(400), MapError::TooMany),
        ] {
            assert_eq!(IdMap::parse(text), Err(error), "{text:?}");
        }
    }

    fn maps() -> impl Strategy<Value = IdMap> {
        let gaps = prop::collection::vec((0u32..5000, 1u32..5000, 0u32..5000), 1..12);
        (gaps, any::<bool>()).prop_map(|(gaps, crossed)| {
            let (mut inside, mut outside) = (0, 0);
            let mut ranges = Vec::new();
            for (before, len, host_before) in gaps {
                inside += before;
                outside += host_before;
                ranges.push(IdRange {
                    inside,
                    outside,
                    len,
                });
                inside += len;
                outside += len;
            }
            if crossed {
                // The order outside is another than that inside.
                let last = ranges.len() - 1;
                ranges[last].outside = 4_000_000_000;
                ranges[0].outside = 4_100_000_000;
            }
            IdMap::new(&ranges).unwrap()
        })
    }

    proptest! {
        #[test]
        fn every_id_of_the_host_has_its_own_place_and_comes_back(
            map in maps(),
            near in 0u32..100_000,
            far in any::<u32>(),
        ) {
            for host in [near, far] {
                let back = match map.see(HostUid(host)) {
                    Seen::Mapped(id) if host != u32::MAX => map.to_host(id),
                    Seen::Mapped(id) => Some(HostUid(id.0)),
                    Seen::Beyond(id) => {
                        prop_assert_eq!(map.to_host(id), None);
                        map.beyond(id)
                    }
                };
                prop_assert_eq!(back, Some(HostUid(host)));
                let inside = NsUid(host);
                let seen = map.to_host(inside).or_else(|| map.beyond(inside));
                if let Some(seen) = seen {
                    prop_assert_eq!(map.see(seen).id(), inside);
                } else {
                    prop_assert!(host == u32::MAX);
                }
            }
        }

        #[test]
        fn a_map_survives_its_snapshot(map in maps()) {
            prop_assert_eq!(IdMap::of_snapshot(&map.to_snapshot()), Ok(map));
        }
    }
}
