//! Solid blocks: many chunks in one zstd frame and one seal ("Blocks" in the specification).

/// What a block gathers; decides its size and how it is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlockClass {
    /// Contents of small files: solid blocks pay most where many files meet.
    Small = 1,
    /// Contents of large files, streams.
    Large = 2,
    /// Image layers: long distance matching.
    Layer = 3,
    /// Tree and list nodes, records.
    Meta = 4,
}

impl BlockClass {
    pub const ALL: [Self; 4] = [Self::Small, Self::Large, Self::Layer, Self::Meta];

    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u8 == value)
    }
}
