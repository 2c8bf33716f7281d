use super::*;

/// A header with its checksum.
fn header(name: &[u8], kind: u8, size: &[u8], edit: impl Fn(&mut [u8; BLOCK_BYTES])) -> Vec<u8> {
    let mut block = [0; BLOCK_BYTES];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000755\0");
    block[108..116].copy_from_slice(b"0001750\0");
    block[116..124].copy_from_slice(b"0000144 ");
    block[124..124 + size.len()].copy_from_slice(size);
    block[136..148].copy_from_slice(b"14700000000\0");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    edit(&mut block);
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.to_vec()
}

fn meta(kind: u8, content: &[u8]) -> Vec<u8> {
    let size = format!("{:011o}\0", content.len());
    let mut blocks = header(b"meta", kind, size.as_bytes(), |_| ());
    blocks.extend_from_slice(content);
    blocks.resize(blocks.len().next_multiple_of(BLOCK_BYTES), 0);
    blocks
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let len = (rest + 1..).find(|len| len.to_string().len() + rest == *len);
    let mut record = format!("{} {key}=", len.unwrap()).into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

fn records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let records = records.iter().map(|(key, value)| record(key, value));
    records.collect::<Vec<_>>().concat()
}

/// The first entry.
fn decode(blocks: &[u8]) -> Result<TarEntry, TarError> {
    let mut headers = TarHeaders::new();
    for block in blocks.chunks_exact(BLOCK_BYTES) {
        match headers.block(block.try_into().unwrap())? {
            TarStep::More => {}
            TarStep::Entry(entry) => {
                assert!(headers.is_between());
                return Ok(*entry);
            }
            TarStep::End => break,
        }
    }
    Err(TarError::new("no entry"))
}

fn behind(meta: Vec<u8>, kind: u8, size: &[u8]) -> Result<TarEntry, TarError> {
    decode(&[meta, header(b"plain", kind, size, |_| ())].concat())
}

#[test]
fn a_plain_header_says_what_stands_in_it() {
    let entry = decode(&header(b"dir/file", b'0', b"00000000123\0", |block| {
        block[345..351].copy_from_slice(b"prefix");
    }));
    let entry = entry.unwrap();
    assert_eq!(entry.path, b"prefix/dir/file");
    assert_eq!((entry.mode, entry.uid, entry.gid), (0o755, 1000, 100));
    assert_eq!((entry.stored_bytes, entry.size), (0o123, 0o123));
    assert_eq!(entry.mtime.secs, 0o14700000000);
    assert_eq!(entry.padding(), BLOCK_BYTES - 0o123);
}

#[test]
fn kinds_without_content_have_none_whatever_their_size_says() {
    for (kind, expected) in [
        (b'1', TarKind::HardLink),
        (b'2', TarKind::Symlink),
        (b'3', TarKind::CharDevice),
        (b'4', TarKind::BlockDevice),
        (b'5', TarKind::Directory),
        (b'6', TarKind::Fifo),
    ] {
        let entry = decode(&header(b"x", kind, b"00000000123\0", |block| {
            block[157..163].copy_from_slice(b"target");
            block[329..336].copy_from_slice(b"0000012");
            block[337..344].copy_from_slice(b"0000003");
        }));
        let entry = entry.unwrap();
        assert_eq!((entry.kind, entry.stored_bytes), (expected, 0));
        let device = matches!(kind, b'3' | b'4').then_some((10, 3));
        assert_eq!(entry.device, device.unwrap_or_default());
    }
    let old = decode(&header(b"folder/", 0, b"00000000123\0", |_| ())).unwrap();
    assert_eq!((old.kind, old.stored_bytes), (TarKind::Directory, 0));
    let contiguous = decode(&header(b"x", b'7', b"00000000123\0", |_| ())).unwrap();
    assert_eq!(contiguous.kind, TarKind::File);
    let label = decode(&header(b"x", b'V', b"00000000123\0", |_| ())).unwrap();
    assert_eq!(
        (label.kind, label.stored_bytes),
        (TarKind::Other(b'V'), 0o123)
    );
}

