//! Keys and their slots ("Keys" in the specification).
//!
//! A slot holds the secrets of one role under a passphrase. Argon2id makes a master key from the
//! passphrase; a commitment to that key stands in the slot and is checked before anything is
//! opened, so that a wrong passphrase is told from damage, and so that no slot can be made that
//! opens under two passphrases.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use crate::codec::{DecodeError, Decoder, Defect};
use crate::frame::{self, ObjectKind, decode_text};
use crate::id::{ChunkIdKey, RepositoryId, SlotId, hex};
use crate::seal::{AuthorKey, Domain, PrivateKey, PublicKey, SALT_BYTES, Secret, TAG_BYTES};

/// Bytes of a slot's label.
pub const LABEL_BYTES_MAX: usize = 256;
/// What a slot may ask for at most: a store must not make a client run out of memory or time.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 1 << 20;
pub const ARGON2_PASSES_MAX: u32 = 16;
pub const ARGON2_LANES_MAX: u32 = 16;
/// Bytes of a write key's file.
pub const WRITE_KEY_FILE_BYTES_MAX: usize = 4096;

const ROLE_FULL: u8 = 1;
const ROLE_WRITE: u8 = 2;
/// Chunk-id key, chunker key, index key, role, private or public key, author's key.
const SECRETS_BYTES: usize = 32 * 3 + 1 + 32 * 2;

/// What a client that may write needs, and for a full key what reading needs.
#[derive(Clone)]
pub struct Secrets {
    pub chunk_id: Secret,
    pub chunker: Secret,
    pub index: Secret,
    pub role: Role,
}

#[derive(Clone)]
pub enum Role {
    /// Reads and may do everything.
    Full {
        private: PrivateKey,
        owner: AuthorKey,
    },
    /// Backs up, and cannot read what was backed up.
    Write {
        public: PublicKey,
        author: AuthorKey,
    },
}

/// Which [`Role`] a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    Full,
    Write,
}

impl SlotKind {
    const fn tag(self) -> u8 {
        match self {
            Self::Full => ROLE_FULL,
            Self::Write => ROLE_WRITE,
        }
    }

    /// The word that listings and JSON use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Write => "write",
        }
    }
}

impl Secrets {
    pub fn kind(&self) -> SlotKind {
        match self.role {
            Role::Full { .. } => SlotKind::Full,
            Role::Write { .. } => SlotKind::Write,
        }
    }

    /// The key that session keys are sealed to.
    pub fn public(&self) -> Result<PublicKey, DecodeError> {
        match &self.role {
            Role::Full { private, .. } => private.public(),
            Role::Write { public, .. } => Ok(*public),
        }
    }

    /// Signs what this client writes.
    pub fn author(&self) -> &AuthorKey {
        match &self.role {
            Role::Full { owner, .. } => owner,
            Role::Write { author, .. } => author,
        }
    }

    /// `None` for a write key.
    pub fn private(&self) -> Option<&PrivateKey> {
        match &self.role {
            Role::Full { private, .. } => Some(private),
            Role::Write { .. } => None,
        }
    }

    pub fn chunk_id_key(&self) -> ChunkIdKey {
        ChunkIdKey::new(&self.chunk_id.0)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        // As large as it will get: growing would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRETS_BYTES + TAG_BYTES));
        for key in [&self.chunk_id, &self.chunker, &self.index] {
            bytes.extend_from_slice(&key.0);
        }
        bytes.push(self.kind().tag());
        match &self.role {
            Role::Full { private, owner } => {
                bytes.extend_from_slice(&private.0);
                bytes.extend_from_slice(owner.to_bytes().as_slice());
            }
            Role::Write { public, author } => {
                bytes.extend_from_slice(&public.0);
                bytes.extend_from_slice(author.to_bytes().as_slice());
            }
        }
        bytes
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let chunk_id = Secret(input.array()?);
        let chunker = Secret(input.array()?);
        let index = Secret(input.array()?);
        let role = input.u8()?;
        let mut key = input.array::<32>()?;
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(input.raw(32)?);
        let author = AuthorKey::from_bytes(&seed);
        let role = match role {
            ROLE_FULL => Role::Full {
                private: PrivateKey(key),
                owner: author,
            },
            ROLE_WRITE => Role::Write {
                public: PublicKey(key),
                author,
            },
            other => return input.fail(Defect::Tag("role", u64::from(other))),
        };
        key.zeroize();
        Ok(Self {
            chunk_id,
            chunker,
            index,
            role,
        })
    }
}

