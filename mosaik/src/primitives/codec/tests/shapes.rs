//! Values of many shapes, made of each other: what is written is read back equal, whichever format it is.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// Numbers that a value is made of.
struct Source(u64);

impl Source {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

trait Made: Serialize + DeserializeOwned + PartialEq + fmt::Debug + 'static {
    fn made(from: &mut Source) -> Self;
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Made for $number {
            fn made(from: &mut Source) -> Self {
                // Small ones, whose encoding is short, as often as others.
                let (small, bytes) = (bool::made(from), from.next().to_le_bytes());
                let mut all = [0; size_of::<Self>()];
                if small {
                    all[0] = bytes[0] >> 2;
                } else {
                    all.iter_mut().zip(bytes.into_iter().cycle()).for_each(|(to, byte)| *to = byte);
                }
                Self::from_le_bytes(all)
            }
        })*
    };
}

numbers!(u8, u16, i32, i64, u64, i128);

impl Made for bool {
    fn made(from: &mut Source) -> Self {
        from.below(2) == 0
    }
}

impl Made for f64 {
    fn made(from: &mut Source) -> Self {
        i32::made(from).into()
    }
}

impl Made for char {
    fn made(from: &mut Source) -> Self {
        match from.below(4) {
            0 => 'a',
            1 => 'é',
            2 => '\u{0}',
            _ => '😀',
        }
    }
}

impl Made for String {
    fn made(from: &mut Source) -> Self {
        (0..from.below(5)).map(|_| char::made(from)).collect()
    }
}

impl<T: Made> Made for Option<T> {
    fn made(from: &mut Source) -> Self {
        bool::made(from).then(|| T::made(from))
    }
}

impl<T: Made> Made for Vec<T> {
    fn made(from: &mut Source) -> Self {
        (0..from.below(4)).map(|_| T::made(from)).collect()
    }
}

impl<T: Made> Made for BTreeMap<String, T> {
    fn made(from: &mut Source) -> Self {
        (0..from.below(4)).map(|_| (String::made(from), T::made(from))).collect()
    }
}

impl<A: Made, B: Made> Made for (A, B) {
    fn made(from: &mut Source) -> Self {
        (A::made(from), B::made(from))
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Fields<A, B> {
    a: A,
    b: B,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped<A>(A);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Either<A, B> {
    None,
    One(A),
    Two(A, B),
    Three { a: A, b: B },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sometimes<A> {
    first: u8,
    #[serde(skip_serializing_if = "Option::is_none", default = "none")]
    maybe: Option<A>,
    last: u8,
}

fn none<A>() -> Option<A> {
    None
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Renamed<A> {
    #[serde(rename = "type", alias = "kind")]
    a: A,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent<A> {
    One(A),
    Two { a: A },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t")]
enum Internal<A> {
    One { a: A },
    None,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat<A> {
    first: u8,
    #[serde(flatten)]
    inner: Renamed<A>,
}

impl<A: Made, B: Made> Made for Fields<A, B> {
    fn made(from: &mut Source) -> Self {
        Self { a: A::made(from), b: B::made(from) }
    }
}

impl<A: Made> Made for Wrapped<A> {
    fn made(from: &mut Source) -> Self {
        Self(A::made(from))
    }
}

impl<A: Made, B: Made> Made for Either<A, B> {
    fn made(from: &mut Source) -> Self {
        match from.below(4) {
            0 => Self::None,
            1 => Self::One(A::made(from)),
            2 => Self::Two(A::made(from), B::made(from)),
            _ => Self::Three { a: A::made(from), b: B::made(from) },
        }
    }
}

impl<A: Made> Made for Sometimes<A> {
    fn made(from: &mut Source) -> Self {
        Self { first: u8::made(from), maybe: Option::made(from), last: u8::made(from) }
    }
}

impl<A: Made> Made for Renamed<A> {
    fn made(from: &mut Source) -> Self {
        Self { a: A::made(from) }
    }
}

impl<A: Made> Made for Adjacent<A> {
    fn made(from: &mut Source) -> Self {
        if bool::made(from) { Self::One(A::made(from)) } else { Self::Two { a: A::made(from) } }
    }
}

impl<A: Made> Made for Internal<A> {
    fn made(from: &mut Source) -> Self {
        if bool::made(from) { Self::One { a: A::made(from) } } else { Self::None }
    }
}

impl<A: Made> Made for Flat<A> {
    fn made(from: &mut Source) -> Self {
        Self { first: u8::made(from), inner: Renamed::made(from) }
    }
}

/// A value comes back equal from the format that the type asks for, and from the one with names.
fn round<T: Made>(seed: u64) {
    let value = T::made(&mut Source(seed));
    for forced in [None, Some(Format::MessagePack)] {
        let codec = Codec::<T>::chosen(forced);
        let mut out = Vec::new();
        let format = codec.append(&value, &mut out, LIMIT).unwrap_or_else(|error| panic!("{value:?}: {error}"));
        assert_eq!(codec.decode(format, &out).unwrap(), value);
    }
}

macro_rules! rounds {
    ($seed:expr => $($ty:ty),* $(,)?) => {
        $(round::<$ty>($seed);)*
    };
}

impl Made for () {
    fn made(_: &mut Source) -> Self {}
}

// The compiler makes all codecs anew for each type, and several times what is within a tag or flattened.
proptest! {
    #[test]
    fn values_of_shapes_within_shapes_come_back_equal(seed in any::<u64>()) {
        rounds! { seed =>
            Fields<Either<u64, Vec<bool>>, Option<char>>,
            BTreeMap<String, Fields<i128, Wrapped<u16>>>,
            Sometimes<(i64, String)>,
            Renamed<Vec<Option<i32>>>,
            Adjacent<String>,
            Internal<u8>,
            Flat<f64>,
        }
    }
}
