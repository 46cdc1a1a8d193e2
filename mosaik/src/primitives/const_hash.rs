//! BLAKE3 of one chunk (at most 1,024 bytes) as a `const fn`, so that identifiers can be computed at
//! compile time. The `blake3` crate has no const interface; the tests here hold this against it.
//!
//! Source: <https://github.com/BLAKE3-team/BLAKE3-specs/blob/master/blake3.pdf>, section 2.

const IV: [u32; 8] =
    [0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19];
const PERMUTATION: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
/// Which state words each of a round's eight mixing steps works on: four columns, then four diagonals.
const QUARTERS: [[usize; 4]; 8] = [
    [0, 4, 8, 12],
    [1, 5, 9, 13],
    [2, 6, 10, 14],
    [3, 7, 11, 15],
    [0, 5, 10, 15],
    [1, 6, 11, 12],
    [2, 7, 8, 13],
    [3, 4, 9, 14],
];
const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const ROOT: u32 = 8;
const BLOCK: usize = 64;

/// The longest input in bytes: one BLAKE3 chunk.
pub(crate) const MAX_LEN: usize = 1024;

/// BLAKE3 of `a` followed by `b`.
///
/// # Panics
/// When the two together are longer than [`MAX_LEN`]; in a const context that is a compile error.
pub(crate) const fn hash(a: &[u8], b: &[u8]) -> [u8; 32] {
    let len = a.len() + b.len();
    assert!(len <= MAX_LEN, "a name and its domain are at most 1,024 bytes long");
    let mut cv = IV;
    let mut start = 0;
    loop {
        let block_len = if len - start < BLOCK { len - start } else { BLOCK };
        let last = start + block_len == len;
        let mut words = [0u32; 16];
        let mut i = 0;
        while i < block_len {
            let at = start + i;
            let byte = if at < a.len() { a[at] } else { b[at - a.len()] };
            words[i / 4] |= (byte as u32) << (8 * (i % 4));
            i += 1;
        }
        let flags = if start == 0 { CHUNK_START } else { 0 } | if last { CHUNK_END | ROOT } else { 0 };
        #[expect(clippy::cast_possible_truncation, reason = "a block has at most 64 bytes")]
        let length = block_len as u32;
        cv = compress(cv, words, length, flags);
        start += block_len;
        if last {
            break;
        }
    }
    let mut out = [0u8; 32];
    let mut i = 0;
    while i < 32 {
        out[i] = cv[i / 4].to_le_bytes()[i % 4];
        i += 1;
    }
    out
}

const fn compress(cv: [u32; 8], mut m: [u32; 16], block_len: u32, flags: u32) -> [u32; 8] {
    let mut v =
        [cv[0], cv[1], cv[2], cv[3], cv[4], cv[5], cv[6], cv[7], IV[0], IV[1], IV[2], IV[3], 0, 0, block_len, flags];
    let mut round = 0;
    while round < 7 {
        let mut q = 0;
        while q < 8 {
            mix(&mut v, QUARTERS[q], m[2 * q], m[2 * q + 1]);
            q += 1;
        }
        let before = m;
        let mut i = 0;
        while i < 16 {
            m[i] = before[PERMUTATION[i]];
            i += 1;
        }
        round += 1;
    }
    let mut out = [0u32; 8];
    let mut i = 0;
    while i < 8 {
        out[i] = v[i] ^ v[i + 8];
        i += 1;
    }
    out
}

const fn mix(v: &mut [u32; 16], at: [usize; 4], x: u32, y: u32) {
    let [a, b, c, d] = at;
    v[a] = v[a].wrapping_add(v[b]).wrapping_add(x);
    v[d] = (v[d] ^ v[a]).rotate_right(16);
    v[c] = v[c].wrapping_add(v[d]);
    v[b] = (v[b] ^ v[c]).rotate_right(12);
    v[a] = v[a].wrapping_add(v[b]).wrapping_add(y);
    v[d] = (v[d] ^ v[a]).rotate_right(8);
    v[c] = v[c].wrapping_add(v[d]);
    v[b] = (v[b] ^ v[c]).rotate_right(7);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_blake3_crate_at_every_length() {
        let data: Vec<u8> = (0..MAX_LEN).map(|i| u8::try_from(i * 31 % 251).expect("small")).collect();
        for len in 0..=MAX_LEN {
            let (a, b) = data[..len].split_at(len / 3);
            assert_eq!(hash(a, b), *blake3::hash(&data[..len]).as_bytes(), "length {len}");
        }
    }
}