/// The work that trying one passphrase takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Params {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl Argon2Params {
    /// About 0.1 s on one core of a server of 2024.
    pub const DEFAULT: Self = Self {
        memory_kib: 64 << 10,
        passes: 2,
        lanes: 1,
    };

    fn check(&self, input: &Decoder<'_>) -> Result<(), DecodeError> {
        if self.memory_kib > ARGON2_MEMORY_KIB_MAX
            || self.passes > ARGON2_PASSES_MAX
            || self.lanes > ARGON2_LANES_MAX
        {
            return input.fail(Defect::TooLarge("Argon2 parameters"));
        }
        if self.passes == 0 || self.lanes == 0 || self.memory_kib < 8 * self.lanes {
            return input.fail(Defect::NotCanonical("Argon2 parameters"));
        }
        Ok(())
    }

    fn master(&self, passphrase: &[u8], salt: &[u8; SALT_BYTES]) -> Result<Secret, DecodeError> {
        let failed = |_| ObjectKind::KeySlot.error(Defect::TooLarge("Argon2 parameters"));
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(failed)?;
        let mut master = Secret([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, salt, &mut master.0)
            .map_err(failed)?;
        Ok(master)
    }
}

/// The secrets of one role, under a passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySlot {
    /// Derived from the slot's bytes.
    pub id: SlotId,
    pub kind: SlotKind,
    /// What people call it; in clear.
    pub label: String,
    pub params: Argon2Params,
    salt: [u8; SALT_BYTES],
    commitment: [u8; 32],
    /// Everything in front of the commitment, which binds the sealed secrets.
    front: Vec<u8>,
    sealed: Vec<u8>,
}

impl KeySlot {
    /// The slot's bytes. `salt` must be fresh and random. Takes as long as `params` say.
    pub fn seal(
        secrets: &Secrets,
        repository: RepositoryId,
        passphrase: &[u8],
        label: &str,
        params: Argon2Params,
        salt: [u8; SALT_BYTES],
    ) -> Result<Vec<u8>, DecodeError> {
        let input = Decoder::new(ObjectKind::KeySlot.word(), &[]);
        params.check(&input)?;
        if label.len() > LABEL_BYTES_MAX {
            return input.fail(Defect::TooLarge("label"));
        }
        let mut out = frame::begin(ObjectKind::KeySlot);
        out.u8(secrets.kind().tag())
            .bytes(label.as_bytes())
            .u32(params.memory_kib)
            .u32(params.passes)
            .u32(params.lanes)
            .raw(&salt);
        let master = params.master(passphrase, &salt)?;
        let mut sealed = secrets.encode();
        master
            .object_key(repository, Domain::KeySlot, &salt)
            .seal(out.as_slice(), &mut sealed)?;
        out.raw(&commitment(&master)).raw(&sealed);
        Ok(frame::finish(out))
    }

    /// What can be known without the passphrase.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = frame::open(ObjectKind::KeySlot, bytes)?;
        let kind = match input.u8()? {
            ROLE_FULL => SlotKind::Full,
            ROLE_WRITE => SlotKind::Write,
            other => return input.fail(Defect::Tag("role", u64::from(other))),
        };
        let label = decode_text(&mut input, "label", LABEL_BYTES_MAX)?;
        let params = Argon2Params {
            memory_kib: input.u32()?,
            passes: input.u32()?,
            lanes: input.u32()?,
        };
        params.check(&input)?;
        let salt = input.array()?;
        let front = bytes.len() - frame::CHECKSUM_BYTES - input.remaining();
        let commitment = input.array()?;
        let sealed = input.raw(SECRETS_BYTES + TAG_BYTES)?.to_vec();
        input.end()?;
        Ok(Self {
            id: slot_id(bytes),
            kind,
            label,
            params,
            salt,
            commitment,
            front: bytes[..front].to_vec(),
            sealed,
        })
    }

    /// A wrong passphrase is [`Defect::NotAuthentic`]`("passphrase")`; anything else means that
    /// the slot is not what it claims to be. Takes as long as the slot's parameters say.
    pub fn open(
        &self,
        repository: RepositoryId,
        passphrase: &[u8],
    ) -> Result<Secrets, DecodeError> {
        let master = self.params.master(passphrase, &self.salt)?;
        // In constant time, as blake3's comparison of hashes is.
        if blake3::Hash::from(commitment(&master)) != blake3::Hash::from(self.commitment) {
            return Err(ObjectKind::KeySlot.error(Defect::NotAuthentic("passphrase")));
        }
        let mut opened = Zeroizing::new(self.sealed.clone());
        let plaintext = master
            .object_key(repository, Domain::KeySlot, &self.salt)
            .open(&self.front, 0, &mut opened)
            .map_err(|error| ObjectKind::KeySlot.error(error.defect))?;
        let mut input = Decoder::new(ObjectKind::KeySlot.word(), plaintext);
        let secrets = Secrets::decode(&mut input)?;
        input.end()?;
        if secrets.kind() != self.kind {
            return input.fail(Defect::NotCanonical("role"));
        }
        Ok(secrets)
    }
}

/// The id of the slot that has these bytes.
pub fn slot_id(bytes: &[u8]) -> SlotId {
    let mut id = [0; SlotId::LEN];
    id.copy_from_slice(&blake3::hash(bytes).as_bytes()[..SlotId::LEN]);
    SlotId(id)
}

fn commitment(master: &Secret) -> [u8; 32] {
    *blake3::keyed_hash(&master.0, b"podkeep slot commitment").as_bytes()
}

