use super::*;

const PAGE: usize = 512;

/// A file of pages that are written one by one.
struct File(Vec<u8>);

impl File {
    fn new(pages: usize) -> Self {
        Self(vec![0; pages * PAGE])
    }

    fn meta(&mut self, page: usize, root: u64, transaction: u64) {
        let mut meta = vec![0; META_BYTES];
        meta[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        meta[4..8].copy_from_slice(&VERSION.to_le_bytes());
        meta[8..12].copy_from_slice(&(PAGE as u32).to_le_bytes());
        meta[16..24].copy_from_slice(&root.to_le_bytes());
        meta[48..56].copy_from_slice(&transaction.to_le_bytes());
        let sum = fnv_1a(&meta[..56]);
        meta[56..64].copy_from_slice(&sum.to_le_bytes());
        let start = page * PAGE + PAGE_HEADER_BYTES;
        self.0[start..start + META_BYTES].copy_from_slice(&meta);
    }

    fn put(&mut self, page: usize, bytes: &[u8]) {
        self.0[page * PAGE..page * PAGE + bytes.len()].copy_from_slice(bytes);
        self.0[page * PAGE..page * PAGE + 8].copy_from_slice(&(page as u64).to_le_bytes());
    }
}

fn header(flags: u16, count: u16, overflow: u32) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes.extend(flags.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(overflow.to_le_bytes());
    bytes
}

/// A leaf page: flag, key, value.
fn leaf_page(elements: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = header(IS_LEAF, elements.len() as u16, 0);
    let mut data = Vec::new();
    for (index, (flag, key, value)) in elements.iter().enumerate() {
        let position = (elements.len() - index) * ELEMENT_BYTES + data.len();
        for number in [*flag, position as u32, key.len() as u32, value.len() as u32] {
            bytes.extend(number.to_le_bytes());
        }
        data.extend_from_slice(key);
        data.extend_from_slice(value);
    }
    bytes.extend(data);
    bytes
}

fn branch_page(children: &[u64]) -> Vec<u8> {
    let mut bytes = header(IS_BRANCH, children.len() as u16, 0);
    for child in children {
        bytes.extend([0; 8]);
        bytes.extend(child.to_le_bytes());
    }
    bytes
}

fn bucket_of(root: u64) -> Vec<u8> {
    let mut bytes = root.to_le_bytes().to_vec();
    bytes.extend([0; 8]);
    bytes
}

fn sample() -> File {
    let mut file = File::new(8);
    file.meta(0, 3, 7);
    file.meta(1, 2, 6);
    let inner = [bucket_of(0), leaf_page(&[(0, b"x", b"1")])].concat();
    file.put(3, &branch_page(&[4, 5]));
    file.put(
        4,
        &leaf_page(&[(1, b"a", &inner), (1, b"b", &bucket_of(6))]),
    );
    file.put(5, &leaf_page(&[(0, b"c", b"value")]));
    file.put(6, &leaf_page(&[(0, b"y", b"2"), (0, b"z", b"")]));
    file
}

fn keys(bolt: &Bolt<'_>, bucket: Bucket<'_>) -> Vec<String> {
    let elements = bolt.elements(bucket).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let elements = elements.into_iter().map(|(key, element)| match element {
        Element::Value(value) => format!("{}={}", text(key), text(value)),
        Element::Bucket(_) => text(key),
    });
    elements.collect()
}

#[test]
fn buckets_are_read_in_order_inside_values_and_in_pages() {
    let file = sample();
    let bolt = Bolt::open(&file.0).unwrap();
    assert_eq!(keys(&bolt, bolt.root()), ["a", "b", "c=value"]);
    let elements = bolt.elements(bolt.root()).unwrap();
    let inner: Vec<_> = elements
        .iter()
        .filter_map(|(_, element)| match element {
            Element::Bucket(bucket) => Some(keys(&bolt, *bucket)),
            Element::Value(_) => None,
        })
        .collect();
    assert_eq!(inner, [vec!["x=1"], vec!["y=2", "z="]]);
}

#[test]
fn the_newest_meta_page_that_is_intact_counts() {
    let mut file = sample();
    file.put(2, &leaf_page(&[(0, b"old", b"")]));
    file.meta(1, 2, 8);
    let bolt = Bolt::open(&file.0).unwrap();
    assert_eq!(keys(&bolt, bolt.root()), ["old="]);
    // Torn while it was written.
    file.0[PAGE + 40] ^= 1;
    let bolt = Bolt::open(&file.0).unwrap();
    assert_eq!(keys(&bolt, bolt.root()).len(), 3);
    file.meta(1, 2, 8);
    file.0[40] ^= 1;
    let bolt = Bolt::open(&file.0).unwrap();
    assert_eq!(keys(&bolt, bolt.root()), ["old="]);
    file.0[PAGE + 40] ^= 1;
    assert!(matches!(Bolt::open(&file.0), Err(BoltError::NoMeta)));
    assert!(matches!(Bolt::open(b""), Err(BoltError::NoMeta)));
}

#[test]
fn a_page_that_leads_back_or_out_is_refused() {
    let refused = |change: &dyn Fn(&mut File), defect: &str| {
        let mut file = sample();
        change(&mut file);
        let bolt = Bolt::open(&file.0).unwrap();
        let error = bolt.elements(bolt.root()).unwrap_err().to_string();
        assert!(error.contains(defect), "{error}");
    };
    refused(&|file| file.put(3, &branch_page(&[4, 3])), "twice");
    refused(&|file| file.put(3, &branch_page(&[4, 4])), "twice");
    refused(&|file| file.put(3, &branch_page(&[999])), "not in the file");
    refused(
        &|file| file.put(3, &branch_page(&[u64::MAX])),
        "not in the file",
    );
    refused(&|file| file.0[3 * PAGE] = 9, "another page");
    refused(
        &|file| file.put(3, &header(IS_LEAF, 1, 9)),
        "behind the file",
    );
    refused(&|file| file.put(3, &header(4, 0, 0)), "neither");
    refused(
        &|file| file.put(3, &header(IS_LEAF, 60, 0)),
        "more elements",
    );
    let far = |at: usize, number: u32| {
        move |file: &mut File| {
            let element = 5 * PAGE + PAGE_HEADER_BYTES + at;
            file.0[element..element + 4].copy_from_slice(&number.to_le_bytes());
        }
    };
    refused(&far(4, u32::MAX), "leaves it");
    refused(&far(8, u32::MAX), "leaves it");
    refused(&far(12, 500), "leaves it");
    refused(&far(0, 1), "without a header");
    // A chain that is longer than any tree.
    let mut file = File::new(50);
    file.meta(0, 3, 1);
    for page in 3..49 {
        file.put(page, &branch_page(&[page as u64 + 1]));
    }
    file.put(49, &leaf_page(&[]));
    let bolt = Bolt::open(&file.0).unwrap();
    let error = bolt.elements(bolt.root()).unwrap_err().to_string();
    assert!(error.contains("too deep"), "{error}");
}
