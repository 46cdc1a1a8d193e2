//! Finds the shape of a type by running its `Deserialize` on made-up values, and whether it can be read from a format that does
//! not describe itself.
//!
//! One walk visits a value of the type: of each enum the first variant that is not known yet. Walks are repeated until every
//! variant was visited. A place whose visitor rejects the made-up value (a URL, a date, a number that is not zero) is offered
//! another one in the next walk. The way of doing so is that of the crate `serde-reflection`; this one also tries values for
//! leaves that validate, notes what asks for self-description, and tells equal names apart.
//!
//! Reference: <https://serde.rs/data-model.html>.

mod trials;

use std::{
    any::type_name,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use self::trials::Named;
use super::evolve::Need;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// Most walks over one type.
const WALKS: usize = 4_000;
/// The most leaves that are told apart.
const MAX_NUMBER: u8 = 100;
/// How deep values may nest; it stops types that have no finite value.
const MAX_DEPTH: usize = 120;
/// Most elements of a tuple that are told apart. Rust implements serde for tuples up to 16; what is longer is an array.
pub(super) const MAX_TUPLE: usize = 16;

/// What a place can be given, the likeliest first.
const INTEGERS: [u8; 8] = [1, 0, 2, 3, 4, 7, 30, 100];
const LENGTHS: [usize; 9] = [1, 0, 2, 4, 8, 16, 20, 32, 64];
const SIZES: [usize; 12] = [1, 0, 4, 8, 16, 20, 32, 33, 48, 64, 65, 256];
const TEXTS: [&str; 24] = [
    "1",
    "",
    "a",
    "A",
    "1.0.0",
    "127.0.0.1",
    "::1",
    "127.0.0.1:80",
    "[::1]:80",
    "10.0.0.0/8",
    "http://localhost/",
    "2020-01-01T00:00:00Z",
    "2020-01-01",
    "00:00:00",
    "2020-01-01T00:00:00",
    "UTC",
    "+00:00",
    "PT1S",
    "Mon",
    "Jan",
    "00000000-0000-0000-0000-000000000001",
    "11111111111111111111111111111111",
    "0x0000000000000000000000000000000000000001",
    "0x0000000000000000000000000000000000000000000000000000000000000001",
];

/// A part of a type, as far as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Not reached.
    Unknown,
    /// Describes itself; the name of what asked for it.
    Opaque(String),
    Leaf(&'static str),
    Option(Box<Self>),
    Seq(Box<Self>),
    Map(Box<Self>, Box<Self>),
    Tuple(Vec<Self>),
    /// Elements alike, and how many.
    Array(Box<Self>, usize),
    Container(usize),
}

/// A struct or enum.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) name: &'static str,
    pub(super) body: Body,
    /// It is part of itself.
    pub(super) recursive: bool,
}

#[derive(Debug)]
pub(super) enum Body {
    Unit,
    Newtype(Part),
    Tuple(Vec<Part>),
    Struct(Vec<&'static str>, Vec<Part>),
    Enum(&'static [&'static str], Vec<Variant>),
}

#[derive(Debug)]
pub(super) struct Variant {
    pub(super) body: Body,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unseen,
    Visiting,
    /// All below it was seen. Whether a value of it ends by itself.
    Seen {
        ends: bool,
    },
    Stuck,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) root: Part,
    pub(super) containers: Vec<Container>,
    /// Why a format without self-description may not carry the type; `None`: it does.
    pub(super) unproven: Option<String>,
    /// What is known of fields besides, by container, variant (of a struct 0) and place.
    pub(super) needs: Vec<((usize, usize, usize), Need)>,
}

/// Walks over a type until all of it was seen. `needs`: also without each field, to see which ones a reader can do without.
pub(super) fn trace<T: DeserializeOwned>(needs: bool) -> Found {
    walk(Walker { trials: needs.then(BTreeMap::new), ..Walker::default() }, |_: T| {})
}

