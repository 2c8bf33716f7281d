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
    decode_with(TarHeaders::new(), blocks)
}

fn decode_with(mut headers: TarHeaders, blocks: &[u8]) -> Result<TarEntry, TarError> {
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
fn the_last_of_several_records_counts_and_an_empty_one_takes_it_back() {
    let text = records(&[
        ("path", b"first"),
        ("path", b""),
        ("uid", b"5"),
        ("uid", b"6"),
        ("size", b"7"),
        ("size", b""),
        ("SCHILY.xattr.user.x", b"1"),
        ("SCHILY.xattr.user.y", b"2"),
        ("SCHILY.xattr.user.x", b"3"),
    ]);
    let long = [meta(b'L', b""), meta(b'x', &text)].concat();
    let entry = behind(long, b'0', b"1").unwrap();
    assert_eq!((&entry.path[..], entry.uid), (&b"plain"[..], 6));
    assert_eq!(entry.stored_bytes, 1);
    let xattr = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
    assert_eq!(
        entry.xattrs,
        [xattr(b"user.y", b"2"), xattr(b"user.x", b"3")]
    );
}

#[test]
fn layers_have_no_sparse_files_no_signs_and_no_global_headers() {
    let of_layer = |meta: Vec<u8>, kind| {
        let blocks = [meta, header(b"plain", kind, b"0", |_| ())].concat();
        decode_with(TarHeaders::of_layer(), &blocks)
    };
    for text in [
        records(&[("GNU.sparse.name", b"real")]),
        records(&[("GNU.sparse.major", b"1")]),
        records(&[("size", b"+1")]),
        records(&[("uid", b"-1")]),
        records(&[("gid", b"+0")]),
    ] {
        for kind in [b'0', b'5'] {
            assert!(of_layer(meta(b'x', &text), kind).is_err(), "{text:?}");
        }
    }
    assert!(of_layer(Vec::new(), b'S').is_err());
    let text = records(&[("uid", b"5"), ("SCHILY.xattr.user.x", b"1")]);
    let entry = of_layer(meta(b'g', &text), b'0').unwrap();
    assert_eq!((entry.uid, entry.xattrs.len()), (1000, 0));
}

#[test]
fn times_before_and_after_the_epoch() {
    let time = |secs, nanos| Ok(Time { secs, nanos });
    for (text, expected) in [
        ("12", time(12, 0)),
        ("7.25", time(7, 250_000_000)),
        ("12.5", time(12, 500_000_000)),
        ("0.0000000019", time(0, 1)),
        ("-1.5", time(-2, 500_000_000)),
        ("-0.5", time(-1, 500_000_000)),
        ("-1", time(-1, 0)),
    ] {
        assert_eq!(pax::time(text.as_bytes()), expected, "{text}");
    }
    for wrong in ["", "-", ".5", "1e3", "--1", "1.x", "9999999999999999999"] {
        assert!(pax::time(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn sizes_are_filled_up_to_whole_blocks() {
    assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
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
        b"x",
        b"8 path=a",
        b"99 path=a\n",
        b"+9 path=a\n",
        b"0 \n",
        b"0 a=b\n",
        b"3 =\n",
        b"12 path=abcde",
        b"99999999999999999999999 path=a\n",
        b"6 path\n",
        b"5 =a\n",
        b"11 mtime=x\n",
        b"11 path=a\0b\n",
        b"11 uid=1e3x\n",
        b"12 mtime=--1\n",
        b"11 uid=1e3\n8 uid=5\n",
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

/// A tar in memory.
pub struct Slice<'a>(pub &'a [u8]);

impl TarSource for Slice<'_> {
    type Error = MemberError;

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, MemberError> {
        let (taken, rest) = self.0.split_at(buffer.len().min(self.0.len()));
        buffer[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        Ok(taken.len())
    }

    fn skip(&mut self, bytes: u64) -> Result<u64, MemberError> {
        let (taken, rest) = self.0.split_at(self.0.len().min(bytes as usize));
        self.0 = rest;
        Ok(taken.len() as u64)
    }
}

fn members(tar: &[u8]) -> Result<Vec<Member>, MemberError> {
    let mut reader = MemberReader::new(Slice(tar));
    let mut members = Vec::new();
    while let Some(member) = reader.next_member()? {
        members.push(member);
    }
    Ok(members)
}

#[test]
fn a_member_lies_where_its_own_header_does() {
    let text = meta(b'x', &records(&[("path", &[b'n'; 600])]));
    let first = header(b"first", b'0', b"00000000003\0", |_| ());
    let content = [b"abc".to_vec(), vec![0; BLOCK_BYTES - 3]].concat();
    let tar = [
        &first[..],
        &content,
        &text,
        &header(b"x", b'0', b"", |_| ()),
    ]
    .concat();
    let found = members(&tar).unwrap();
    let at = |number: usize| (found[number].offset, found[number].kind.clone());
    let file = |content, size| MemberKind::File { content, size };
    assert_eq!(at(0), (0, file(512, 3)));
    let own = 1024 + text.len() as u64;
    assert_eq!(at(1), (own, file(own + 512, 0)));
    // A tar may end behind what only says more of a member, and after one block of zeros.
    for end in [vec![], vec![0; 512], vec![0; 1024], vec![0; 1030]] {
        let tar = [&tar[..], &text, &end].concat();
        assert_eq!(members(&tar).as_ref(), Ok(&found));
    }
}

#[test]
fn what_is_no_member_is_told_with_its_place() {
    let uid = |uid: &str| meta(b'x', &record("uid", uid.as_bytes()));
    let good = header(b"good", b'0', b"", |_| ());
    let zeros = vec![0; BLOCK_BYTES];
    let long = record("path", &[b'n'; PATH_BYTES_MAX + 1]);
    for (tar, offset, cause) in [
        ([uid("4294967296"), good.clone()].concat(), 1024, "32 bits"),
        (
            [meta(b'x', b"9 uid=-1\n"), good.clone()].concat(),
            0,
            "number",
        ),
        ([meta(b'x', &long), good.clone()].concat(), 5120, "4096"),
        (header(b"x", b'V', b"", |_| ()), 0, "unknown type"),
        (header(b"x", b'S', b"", |_| ()), 0, "sparse"),
        (header(b"x", b'2', b"", |_| ()), 0, "no target"),
        (header(b"x", b'x', b"00010000001\0", |_| ()), 0, "too long"),
        ([&good[..], &zeros, &good].concat(), 512, "single block"),
        (
            [&good[..], &zeros, b"x"].concat(),
            1024,
            "inside of a header",
        ),
        ([&good[..], b"x"].concat(), 512, "inside of a header"),
        (uid("1")[..512].to_vec(), 512, "extended header"),
        (header(b"x", b'0', b"1", |_| ()), 512, "inside of a content"),
    ] {
        let error = [&good[..], &tar].concat();
        let error = members(&error).unwrap_err();
        assert!(error.cause.contains(cause), "{error}");
        assert_eq!(error.offset, 512 + offset, "{error}");
    }
}