/// A write key as a file, for hosts that back up without a passphrase.
///
/// Text: the line [`HEADER`](Self::HEADER), then lower-case hex in lines of 64 digits. Readers
/// pass over white space between lines and at the end.
#[derive(Clone)]
pub struct WriteKeyFile {
    pub repository: RepositoryId,
    /// [`Config::pin`](crate::config::Config::pin): the store cannot show another repository.
    pub pin: [u8; 32],
    /// Of [`Role::Write`].
    pub secrets: Secrets,
}

impl WriteKeyFile {
    pub const HEADER: &'static str = "podkeep write key 1";
    const OBJECT: &'static str = "write key file";
    const CHECKSUM_BYTES: usize = 16;
    const BYTES: usize = RepositoryId::LEN + 32 + SECRETS_BYTES + Self::CHECKSUM_BYTES;

    /// Refuses secrets of a full key: such a file has no passphrase.
    pub fn encode(&self) -> Result<Zeroizing<String>, DecodeError> {
        if self.secrets.kind() != SlotKind::Write {
            return Err(Self::error(Defect::NotCanonical("role")));
        }
        Ok(self.text(Self::HEADER))
    }

    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        let file = Self::of_text(text, Self::HEADER)?;
        match file.secrets.kind() {
            SlotKind::Write => Ok(file),
            SlotKind::Full => Err(Self::error(Defect::NotCanonical("role"))),
        }
    }

    fn text(&self, header: &str) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(Self::BYTES));
        bytes.extend_from_slice(&self.repository.0);
        bytes.extend_from_slice(&self.pin);
        bytes.extend_from_slice(&self.secrets.encode());
        let checksum = Self::checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let mut text = Zeroizing::new(String::with_capacity(WRITE_KEY_FILE_BYTES_MAX));
        text.push_str(header);
        text.push('\n');
        for line in bytes.chunks(32) {
            text.push_str(&Zeroizing::new(hex(line)));
            text.push('\n');
        }
        text
    }

    fn of_text(text: &str, header: &str) -> Result<Self, DecodeError> {
        if text.len() > WRITE_KEY_FILE_BYTES_MAX {
            return Err(Self::error(Defect::TooLarge("file")));
        }
        let mut lines = text.lines();
        if lines.next().map(str::trim) != Some(header) {
            return Err(Self::error(Defect::Magic));
        }
        let mut digits = Zeroizing::new(Vec::with_capacity(WRITE_KEY_FILE_BYTES_MAX));
        for line in lines {
            digits.extend_from_slice(line.trim().as_bytes());
        }
        if digits.len() != Self::BYTES * 2 {
            return Err(Self::error(if digits.len() < Self::BYTES * 2 {
                Defect::Truncated
            } else {
                Defect::Trailing
            }));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(Self::BYTES));
        for pair in digits.chunks_exact(2) {
            let digit = |d: u8| match d {
                b'0'..=b'9' => Some(d - b'0'),
                b'a'..=b'f' => Some(d - b'a' + 10),
                _ => None,
            };
            match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => bytes.push(high << 4 | low),
                _ => return Err(Self::error(Defect::NotCanonical("hex digits"))),
            }
        }
        let (checked, checksum) = bytes.split_at(Self::BYTES - Self::CHECKSUM_BYTES);
        if Self::checksum(checked) != checksum {
            return Err(Self::error(Defect::NotAuthentic("checksum")));
        }
        let mut input = Decoder::new(Self::OBJECT, checked);
        let file = Self {
            repository: RepositoryId(input.array()?),
            pin: input.array()?,
            secrets: Secrets::decode(&mut input)?,
        };
        input.end()?;
        Ok(file)
    }

    fn checksum(bytes: &[u8]) -> [u8; Self::CHECKSUM_BYTES] {
        let mut checksum = [0; Self::CHECKSUM_BYTES];
        checksum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..Self::CHECKSUM_BYTES]);
        checksum
    }

    fn error(defect: Defect) -> DecodeError {
        DecodeError {
            object: Self::OBJECT,
            defect,
        }
    }
}

/// Keys of an open repository for a podkeep that works for this one, which never writes them down.
/// The same text as that of a write key's file but for its first line, and of either role.
#[derive(Clone)]
pub struct HandedKeys {
    pub repository: RepositoryId,
    pub pin: [u8; 32],
    pub secrets: Secrets,
}

impl HandedKeys {
    pub const HEADER: &'static str = "podkeep keys for one run 1";

    pub fn encode(&self) -> Zeroizing<String> {
        let keys = WriteKeyFile {
            repository: self.repository,
            pin: self.pin,
            secrets: self.secrets.clone(),
        };
        keys.text(Self::HEADER)
    }

    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        let WriteKeyFile {
            repository,
            pin,
            secrets,
        } = WriteKeyFile::of_text(text, Self::HEADER)?;
        Ok(Self {
            repository,
            pin,
            secrets,
        })
    }
}