/// Made-up values of a type, among which each variant of each enum in it occurs; none if the type rejects whatever is made up.
/// Their integers of more than a byte differ, so that an encoding shows which field is where.
#[cfg(test)]
pub(crate) fn samples<T: DeserializeOwned>() -> Vec<T> {
    let mut samples = Vec::new();
    walk(Walker { numbers: true, ..Walker::default() }, |sample| samples.push(sample));
    samples
}

fn walk<T: DeserializeOwned>(mut walker: Walker, mut each: impl FnMut(T)) -> Found {
    let mut root = Part::Unknown;
    let mut complete = false;
    for _ in 0..WALKS {
        walker.begin();
        let mut part = Part::Unknown;
        let result = T::deserialize(Tracer { walker: &mut walker, part: &mut part, place: Place::default() });
        merge(&mut root, part);
        let stop = match result {
            Ok(value) => {
                each(value);
                if walker.unfinished {
                    continue;
                }
                complete = true;
                break;
            }
            Err(stop) => walker.settle(stop),
        };
        if stop == Stop::Stuck {
            complete = true;
            walker.doubt(|| "no value of it can be made up".to_owned());
            break;
        }
    }
    if !complete {
        walker.doubt(|| "it has too many parts".to_owned());
    }
    if let Some(container) = walker.containers.iter().find(|container| container.recursive) {
        let name = container.name;
        walker.unproven.get_or_insert_with(|| format!("{name} contains itself"));
    }
    let needs = walker.needs();
    Found { root, containers: walker.containers, unproven: walker.unproven, needs }
}

/// Keeps what is known of a part from either look at it.
fn merge(known: &mut Part, seen: Part) {
    match (known, seen) {
        (known @ Part::Unknown, seen) => *known = seen,
        (Part::Option(known), Part::Option(seen)) | (Part::Seq(known), Part::Seq(seen)) => merge(known, *seen),
        (Part::Array(known, _), Part::Array(seen, _)) => merge(known, *seen),
        (Part::Map(key, value), Part::Map(seen_key, seen_value)) => {
            merge(key, *seen_key);
            merge(value, *seen_value);
        }
        (Part::Tuple(known), Part::Tuple(seen)) => {
            known.iter_mut().zip(seen).for_each(|(known, seen)| merge(known, seen));
        }
        _ => {}
    }
}

/// What has fields: a container, and which of its variants; of a struct 0.
type Owner = (usize, usize);

/// Where a value is: the innermost container, its variant, and the way from there.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    container: Option<usize>,
    path: Vec<u32>,
}

impl Place {
    fn child(&self, at: usize) -> Self {
        let mut path = self.path.clone();
        path.push(u32::try_from(at).unwrap_or(u32::MAX));
        Self { container: self.container, path }
    }
}

/// Why a walk ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// A visitor rejects a value; nobody has drawn the consequence yet.
    Rejected,
    /// The next walk will go another way.
    Retry,
    /// There is no other way.
    Stuck,
    /// A struct is not read without a field that was left out.
    Missing,
    /// The field that was given last is another name of one that was given before.
    Duplicate(&'static str),
}

impl Stop {
    /// Where no trial is made, what misses a field is a rejection like any other.
    fn plain(self) -> Self {
        match self {
            Self::Missing | Self::Duplicate(_) => Self::Rejected,
            stop => stop,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("only the shape is wanted")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self::Rejected
    }

    fn missing_field(_: &'static str) -> Self {
        Self::Missing
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::Duplicate(field)
    }
}

#[derive(Default)]
struct Walker {
    /// If it is asked which fields a reader can do without: structs are read once with all of their fields and once without
    /// each. So many readings each struct or variant has behind it.
    trials: Option<BTreeMap<Owner, usize>>,
    /// Fields that a reader can do without.
    optional: BTreeSet<(Owner, usize)>,
    /// Structs and variants that list more names than they have fields.
    by_name: BTreeSet<Owner>,
    /// Fields that are given before the others.
    early: BTreeSet<(Owner, usize)>,
    /// Names that mean the field of another name, and which.
    aliases: BTreeMap<(Owner, usize), usize>,
    /// By the names of visitor and value, which only tell types of one program apart.
    keys: BTreeMap<&'static str, usize>,
    containers: Vec<Container>,
    /// Which of its values a place is given.
    choices: BTreeMap<Place, usize>,
    /// The containers around the present place.
    stack: Vec<usize>,
    depth: usize,
    /// How many of them are on the stack twice.
    looping: usize,
    /// The last place that was given a value, and how many there are.
    last: Option<(Place, usize)>,
    /// Something that this walk passed has parts that were not seen yet.
    unfinished: bool,
    /// The field that was given last by its name.
    given: Option<usize>,
    unproven: Option<String>,
    /// Whether leaves that are integers are told apart by numbers, and the last one.
    numbers: bool,
    leaves: u8,
}

impl Walker {
    fn begin(&mut self) {
        self.stack.clear();
        (self.depth, self.looping, self.last, self.unfinished, self.given) = (0, 0, None, false, None);
        self.leaves = 0;
    }

