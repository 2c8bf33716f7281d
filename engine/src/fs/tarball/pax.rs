//! The records of a PAX header ("27 path=...\n"), of which we need few.

use podkeep_format::tree::Time;

use super::pax_time;

/// What the records say of the member behind them. An empty value takes nothing over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<Time>,
}

impl Pax {
    /// An error says what is wrong, as in a [`TarError`](super::TarError).
    pub fn read(mut records: &[u8]) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        while !records.is_empty() {
            let (record, rest) = split(records).ok_or("a PAX record is none")?;
            records = rest;
            let (key, value) = record;
            pax.take(key, value)?;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if key.starts_with(b"GNU.sparse.") {
            return Err("sparse files in tars are not supported");
        }
        let number = || -> Result<Option<u64>, &'static str> {
            if value.is_empty() {
                return Ok(None);
            }
            let is_number = value.iter().all(u8::is_ascii_digit);
            let parsed = str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
            match parsed {
                Some(number) if is_number => Ok(Some(number)),
                _ => Err("a number of a PAX record is none"),
            }
        };
        let id = || match number()? {
            None => Ok(None),
            Some(id) => u32::try_from(id)
                .map(Some)
                .map_err(|_| "an owner is over 32 bits"),
        };
        let text = || match value {
            [] => Ok(None),
            value if value.contains(&0) => Err("a name of a PAX record has a NUL"),
            value => Ok(Some(value.to_vec())),
        };
        match key {
            b"path" => self.path = text()?,
            b"linkpath" => self.link = text()?,
            b"size" => self.size = number()?,
            b"uid" => self.uid = id()?,
            b"gid" => self.gid = id()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(pax_time(value).ok_or("a time of a PAX record is none")?),
            _ => {}
        }
        Ok(())
    }
}

/// A record's key and value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The first record, and what is behind it. Its length, in decimal, counts all of it.
fn split(records: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let blank = records.iter().position(|byte| *byte == b' ')?;
    let digits = &records[..blank];
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let len: usize = str::from_utf8(digits).ok()?.parse().ok()?;
    if len > records.len() {
        return None;
    }
    let record = records.get(blank + 1..len)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty()).then_some(((key, value), &records[len..]))
}

/// Appends a record.
pub fn append(key: &[u8], value: &[u8], records: &mut Vec<u8>) {
    // A blank, an equals sign and the end of the line; the length counts itself.
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len += 1;
    }
    records.extend_from_slice(format!("{len} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_are_written_are_read() {
        for len in [0, 1, 90, 91, 92, 93, 94, 989, 990, 991, 992] {
            let path = vec![b'x'; len];
            let mut records = Vec::new();
            append(b"path", &path, &mut records);
            append(b"SCHILY.xattr.user.x", b"\n=\0", &mut records);
            append(b"uid", b"4294967295", &mut records);
            let pax = Pax::read(&records).unwrap();
            assert_eq!(pax.path, (len > 0).then_some(path));
            assert_eq!(pax.uid, Some(u32::MAX));
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for wrong in [
            &b"x"[..],
            b"8 path=a",
            b"99 path=a\n",
            b"+9 path=a\n",
            b"0 \n",
            b"99999999999999999999999 path=a\n",
            b"6 path\n",
            b"5 =a\n",
            b"11 path=a\0b\n",
            b"9 uid=-1\n",
            b"17 uid=4294967296\n",
            b"23 GNU.sparse.major=1\n",
            b"11 mtime=x\n",
        ] {
            assert!(Pax::read(wrong).is_err(), "{wrong:?}");
        }
    }
}
