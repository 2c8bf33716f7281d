//! What the bytes of a podkeep repository mean.