    /// For the next leaf.
    fn number(&mut self) -> u8 {
        if !self.numbers {
            return INTEGERS[0];
        }
        self.leaves = self.leaves % MAX_NUMBER + 1;
        self.leaves
    }

    fn doubt(&mut self, why: impl FnOnce() -> String) {
        if self.unproven.is_none() {
            let place = self.stack.last().map(|id| self.containers[*id].name);
            let why = why();
            self.unproven = Some(place.map_or_else(|| why.clone(), |name| format!("in {name}: {why}")));
        }
    }

    fn choice(&self, place: &Place) -> usize {
        self.choices.get(place).copied().unwrap_or(0)
    }

    /// The value that a place was given is rejected: it gets another one.
    fn advance(&mut self, place: Place, values: usize) -> Stop {
        let choice = self.choices.entry(place).or_insert(0);
        *choice += 1;
        if *choice < values {
            return Stop::Retry;
        }
        *choice = values - 1;
        Stop::Stuck
    }

    /// Draws the consequence of a rejection that the present place did not cause by itself: what was read last is to blame.
    fn settle(&mut self, stop: Stop) -> Stop {
        match (stop.plain(), self.last.clone()) {
            (Stop::Rejected, Some((place, values))) => self.advance(place, values),
            (Stop::Rejected, None) => Stop::Stuck,
            (stop, _) => stop,
        }
    }

    /// The container that this visitor reads.
    fn container<'de, V: Visitor<'de>>(&mut self, name: &'static str, body: impl FnOnce() -> Body) -> usize {
        let next = self.containers.len();
        let id = *self.keys.entry(type_name::<(V, V::Value)>()).or_insert(next);
        if id == next {
            self.containers.push(Container { name, body: body(), recursive: false });
        }
        id
    }

    /// Visits a container's content. The flag says whether it is within itself.
    fn within<T>(&mut self, id: usize, visit: impl FnOnce(&mut Self, bool) -> Result<T, Stop>) -> Result<T, Stop> {
        let again = self.stack.contains(&id);
        self.containers[id].recursive |= again;
        if self.stack.len() + self.depth >= MAX_DEPTH {
            return Err(Stop::Stuck);
        }
        self.stack.push(id);
        self.looping += usize::from(again);
        let result = visit(self, again);
        self.looping -= usize::from(again);
        self.stack.pop();
        result
    }

    /// The variant to visit.
    fn choose(&mut self, id: usize, again: bool) -> Option<usize> {
        let Body::Enum(_, variants) = &self.containers[id].body else { return None };
        let find = |wanted: &dyn Fn(State) -> bool| variants.iter().position(|variant| wanted(variant.state));
        let unseen = find(&|state| state == State::Unseen);
        let ends = find(&|state| state == State::Seen { ends: true });
        let seen = find(&|state| matches!(state, State::Seen { .. }));
        if again { ends.or(unseen) } else { unseen.or(ends).or(seen) }
    }

    fn variant(&mut self, id: usize, at: usize) -> Option<&mut Variant> {
        match &mut self.containers.get_mut(id)?.body {
            Body::Enum(_, variants) => variants.get_mut(at),
            _ => None,
        }
    }

