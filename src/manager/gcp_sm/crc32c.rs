//! CRC-32C, the checksum that Secret Manager sends with each payload (RFC 3720, section 12.1; Castagnoli's polynomial).
//!
//! A payload is at most 64 KiB and read once in minutes, so that one table is fast enough.

/// The polynomial, lowest bit first.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = table();

/// The checksum of `bytes`.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        let index = (sum ^ u32::from(*byte)) & 0xff;
        TABLE[index as usize] ^ (sum >> 8)
    })
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut sum = index as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_standard() {
        // RFC 3720, appendix B.4, and the check value that catalogues of checksums list.
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        #[rustfmt::skip]
        let rows: [(&[u8], u32); 6] = [
            (&[0; 32], 0x8a91_36aa), (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e), (&descending, 0x113f_db5c),
            (b"123456789", 0xe306_9283), (b"", 0),
        ];
        for (bytes, expected) in rows {
            assert_eq!(checksum(bytes), expected, "{bytes:?}");
        }
    }
}
