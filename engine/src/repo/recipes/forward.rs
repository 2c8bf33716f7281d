//! Reading parts of a layer's tar without the rest.

use podkeep_format::recipe::Recipe;

use super::{Kept, PartOf, PartSource, RecipePart, RecipeParts};
use crate::repo::RepoResult;
use crate::repo::reader::Reader;

impl Reader {
    /// The bytes of a layer's tar from its front, of which those that are passed over are not
    /// fetched. Every chunk is checked; that the whole tar has its DiffID is not.
    pub fn recipe_bytes(&self, recipe: &Recipe) -> RecipeBytes<'_> {
        RecipeBytes {
            reader: self,
            parts: self.recipe_parts(recipe),
            part: None,
            kept: [Kept::default(), Kept::default()],
        }
    }
}

/// A place in a layer's tar that moves forward only.
pub struct RecipeBytes<'r> {
    reader: &'r Reader,
    parts: RecipeParts<'r>,
    /// The part that we are in, and how many bytes of it lie behind us.
    part: Option<(RecipePart, u64)>,
    kept: [Kept; 2],
}

impl RecipeBytes<'_> {
    /// The next bytes, as many as `buffer` takes; fewer only where the tar ends.
    pub fn fill(&mut self, buffer: &mut [u8]) -> RepoResult<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let Some((part, taken)) = self.current()? else {
                break;
            };
            let room = &mut buffer[filled..];
            let len = (part.len - taken).min(room.len() as u64) as usize;
            let into = &mut room[..len];
            match &part.source {
                PartSource::Zeros => into.fill(0),
                PartSource::Inline(bytes) => {
                    let start = taken as usize;
                    into.copy_from_slice(&bytes[start..start + len]);
                }
                PartSource::Chunk(slice) => {
                    let kept = &mut self.kept[usize::from(part.stream == PartOf::Payloads)];
                    let bytes = kept.bytes(self.reader, slice, part.len as usize)?;
                    let start = taken as usize;
                    into.copy_from_slice(&bytes[start..start + len]);
                }
            }
            self.advance(part, taken + len as u64);
            filled += len;
        }
        Ok(filled)
    }

    /// Passes over the next bytes. Returns how many there were: fewer only where the tar ends.
    pub fn skip(&mut self, bytes: u64) -> RepoResult<u64> {
        let mut left = bytes;
        while left > 0 {
            let Some((part, taken)) = self.current()? else {
                break;
            };
            let len = (part.len - taken).min(left);
            self.advance(part, taken + len);
            left -= len;
        }
        Ok(bytes - left)
    }

    /// The part that the next byte is of, which [`advance`](Self::advance) gives back.
    fn current(&mut self) -> RepoResult<Option<(RecipePart, u64)>> {
        match self.part.take() {
            Some(current) => Ok(Some(current)),
            None => Ok(self.parts.next().transpose()?.map(|part| (part, 0))),
        }
    }

    fn advance(&mut self, part: RecipePart, taken: u64) {
        self.part = (taken < part.len).then_some((part, taken));
    }
}