    fn all_seen(&self, id: usize) -> bool {
        match &self.containers[id].body {
            Body::Enum(_, variants) => variants.iter().all(|variant| variant.state != State::Unseen),
            _ => true,
        }
    }

    /// The parts of a struct, or of a variant.
    fn parts(&mut self, id: usize, variant: Option<usize>) -> Option<&mut Vec<Part>> {
        let body = match variant {
            Some(at) => &mut self.variant(id, at)?.body,
            None => &mut self.containers.get_mut(id)?.body,
        };
        match body {
            Body::Tuple(parts) | Body::Struct(_, parts) => Some(parts),
            _ => None,
        }
    }
}

fn unknown(count: usize) -> Vec<Part> {
    vec![Part::Unknown; count]
}

/// Reads one made-up value.
struct Tracer<'a> {
    walker: &'a mut Walker,
    /// What it is.
    part: &'a mut Part,
    place: Place,
}

impl Tracer<'_> {
    /// A value of its own, one of so many.
    fn leaf<T>(
        self,
        name: &'static str,
        values: usize,
        visit: impl FnOnce(usize) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        *self.part = Part::Leaf(name);
        self.walker.last = Some((self.place.clone(), values));
        match visit(self.walker.choice(&self.place)).map_err(Stop::plain) {
            Err(Stop::Rejected) => Err(self.rejected(values)),
            result => result,
        }
    }

    fn rejected(self, values: usize) -> Stop {
        let stop = self.walker.advance(self.place, values);
        if stop == Stop::Stuck {
            self.walker.doubt(|| "a value that is checked when it is read".to_owned());
        }
        stop
    }

    /// It asks what it is.
    fn opaque<T>(self, visit: impl FnOnce(usize) -> Result<T, Stop>) -> Result<T, Stop> {
        let name = self.walker.stack.last().map(|id| self.walker.containers[*id].name);
        *self.part = Part::Opaque(name.unwrap_or("value").to_owned());
        self.walker.doubt(|| "it asks the format what comes next".to_owned());
        let values = 8;
        self.walker.last = Some((self.place.clone(), values));
        match visit(self.walker.choice(&self.place)).map_err(Stop::plain) {
            Err(Stop::Rejected) => Err(self.walker.advance(self.place, values)),
            result => result,
        }
    }

    /// Something that may be left out: where its content cannot be made up, or would never end, it is.
    fn optional<T>(
        self,
        values: &[usize],
        visit: impl FnOnce(&mut Walker, &mut Part, &Place, usize) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let Tracer { walker, part, place } = self;
        let choice = walker.choice(&place);
        let count = if walker.looping > 0 { 0 } else { values.get(choice).copied().unwrap_or(0) };
        walker.depth += 1;
        let result = if walker.depth + walker.stack.len() > MAX_DEPTH {
            Err(Stop::Stuck)
        } else {
            visit(walker, part, &place, count)
        };
        walker.depth -= 1;
        match result.map_err(Stop::plain) {
            Err(Stop::Stuck) if count > 0 => {
                // From now on it is left out.
                let empty = values.iter().position(|count| *count == 0).unwrap_or(0);
                walker.choices.insert(place, empty);
                Err(Stop::Retry)
            }
            Err(Stop::Rejected) => Err(walker.advance(place, values.len())),
            result => result,
        }
    }

    fn fields<'de, V: Visitor<'de>>(
        self,
        id: usize,
        variant: Option<usize>,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let mut path = Vec::new();
        path.extend(variant.map(|at| u32::try_from(at).unwrap_or(u32::MAX)));
        let place = Place { container: Some(id), path };
        let (of, names) = ((id, variant.unwrap_or(0)), self.walker.names(id, variant));
        let mut elements =
            Elements { walker: &mut *self.walker, parts: Parts::Of(id, variant), place, at: 0, left: count };
        let Some(names) = names else { return visitor.visit_seq(elements).map_err(Stop::plain) };
        let by_name = elements.walker.trials.is_some() || elements.walker.by_name.contains(&of);
        if !by_name {
            let result = visitor.visit_seq(&mut elements).map_err(Stop::plain);
            if result.is_ok() && elements.left > 0 {
                // It lists names that are no fields of their own, so that the places were not those of the names.
                self.walker.by_name.insert(of);
                if let Some(parts) = self.walker.parts(id, variant) {
                    *parts = unknown(count);
                }
                return Err(Stop::Retry);
            }
            return result;
        }
        let trial = elements.walker.trial(of);
        let omitted = trial.checked_sub(1).filter(|at| *at < count);
        let walker = &elements.walker;
        let is_given = |at: &usize| omitted != Some(*at) && !walker.aliases.contains_key(&(of, *at));
        let mut order: Vec<usize> = (0..count).filter(is_given).collect();
        order.sort_by_key(|at| !walker.early.contains(&(of, *at)));
        let result = visitor.visit_map(Named { elements, names: &names, order: order.into_iter() });
        self.walker.tried(of, trial, &names, result)
    }
}

