//! Names of an app: each names one thing, declared the same wherever it turns up. The compiler looks at each role and each field once,
//! with a hash table, as apps are large and what it interprets is slow; [`check_role`](super::graph::check_role) tells what was found.

use super::{
    decl::{EndpointDecl, Link, RoleDecl, Schema, same_optional, same_text},
    graph::Graph,
};

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// An earlier role has it.
    Role,
    /// The stream has another shape.
    Stream,
    /// The group has another machine.
    Group,
    /// The store has another state, other deltas or another version.
    Store,
    /// What has the name has another label.
    Label,
    /// The stream has another owner.
    Owner,
}

impl Clash {
    /// What to do about it.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Role => {
                "two roles of this app have the same name: give one of them another, `#[mosaik::node(name = \"..\")]`"
            }
            Self::Stream => {
                "two streams of this app have the same name and different shapes: rename one, `#[mosaik::stream(name = \"..\")]`"
            }
            Self::Group => {
                "two groups of this app have the same name and different machines: rename one, `#[mosaik::group(name = \"..\")]`"
            }
            Self::Store => {
                "two stores of this app have the same name and different states, deltas or versions: rename one, \
                 `#[mosaik::store(name = \"..\")]`"
            }
            Self::Label => {
                "two streams, groups or stores of this app have the same name and different labels: give both the same, \
                 `label = \"..\"`"
            }
            Self::Owner => {
                "two streams of this app have the same name and different owners: give both the same, `owner = ..`"
            }
        }
    }
}

/// How many slots a table of the names of an app has: two for each role and each field, so that few hashes meet.
#[must_use]
pub const fn slots(graph: &Graph) -> usize {
    let (mut names, mut i) = (graph.roles.len(), 0);
    while i < graph.roles.len() {
        names += graph.roles[i].role.endpoints.len();
        i += 1;
    }
    (2 * names).next_power_of_two()
}

/// Of each role, the first name that is also one of something else before it. `ROLES` is the number of roles, `SLOTS` that of
/// [`slots`].
#[must_use]
pub const fn clashes<const ROLES: usize, const SLOTS: usize>(graph: &'static Graph) -> [Option<Clash>; ROLES] {
    let mut table = Table::<SLOTS> { known: [None; SLOTS] };
    let (mut found, mut index) = ([None; ROLES], 0);
    while index < ROLES {
        let role = &graph.roles[index].role;
        let mut clash = table.add(Named::Role(role));
        let mut i = 0;
        while i < role.endpoints.len() {
            let other = table.add(Named::End(&role.endpoints[i]));
            if clash.is_none() {
                clash = other;
            }
            i += 1;
        }
        found[index] = clash;
        index += 1;
    }
    found
}

/// What has a name.
#[derive(Clone, Copy)]
enum Named {
    Role(&'static RoleDecl),
    /// What a field is connected to.
    End(&'static EndpointDecl),
}

impl Named {
    /// A hash of kind and name: any that is cheap does, as who declares the names has nothing to gain by slow compilation. The upper bits
    /// depend on every byte.
    const fn hash(self) -> u64 {
        let (seed, name) = match self {
            Self::Role(role) => (1, role.name),
            Self::End(end) => match &end.link {
                Link::Stream { stream, .. } => (2, stream.name),
                Link::Group(machine) | Link::Client(machine) => (3, machine.group.name),
                Link::Store { store, .. } => (4, store.name),
            },
        };
        let (mut rest, mut hash) = (name.as_bytes(), seed);
        while let Some((word, after)) = rest.split_first_chunk() {
            hash = mixed(hash, u64::from_le_bytes(*word));
            rest = after;
        }
        let (mut last, mut i) = (0, 0);
        while i < rest.len() {
            last = last << 8 | rest[i] as u64;
            i += 1;
        }
        mixed(hash, last)
    }

    const fn has_the_name_of(self, other: Self) -> bool {
        match (self, other) {
            (Self::Role(one), Self::Role(other)) => same_text(one.name, other.name),
            (Self::End(one), Self::End(other)) => one.is_of_the_same(other),
            _ => false,
        }
    }

    /// What differs between two of one name. Two fields may be connected to one thing, two roles are never the same.
    const fn clash(self, other: Self) -> Option<Clash> {
        match (self, other) {
            (Self::End(one), Self::End(other)) => ends_clash(one, other),
            _ => Some(Clash::Role),
        }
    }
}

/// By the golden ratio, as Fibonacci hashing does.
const fn mixed(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The first of each name, by its hash; with another one there, in the next free slot.
struct Table<const SLOTS: usize> {
    known: [Option<(u64, Named)>; SLOTS],
}

impl<const SLOTS: usize> Table<SLOTS> {
    /// Compares with the first of that name, or becomes it. There are always free slots.
    #[expect(clippy::cast_possible_truncation, reason = "so many of the upper bits are less than the number of slots")]
    const fn add(&mut self, named: Named) -> Option<Clash> {
        let hash = named.hash();
        // With a name to add there are two slots at least.
        let mut slot = (hash >> (u64::BITS - SLOTS.ilog2())) as usize;
        while let Some((known, first)) = self.known[slot] {
            if known == hash && first.has_the_name_of(named) {
                return first.clash(named);
            }
            slot = (slot + 1) % SLOTS;
        }
        self.known[slot] = Some((hash, named));
        None
    }
}

/// What differs between the declarations of one thing.
const fn ends_clash(one: &EndpointDecl, other: &EndpointDecl) -> Option<Clash> {
    if let (Some((_, one)), Some((_, other))) = (one.stream(), other.stream()) {
        if !one.schema.same(other.schema) {
            return Some(Clash::Stream);
        }
        if !same_optional(one.owner, other.owner) {
            return Some(Clash::Owner);
        }
    }
    if let (Some(one), Some(other)) = (one.group(), other.group()) {
        let same_schema = match (one.schema, other.schema) {
            (Some(one), Some(other)) => Schema::from_bytes(one).same(Schema::from_bytes(other)),
            (None, None) => true,
            _ => false,
        };
        if !(same_schema && one.version == other.version && same_text(one.group.ty, other.group.ty)) {
            return Some(Clash::Group);
        }
    }
    if let (Some((_, one)), Some((_, other))) = (one.store(), other.store())
        && one.conflicts(other)
    {
        return Some(Clash::Store);
    }
    if same_optional(one.label(), other.label()) { None } else { Some(Clash::Label) }
}