#[test]
fn large_and_negative_numbers_are_of_base_256() {
    let entry = decode(&header(
        b"x",
        b'0',
        b"\x80\0\0\0\0\0\0\x02\0\0\0\0",
        |block| {
            block[136..148].copy_from_slice(&[0xff; 12]);
        },
    ));
    let entry = entry.unwrap();
    assert_eq!(entry.size, 2 << 32);
    assert_eq!(entry.mtime.secs, -1);
    for size in [
        &[0xff; 12],
        b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert!(decode(&header(b"x", b'0', size, |_| ())).is_err());
    }
}

#[test]
fn what_is_no_header_is_refused() {
    let good = header(b"x", b'0', b"0", |_| ());
    for (at, byte) in [(0, b'y'), (148, b'9'), (150, b'x')] {
        let mut bad = good.clone();
        bad[at] = byte;
        assert!(decode(&bad).is_err(), "{at}");
    }
    assert!(decode(&header(b"x", b'0', b"12x", |_| ())).is_err());
    assert!(decode(&[0; 1024]).is_err());
    let long = header(b"x", b'x', b"00010000001\0", |_| ());
    assert!(decode(&long).unwrap_err().cause.contains("too long"));
}

#[test]
fn pax_records_and_long_names_win() {
    let text = records(&[
        ("path", b"from/pax"),
        ("size", b"8589934593"),
        ("uid", b"4294967294"),
        ("mtime", b"-1.5"),
        ("SCHILY.xattr.user.x", b"a=\0\n"),
        ("SCHILY.acl.access", b"user::rw-"),
        ("gid", b""),
    ]);
    let entry = behind(meta(b'x', &text), b'0', b"1").unwrap();
    assert_eq!(entry.path, b"from/pax");
    assert_eq!(entry.size, (8 << 30) + 1);
    assert_eq!((entry.uid, entry.gid), (4294967294, 100));
    let half = Time {
        secs: -2,
        nanos: 500_000_000,
    };
    assert_eq!(entry.mtime, half);
    assert_eq!(entry.xattrs, [(b"user.x".to_vec(), b"a=\0\n".to_vec())]);
    assert_eq!(entry.access_acl.as_deref(), Some(&b"user::rw-"[..]));

    let long = [meta(b'L', b"long\0"), meta(b'K', b"target\0")].concat();
    let entry = behind([meta(b'x', &text), long].concat(), b'2', b"0").unwrap();
    assert_eq!(
        (&entry.path[..], &entry.target[..]),
        (&b"long"[..], &b"target"[..])
    );
}

#[test]
fn a_global_header_holds_for_all_but_names_and_sizes() {
    let text = records(&[("path", b"no"), ("size", b"7"), ("uid", b"5")]);
    let entry = behind(meta(b'g', &text), b'0', b"1").unwrap();
    assert_eq!(
        (&entry.path[..], entry.size, entry.uid),
        (&b"plain"[..], 1, 5)
    );
    let local = meta(b'x', &record("path", b"forgotten"));
    let entry = behind([local, meta(b'g', &text)].concat(), b'0', b"1").unwrap();
    assert_eq!(entry.path, b"plain");
}

#[test]
fn broken_records_are_refused() {
    for text in [
        &b"9 path=x\n "[..],
        b"99 path=x\n",
        b"9 path=xy",
        b"9 pathxyz\n",
        b"x path=x\n",
        b"18446744073709551616 a=b\n",
        b"8 =abcd\n",
        b"11 path=a\0b\n",
        b"11 uid=1e3x\n",
        b"12 mtime=--1\n",
    ] {
        assert!(behind(meta(b'x', text), b'0', b"0").is_err(), "{text:?}");
    }
}