macro_rules! leaves {
    ($($method:ident, $name:literal, $values:expr, $visit:ident, $value:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            let number = self.walker.number();
            self.leaf($name, $values.len(), |at| visitor.$visit($value(number, at)))
        })*
    };
}

const SIGNS: [(); 2] = [(); 2];

/// What an integer of more than a byte is given.
fn integer(number: u8, at: usize) -> u8 {
    if at == 0 { number } else { INTEGERS[at] }
}

impl<'de> de::Deserializer<'de> for Tracer<'_> {
    type Error = Stop;

    leaves! {
        deserialize_bool, "bool", SIGNS, visit_bool, |_, at| at == 0;
        deserialize_char, "char", SIGNS, visit_char, |_, at| ['1', 'a'][at];
        deserialize_i8, "i8", INTEGERS, visit_i8, |_, at: usize| INTEGERS[at].cast_signed();
        deserialize_i16, "i16", INTEGERS, visit_i16, |number, at: usize| integer(number, at).into();
        deserialize_i32, "i32", INTEGERS, visit_i32, |number, at: usize| integer(number, at).into();
        deserialize_i64, "i64", INTEGERS, visit_i64, |number, at: usize| integer(number, at).into();
        deserialize_i128, "i128", INTEGERS, visit_i128, |number, at: usize| integer(number, at).into();
        deserialize_u8, "u8", INTEGERS, visit_u8, |_, at: usize| INTEGERS[at];
        deserialize_u16, "u16", INTEGERS, visit_u16, |number, at: usize| integer(number, at).into();
        deserialize_u32, "u32", INTEGERS, visit_u32, |number, at: usize| integer(number, at).into();
        deserialize_u64, "u64", INTEGERS, visit_u64, |number, at: usize| integer(number, at).into();
        deserialize_u128, "u128", INTEGERS, visit_u128, |number, at: usize| integer(number, at).into();
        deserialize_f32, "f32", SIGNS, visit_f32, |_, at| [1.0, 0.0][at];
        deserialize_f64, "f64", SIGNS, visit_f64, |_, at| [1.0, 0.0][at];
        deserialize_str, "String", TEXTS, visit_str, |_, at: usize| TEXTS[at];
        deserialize_string, "String", TEXTS, visit_string, |_, at: usize| TEXTS[at].to_owned();
        deserialize_bytes, "Bytes", SIZES, visit_bytes, |_, at: usize| &[1; 256][..SIZES[at]];
        deserialize_byte_buf, "Bytes", SIZES, visit_byte_buf, |_, at: usize| vec![1; SIZES[at]];
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.opaque(|at| match at {
            0 => visitor.visit_u64(1),
            1 => visitor.visit_str("1"),
            2 => visitor.visit_unit(),
            3 => visitor.visit_bool(true),
            4 => visitor.visit_str("1.0.0"),
            5 => visitor.visit_str("2020-01-01T00:00:00Z"),
            6 => visitor.visit_map(de::value::MapDeserializer::new(std::iter::empty::<(u8, u8)>())),
            _ => visitor.visit_seq(de::value::SeqDeserializer::new(std::iter::empty::<u8>())),
        })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.opaque(|_| Err(Stop::Stuck))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.opaque(|_| visitor.visit_unit())
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        *self.part = Part::Leaf("()");
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.optional(&[1, 0], |walker, part, place, count| {
            let mut content = Part::Unknown;
            let result = if count == 0 {
                visitor.visit_none()
            } else {
                visitor.visit_some(Tracer { walker, part: &mut content, place: place.child(0) })
            };
            *part = Part::Option(Box::new(content));
            result
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.optional(&LENGTHS, |walker, part, place, count| {
            let mut content = Part::Unknown;
            let place = place.clone();
            let elements = Elements { walker, parts: Parts::Alike(&mut content), place, at: 0, left: count };
            let result = visitor.visit_seq(elements);
            *part = Part::Seq(Box::new(content));
            result
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.optional(&LENGTHS[..2], |walker, part, place, count| {
            let mut pair = unknown(2);
            let place = place.clone();
            let elements = Elements { walker, parts: Parts::Each(&mut pair), place, at: 0, left: 2 * count };
            let result = visitor.visit_map(elements);
            let value = pair.pop().unwrap_or(Part::Unknown);
            let key = pair.pop().unwrap_or(Part::Unknown);
            *part = Part::Map(Box::new(key), Box::new(value));
            result
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        let Tracer { walker, part, place } = self;
        if len > MAX_TUPLE {
            let mut content = Part::Unknown;
            let parts = Parts::Alike(&mut content);
            let result = visitor.visit_seq(Elements { walker, parts, place, at: 0, left: len });
            *part = Part::Array(Box::new(content), len);
            return result;
        }
        let mut all = unknown(len);
        let result = visitor.visit_seq(Elements { walker, parts: Parts::Each(&mut all), place, at: 0, left: len });
        *part = Part::Tuple(all);
        result
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        let id = self.walker.container::<V>(name, || Body::Unit);
        *self.part = Part::Container(id);
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        let id = self.walker.container::<V>(name, || Body::Newtype(Part::Unknown));
        *self.part = Part::Container(id);
        let mut part = Part::Unknown;
        let place = Place { container: Some(id), path: vec![0] };
        let result = self.walker.within(id, |walker, _| {
            let result = visitor.visit_newtype_struct(Tracer { walker, part: &mut part, place });
            result.map_err(|stop| walker.settle(stop))
        });
        if let Body::Newtype(known) = &mut self.walker.containers[id].body {
            merge(known, part);
        }
        result
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let id = self.walker.container::<V>(name, || Body::Tuple(unknown(len)));
        *self.part = Part::Container(id);
        let Tracer { walker, part, place } = self;
        walker.within(id, |walker, _| Tracer { walker, part, place }.fields(id, None, len, visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let id = self.walker.container::<V>(name, || Body::Struct(fields.to_vec(), unknown(fields.len())));
        *self.part = Part::Container(id);
        let Tracer { walker, part, place } = self;
        walker.within(id, |walker, _| Tracer { walker, part, place }.fields(id, None, fields.len(), visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let unseen = || variants.iter().map(|_| Variant { body: Body::Unit, state: State::Unseen }).collect();
        let id = self.walker.container::<V>(name, || Body::Enum(variants, unseen()));
        *self.part = Part::Container(id);
        let Tracer { walker, part, place } = self;
        walker.within(id, |walker, again| {
            let Some(at) = walker.choose(id, again) else { return Err(Stop::Stuck) };
            let visiting = walker.variant(id, at).is_some_and(|variant| {
                let unseen = variant.state == State::Unseen;
                if unseen {
                    variant.state = State::Visiting;
                }
                unseen
            });
            let outside = std::mem::take(&mut walker.unfinished);
            let loops = walker.containers[id].recursive;
            walker.containers[id].recursive = false;
            let result = visitor.visit_enum(Selected { tracer: Tracer { walker, part, place }, id, at });
            let ends = !walker.containers[id].recursive;
            walker.containers[id].recursive |= loops;
            let inside = std::mem::replace(&mut walker.unfinished, outside);
            let result = result.map_err(|stop| walker.settle(stop));
            if visiting && let Some(variant) = walker.variant(id, at) {
                variant.state = match &result {
                    Ok(_) if !inside => State::Seen { ends },
                    Err(Stop::Stuck) => State::Stuck,
                    _ => State::Unseen,
                };
            }
            walker.unfinished |= !again && !walker.all_seen(id);
            match result {
                // Another variant may do.
                Err(Stop::Stuck) if visiting => {
                    walker.doubt(|| format!("no value of its variant {} can be made up", variants[at]));
                    let left = walker.choose(id, again).is_some();
                    Err(if left { Stop::Retry } else { Stop::Stuck })
                }
                result => result,
            }
        })
    }

    fn is_human_readable(&self) -> bool {
        false // as postcard says, so that types show the shape they have on the wire
    }
}

/// Where the elements of a sequence are noted.
enum Parts<'a> {
    /// All in one.
    Alike(&'a mut Part),
    /// Each for itself.
    Each(&'a mut [Part]),
    /// With the container.
    Of(usize, Option<usize>),
}

struct Elements<'a> {
    walker: &'a mut Walker,
    parts: Parts<'a>,
    place: Place,
    at: usize,
    left: usize,
}

impl Elements<'_> {
    fn next<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        let at = self.at;
        self.at += 1;
        self.left = self.left.saturating_sub(1);
        let mut part = Part::Unknown;
        // Elements of one kind are given one value.
        let step = if matches!(self.parts, Parts::Alike(_)) { 0 } else { at };
        let place = self.place.child(step);
        let result = seed.deserialize(Tracer { walker: self.walker, part: &mut part, place });
        let result = result.map_err(|stop| self.walker.settle(stop));
        match &mut self.parts {
            Parts::Alike(known) => merge(known, part),
            Parts::Each(all) => {
                let count = all.len().max(1);
                if let Some(known) = all.get_mut(at % count) {
                    merge(known, part);
                }
            }
            Parts::Of(id, variant) => {
                if let Some(known) = self.walker.parts(*id, *variant).and_then(|parts| parts.get_mut(at)) {
                    merge(known, part);
                }
            }
        }
        result
    }
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        if self.left == 0 { Ok(None) } else { self.next(seed).map(Some) }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Elements<'_> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        if self.left == 0 { Ok(None) } else { self.next(seed).map(Some) }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        self.next(seed)
    }
}

/// A chosen variant.
struct Selected<'a> {
    tracer: Tracer<'a>,
    id: usize,
    at: usize,
}

impl Selected<'_> {
    fn body(&mut self, body: Body) {
        if let Some(variant) = self.tracer.walker.variant(self.id, self.at)
            && matches!(variant.body, Body::Unit)
        {
            variant.body = body;
        }
    }
}

impl<'de> EnumAccess<'de> for Selected<'_> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stop> {
        let index = u32::try_from(self.at).unwrap_or(u32::MAX);
        match seed.deserialize(index.into_deserializer()) {
            Ok(variant) => Ok((variant, self)),
            // It does not take a number.
            Err(Stop::Rejected) => Err(Stop::Stuck),
            Err(stop) => Err(stop),
        }
    }
}

impl<'de> VariantAccess<'de> for Selected<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, Stop> {
        self.body(Body::Newtype(Part::Unknown));
        let (id, at) = (self.id, self.at);
        let place = Place { container: Some(id), path: vec![u32::try_from(at).unwrap_or(u32::MAX), 0] };
        let mut part = Part::Unknown;
        let walker = self.tracer.walker;
        let result = seed.deserialize(Tracer { walker, part: &mut part, place });
        let result = result.map_err(|stop| walker.settle(stop));
        if let Some(Variant { body: Body::Newtype(known), .. }) = walker.variant(id, at) {
            merge(known, part);
        }
        result
    }

    fn tuple_variant<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.body(Body::Tuple(unknown(len)));
        self.tracer.fields(self.id, Some(self.at), len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.body(Body::Struct(fields.to_vec(), unknown(fields.len())));
        self.tracer.fields(self.id, Some(self.at), fields.len(), visitor)
    }
}
