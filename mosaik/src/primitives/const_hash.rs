//! BLAKE3 of one chunk (at most 1,024 bytes) as a `const fn`, so that identifiers can be computed at
//! compile time. The `blake3` crate has no const interface; the tests here hold this against it.
//!
//! Source: <https://github.com/BLAKE3-team/BLAKE3-specs/blob/master/blake3.pdf>, section 2.

const IV: [u32; 8] =
    [0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19];
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
        let mut words = [0u64; 16];
        let mut i = 0;
        while i < block_len {
            let at = start + i;
            let byte = if at < a.len() { a[at] } else { b[at - a.len()] };
            words[i / 4] |= (byte as u64) << (8 * (i % 4));
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
    let (mut out, mut i) = ([0u8; 32], 0);
    while i < 8 {
        [out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3]] = cv[i].to_le_bytes();
        i += 1;
    }
    out
}

/// Words are held in 64 bits, of which this many count, and there are no calls and no loops but the rounds: what the compiler
/// interprets takes it some hundred nanoseconds a step and more than a microsecond a call, and it does this for each name and each shape.
const WORD: u64 = 0xFFFF_FFFF;

/// Mixes two words of the message into four of the state.
macro_rules! mix {
    ($a:ident $b:ident $c:ident $d:ident, $x:expr, $y:expr) => {
        $a = ($a + $b + $x) & WORD;
        $d ^= $a;
        $d = ($d >> 16 | $d << 16) & WORD;
        $c = ($c + $d) & WORD;
        $b ^= $c;
        $b = ($b >> 12 | $b << 20) & WORD;
        $a = ($a + $b + $y) & WORD;
        $d ^= $a;
        $d = ($d >> 8 | $d << 24) & WORD;
        $c = ($c + $d) & WORD;
        $b ^= $c;
        $b = ($b >> 7 | $b << 25) & WORD;
    };
}

const fn compress(cv: [u32; 8], mut m: [u64; 16], block_len: u32, flags: u32) -> [u32; 8] {
    let [mut a0, mut a1, mut a2, mut a3, mut b0, mut b1, mut b2, mut b3] = wide(cv);
    let [mut c0, mut c1, mut c2, mut c3, ..] = wide(IV);
    let (mut d0, mut d1, mut d2, mut d3) = (0, 0, block_len as u64, flags as u64);
    let mut round = 0;
    while round < 7 {
        // The columns, then the diagonals.
        mix!(a0 b0 c0 d0, m[0], m[1]);
        mix!(a1 b1 c1 d1, m[2], m[3]);
        mix!(a2 b2 c2 d2, m[4], m[5]);
        mix!(a3 b3 c3 d3, m[6], m[7]);
        mix!(a0 b1 c2 d3, m[8], m[9]);
        mix!(a1 b2 c3 d0, m[10], m[11]);
        mix!(a2 b3 c0 d1, m[12], m[13]);
        mix!(a3 b0 c1 d2, m[14], m[15]);
        m = [m[2], m[6], m[3], m[10], m[7], m[0], m[4], m[13], m[1], m[11], m[12], m[5], m[9], m[14], m[15], m[8]];
        round += 1;
    }
    narrow([a0 ^ c0, a1 ^ c1, a2 ^ c2, a3 ^ c3, b0 ^ d0, b1 ^ d1, b2 ^ d2, b3 ^ d3])
}

const fn wide(words: [u32; 8]) -> [u64; 8] {
    [
        words[0] as u64,
        words[1] as u64,
        words[2] as u64,
        words[3] as u64,
        words[4] as u64,
        words[5] as u64,
        words[6] as u64,
        words[7] as u64,
    ]
}

#[expect(clippy::cast_possible_truncation, reason = "all have at most 32 bits")]
const fn narrow(words: [u64; 8]) -> [u32; 8] {
    [
        words[0] as u32,
        words[1] as u32,
        words[2] as u32,
        words[3] as u32,
        words[4] as u32,
        words[5] as u32,
        words[6] as u32,
        words[7] as u32,
    ]
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
