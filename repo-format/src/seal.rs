//! Sealing: AES-256-GCM with one key per object, session keys sealed to the repository's public
//! key, signatures ("Sealing" in the specification).
//!
//! A key that seals is derived for one object from a longer-lived key and 32 random bytes (the
//! object's salt), and its nonces are a counter that every seal uses up, also one whose bytes are
//! then never stored: no nonce is ever used twice under one key, whatever is retried.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::id::{AuthorId, RepositoryId};

/// The version of everything that this build writes.
pub const FORMAT_VERSION: u8 = 1;
/// Bytes that a seal adds to its plaintext: the GCM tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of the random salt that an object's key is derived with.
pub const SALT_BYTES: usize = 32;
/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What a seal or a signature is for. Bound into every key derivation, into the associated data
/// of every seal and into every signature, so that no object can stand in for one of another
/// kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Domain {
    Block = 1,
    TableOfContents = 2,
    Segment = 3,
    SnapshotHeader = 4,
    SnapshotBody = 5,
    Run = 6,
    Lease = 7,
    Tombstone = 8,
    Fence = 9,
    Verdict = 10,
    Endorsement = 11,
    Author = 12,
    Revocation = 13,
    KeySlot = 14,
    Config = 15,
    LayerRecord = 16,
}

/// 32 secret bytes, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(pub [u8; 32]);

impl Secret {
    /// The key of one object: derived from this key, the object's kind and its random salt.
    pub fn object_key(
        &self,
        repository: RepositoryId,
        domain: Domain,
        salt: &[u8; SALT_BYTES],
    ) -> ObjectKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"podkeep object key");
        hasher.update(&[domain as u8]);
        hasher.update(salt);
        let key = Zeroizing::new(*hasher.finalize().as_bytes());
        ObjectKey::new(repository, domain, &key)
    }
}

/// Seals and opens the parts of one object.
pub struct ObjectKey {
    key: Option<LessSafeKey>,
    bound: [u8; RepositoryId::LEN + 2],
    seals: u64,
}

impl ObjectKey {
    /// `key` must be used for one object only.
    pub fn new(repository: RepositoryId, domain: Domain, key: &[u8; 32]) -> Self {
        let mut bound = [0; RepositoryId::LEN + 2];
        bound[..RepositoryId::LEN].copy_from_slice(&repository.0);
        bound[RepositoryId::LEN] = domain as u8;
        bound[RepositoryId::LEN + 1] = FORMAT_VERSION;
        Self {
            // A 32-byte key is never refused; without one, nothing can be sealed or opened.
            key: UnboundKey::new(&AES_256_GCM, key)
                .ok()
                .map(LessSafeKey::new),
            bound,
            seals: 0,
        }
    }

    /// Seals `bytes` in place and appends the tag. Returns the counter that opening needs.
    /// `place` is bound too: the position of the part inside its object, and anything else that
    /// stands outside the seal and must not be changed.
    pub fn seal(&mut self, place: &[u8], bytes: &mut Vec<u8>) -> Result<u64, DecodeError> {
        self.seal_tail(place, bytes, 0)
    }

    /// As [`seal`](Self::seal), of `bytes[start..]`.
    ///
    /// # Panics
    /// When `start` is beyond the end.
    pub fn seal_tail(
        &mut self,
        place: &[u8],
        bytes: &mut Vec<u8>,
        start: usize,
    ) -> Result<u64, DecodeError> {
        let counter = self.seals;
        self.seals += 1;
        let aad = Aad::from(self.aad(place));
        let tag = self.key.as_ref().and_then(|key| {
            key.seal_in_place_separate_tag(nonce(counter), aad, &mut bytes[start..])
                .ok()
        });
        match tag {
            Some(tag) => {
                bytes.extend_from_slice(tag.as_ref());
                Ok(counter)
            }
            None => Err(not_authentic("seal")),
        }
    }

    /// Opens what [`seal`](Self::seal) made, in place; the plaintext has 16 bytes less.
    pub fn open<'b>(
        &self,
        place: &[u8],
        counter: u64,
        bytes: &'b mut [u8],
    ) -> Result<&'b mut [u8], DecodeError> {
        let opened = self.key.as_ref().and_then(|key| {
            key.open_in_place(nonce(counter), Aad::from(self.aad(place)), bytes)
                .ok()
        });
        opened.ok_or(not_authentic("seal"))
    }

    fn aad(&self, place: &[u8]) -> Vec<u8> {
        let mut aad = Vec::with_capacity(self.bound.len() + place.len());
        aad.extend_from_slice(&self.bound);
        aad.extend_from_slice(place);
        aad
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn not_authentic(what: &'static str) -> DecodeError {
    DecodeError {
        object: "sealed object",
        defect: Defect::NotAuthentic(what),
    }
}

/// The repository's X25519 key pair; whoever holds the private key reads everything.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey(pub [u8; 32]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl PrivateKey {
    pub fn public(&self) -> Result<PublicKey, DecodeError> {
        let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&self.0)
            .map_err(|_| not_authentic("private key"))?;
        let mut public = [0; 32];
        X25519HkdfSha256::sk_to_pk(&private).write_exact(&mut public);
        Ok(PublicKey(public))
    }
}

/// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM: RFC 9180 identifiers.
pub const KEM_X25519: u16 = 0x0020;
/// Encapsulated key, session key, tag.
pub const SESSION_SEAL_BYTES: usize = 32 + 32 + TAG_BYTES;
/// Recipients of one session key.
pub const RECIPIENTS_MAX: u64 = 16;
const RECIPIENT_BYTES_MAX: usize = 4096;

/// The session key of one run, as it stands in the header of each object that it opens: sealed
/// once for each recipient. Today there is one (the repository's key); the list leaves room for
/// an escrow key or a post-quantum KEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSeal {
    /// (KEM identifier, sealed key), at least one. Unknown KEMs are kept and passed over.
    pub recipients: Vec<(u16, Vec<u8>)>,
}

impl SessionSeal {
    /// Seals `session` to `public`. `seed` must be fresh and random: it decides the ephemeral
    /// key.
    pub fn seal(
        session: &Secret,
        public: &PublicKey,
        repository: RepositoryId,
        author: AuthorId,
        seed: &[u8; 32],
    ) -> Result<Self, DecodeError> {
        let failed = |_| not_authentic("public key");
        let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&public.0).map_err(failed)?;
        let (encapsulated, sealed) =
            hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &public,
                &session_info(repository, author),
                &session.0,
                &[],
                &mut SeededRng::new(seed),
            )
            .map_err(failed)?;
        let mut bytes = vec![0; 32];
        encapsulated.write_exact(&mut bytes);
        bytes.extend_from_slice(&sealed);
        Ok(Self {
            recipients: vec![(KEM_X25519, bytes)],
        })
    }

    /// The session key, when `private` is one of the recipients' keys.
    pub fn open(
        &self,
        private: &PrivateKey,
        repository: RepositoryId,
        author: AuthorId,
    ) -> Result<Secret, DecodeError> {
        let failed = |_| not_authentic("session key");
        let private =
            <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&private.0).map_err(failed)?;
        for (kem, bytes) in &self.recipients {
            if *kem != KEM_X25519 || bytes.len() != SESSION_SEAL_BYTES {
                continue;
            }
            let (encapsulated, sealed) = bytes.split_at(32);
            let Ok(encapsulated) = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated)
            else {
                continue;
            };
            let opened = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &OpModeR::Base,
                &private,
                &encapsulated,
                &session_info(repository, author),
                sealed,
                &[],
            );
            if let Ok(opened) = opened {
                let opened = Zeroizing::new(opened);
                if let Ok(key) = <[u8; 32]>::try_from(opened.as_slice()) {
                    return Ok(Secret(key));
                }
            }
        }
        Err(not_authentic("session key"))
    }

    pub fn encode(&self, out: &mut Encoder) {
        out.varint(self.recipients.len() as u64);
        for (kem, bytes) in &self.recipients {
            out.u16(*kem).bytes(bytes);
        }
    }

    pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = input.bounded("recipients", RECIPIENTS_MAX)?;
        if count == 0 {
            return input.fail(Defect::NotCanonical("recipients"));
        }
        let mut recipients = Vec::new();
        for _ in 0..count {
            let kem = input.u16()?;
            recipients.push((kem, input.bytes("recipient", RECIPIENT_BYTES_MAX)?.to_vec()));
        }
        Ok(Self { recipients })
    }
}

fn session_info(repository: RepositoryId, author: AuthorId) -> Vec<u8> {
    let mut info = b"podkeep session key".to_vec();
    info.push(FORMAT_VERSION);
    info.extend_from_slice(&repository.0);
    info.extend_from_slice(&author.0);
    info
}

/// Expands a caller's random seed; this crate has no randomness of its own.
struct SeededRng(blake3::OutputReader);

impl SeededRng {
    fn new(seed: &[u8; 32]) -> Self {
        Self(blake3::Hasher::new_keyed(seed).finalize_xof())
    }
}

impl TryRng for SeededRng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for SeededRng {}

/// An author's signing key.
#[derive(Clone)]
pub struct AuthorKey(SigningKey);

impl AuthorKey {
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(bytes))
    }

    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    pub fn id(&self) -> AuthorId {
        AuthorId(self.0.verifying_key().to_bytes())
    }

    /// Signs `bytes` as an object of this repository and kind.
    pub fn sign(
        &self,
        repository: RepositoryId,
        domain: Domain,
        bytes: &[u8],
    ) -> [u8; SIGNATURE_BYTES] {
        self.0
            .sign(&signed_digest(repository, domain, bytes))
            .to_bytes()
    }
}

/// Checks what [`AuthorKey::sign`] made; refuses weak keys and malleable signatures.
pub fn verify(
    author: AuthorId,
    repository: RepositoryId,
    domain: Domain,
    bytes: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), DecodeError> {
    let digest = signed_digest(repository, domain, bytes);
    VerifyingKey::from_bytes(&author.0)
        .and_then(|key| {
            key.verify_strict(&digest, &ed25519_dalek::Signature::from_bytes(signature))
        })
        .map_err(|_| not_authentic("signature"))
}

/// What is signed: a digest, so that large objects are hashed once and fast.
fn signed_digest(repository: RepositoryId, domain: Domain, bytes: &[u8]) -> Vec<u8> {
    let mut message = b"podkeep signature".to_vec();
    message.push(FORMAT_VERSION);
    message.push(domain as u8);
    message.extend_from_slice(&repository.0);
    message.extend_from_slice(blake3::hash(bytes).as_bytes());
    message
}
