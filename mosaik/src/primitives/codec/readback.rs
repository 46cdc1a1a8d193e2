//! Reads back what was written, writes it again, and compares.

/// How often the same bytes are read before an encoding that differs is taken for one that always differs in the same way.
/// Two entries of a map in random order are in the same order that often by chance in one of 30,000 tries.
const TRIES: usize = 16;

/// What was found when an encoding was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadBack {
    /// It encodes to the same bytes again.
    Equal,
    /// The same value encodes to the same bytes in another order each time, as a map in random order does.
    Varies,
}

/// Where bytes are not what comes of reading and writing them again.
#[derive(Debug)]
pub(crate) struct Differs {
    /// The first byte that differs, or at which reading ended.
    pub(crate) at: usize,
    /// In words.
    pub(crate) what: String,
}

/// Compares bytes with what comes of reading and writing them again; the error of that is a text and where it occurred.
pub(crate) fn compare(bytes: &[u8], again: impl Fn() -> Result<Vec<u8>, (String, usize)>) -> Result<ReadBack, Differs> {
    let again = || again().map_err(|(error, at)| Differs { at, what: format!("it cannot be read back: {error}") });
    let first = again()?;
    if *first == *bytes {
        return Ok(ReadBack::Equal);
    }
    let counted = tally(bytes);
    for tried in 1.. {
        let next = again()?;
        if tally(&next) != counted || tally(&first) != counted || (tried == TRIES && next == first) {
            break;
        }
        if next != first {
            return Ok(ReadBack::Varies);
        }
    }
    let at = first.iter().zip(bytes).take_while(|(one, other)| one == other).count();
    let (was, is) = (bytes.len(), first.len());
    let what = format!(
        "read back and encoded again it differs: {was} bytes became {is}, the first difference is at byte {at}"
    );
    Err(Differs { at, what })
}

/// How often each byte occurs: what encodings of one value in different orders have in common.
fn tally(bytes: &[u8]) -> [u64; 256] {
    let mut tally = [0; 256];
    bytes.iter().for_each(|byte| tally[usize::from(*byte)] += 1);
    tally
}
