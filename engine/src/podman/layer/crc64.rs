//! CRC64 with the polynomial of ISO 3309, as tar-split has it of each file.

/// x^64 + x^4 + x^3 + x + 1, the lowest bit for the highest power.
const POLYNOMIAL: u64 = 0xd800_0000_0000_0000;

const TABLE: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            rest = match rest & 1 {
                1 => (rest >> 1) ^ POLYNOMIAL,
                _ => rest >> 1,
            };
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
};

pub(in crate::podman) struct Crc64(u64);

impl Crc64 {
    pub fn new() -> Self {
        Self(!0)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, byte| {
            TABLE[usize::from(sum as u8 ^ byte)] ^ (sum >> 8)
        });
    }

    pub fn value(self) -> u64 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-64/GO-ISO.
    #[test]
    fn the_sum_is_the_one_of_iso() {
        let mut sum = Crc64::new();
        sum.update(b"1234");
        sum.update(b"56789");
        assert_eq!(sum.value(), 0xb909_56c7_75a4_1001);
    }
}