#[test]
fn sparse_files_have_parts_in_every_form() {
    let parts = Layout::Parts(vec![(4096, 512), (8192, 100), (9000, 0)]);
    let size = b"00000001144\0"; // 612
    let offsets = [
        ("GNU.sparse.size", &b"9000"[..]),
        ("GNU.sparse.offset", b"4096"),
        ("GNU.sparse.numbytes", b"512"),
        ("GNU.sparse.offset", b"8192"),
        ("GNU.sparse.numbytes", b"100"),
        ("GNU.sparse.offset", b"9000"),
        ("GNU.sparse.numbytes", b"0"),
    ];
    let map = [
        ("GNU.sparse.name", &b"real"[..]),
        ("GNU.sparse.size", b"9000"),
        ("GNU.sparse.map", b"4096,512,8192,100,9000,0"),
    ];
    for (text, path) in [(records(&offsets), b"plain"), (records(&map), b"real\0")] {
        let entry = behind(meta(b'x', &text), b'0', size).unwrap();
        assert_eq!((&entry.layout, entry.size), (&parts, 9000));
        assert_eq!(entry.stored_bytes, 612);
        assert_eq!(entry.path, until_nul(path));
    }
    let listed = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"real"),
        ("GNU.sparse.realsize", b"9000"),
    ];
    let entry = behind(meta(b'x', &records(&listed)), b'0', b"2144").unwrap(); // 512 + 612
    assert_eq!((&entry.layout, entry.size), (&Layout::Listed, 9000));
    let mut content = b"3\n4096\n512\n8192\n100\n9000\n0\n".to_vec();
    content.resize(BLOCK_BYTES, 0);
    let (found, taken) = read_sparse_map(&mut &content[..], 9000, 1124).unwrap();
    assert_eq!((Layout::Parts(found), taken), (parts, 512));
    for (map, stored) in [("3\n1\n", 512), ("x\n", 1124), ("99999999\n", 1124)] {
        let mut content = map.as_bytes().to_vec();
        content.resize(BLOCK_BYTES, 0);
        assert!(read_sparse_map(&mut &content[..], 9000, stored).is_err());
    }
}

#[test]
fn old_sparse_files_may_have_further_blocks() {
    let first = header(b"sparse", b'S', b"00000002000\0", |block| {
        block[257..265].copy_from_slice(b"ustar  \0");
        for part in 0..4 {
            let at = 386 + part * 24;
            block[at..at + 12].copy_from_slice(format!("{:011o}\0", part * 8192).as_bytes());
            block[at + 12..at + 24].copy_from_slice(b"00000000200\0"); // 128
        }
        block[482] = 1;
        block[483..495].copy_from_slice(b"00000200000\0");
    });
    let mut second = vec![0; BLOCK_BYTES];
    second[..12].copy_from_slice(b"00000100000\0");
    second[12..24].copy_from_slice(b"00000001000\0");
    let entry = decode(&[first.clone(), second].concat()).unwrap();
    assert_eq!((entry.size, entry.stored_bytes), (65536, 1024));
    let Layout::Parts(parts) = entry.layout else {
        panic!("it has parts");
    };
    assert_eq!(parts.len(), 5);
    assert_eq!(parts[4], (32768, 512));
    // Parts that are not what is stored.
    let lies = decode(&[first, vec![0; BLOCK_BYTES]].concat());
    assert!(lies.unwrap_err().cause.contains("does not fit"));
}

struct Names;

impl AclNames for Names {
    fn user(&self, name: &str) -> Option<u32> {
        (name == "alice").then_some(1000)
    }

    fn group(&self, name: &str) -> Option<u32> {
        (name == "staff").then_some(50)
    }
}

#[test]
fn acls_become_attributes() {
    let expected = [
        &2u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 0xe8, 3, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[8, 0, 5, 0, 50, 0, 0, 0],
        &[16, 0, 5, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    for text in [
        "user::rw-\nuser:alice:r--\ngroup::r--\ngroup:staff:r-x\nmask::r-x\nother::---\n",
        "user::rw-,group::r--,user:1000:r--,group:50:r-x,mask:r-x,other:---",
        "user::rw-,user:nobody-here:r--:1000,group::r--,group:x:r-x:50,mask::r-x,other::---",
    ] {
        assert_eq!(acl_attribute(text.as_bytes(), &Names).unwrap(), expected);
    }
    for text in ["user:bob:rwx", "user", "user:1:q", "who::r--", "\u{e9}"] {
        assert!(acl_attribute(text.as_bytes(), &Names).is_err(), "{text}");
    }
}
