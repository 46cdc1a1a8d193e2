//! Declarations as constant data: what a stream, a role and its fields are (`machine` has groups, `store` has stores). Written by the
//! attributes, read by the graph, the command line and the runner. Holds no behaviour beyond checks that the compiler
//! evaluates.

use std::fmt;

use super::{machine::MachineDecl, store::StoreDecl};
use crate::{
    primitives::{StreamId, Tag, const_hash},
    trust::is_label,
};

/// A declared stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamDecl {
    /// Its name in the network.
    pub name: &'static str,
    /// The identifier derived from the name.
    pub id: StreamId,
    /// The identifier of the Rust type.
    pub ty: &'static str,
    /// The type's doc comment.
    pub doc: &'static str,
    /// The declared shape in canonical text.
    pub shape: &'static str,
    /// The fingerprint of the shape.
    pub schema: Schema,
    /// Its items are of another type, whose shape is not declared here.
    pub is_foreign: bool,
    /// The roles and grants of which a producer's ticket needs one; with none, every member may produce.
    pub produce: &'static [&'static str],
    /// The same of a consumer.
    pub consume: &'static [&'static str],
    /// Only roles that clear it receive the stream.
    pub label: Option<&'static str>,
    /// The name of the group that owns it, if one does.
    pub owner: Option<&'static str>,
}

impl StreamDecl {
    /// A stream of this name, Rust type, doc comment and shape.
    #[must_use]
    pub const fn new(name: &'static str, ty: &'static str, doc: &'static str, shape: &'static str) -> Self {
        let (id, schema) = (StreamId::from_name(name), Schema::of(shape));
        Self {
            name,
            id,
            ty,
            doc,
            shape,
            schema,
            is_foreign: false,
            produce: &[],
            consume: &[],
            label: None,
            owner: None,
        }
    }

    /// A stream of this name, whose items are of another type (`of`).
    #[must_use]
    pub const fn foreign(name: &'static str, ty: &'static str, doc: &'static str, of: &'static str) -> Self {
        let (id, schema) = (StreamId::from_name(name), Schema::of(of));
        Self {
            name,
            id,
            ty,
            doc,
            shape: of,
            schema,
            is_foreign: true,
            produce: &[],
            consume: &[],
            label: None,
            owner: None,
        }
    }

    /// With the grants that its ends need.
    #[must_use]
    pub const fn granting(self, produce: &'static [&'static str], consume: &'static [&'static str]) -> Self {
        Self { produce, consume, ..self }
    }

    /// With a label.
    ///
    /// # Panics
    /// When it is none; in a constant that is a compile error.
    #[must_use]
    pub const fn labelled(self, label: &'static str) -> Self {
        Self { label: Some(checked(label)), ..self }
    }

    /// Owned by the group of this name.
    #[must_use]
    pub const fn owned_by(self, group: &'static str) -> Self {
        Self { owner: Some(group), ..self }
    }

    /// The fingerprint of the declared shape, unless it is declared elsewhere.
    pub(super) fn declared(&self) -> Option<[u8; 32]> {
        (!self.is_foreign).then_some(*self.schema.as_bytes())
    }
}

/// The fingerprint of a datum's declared shape: BLAKE3 over field names, types and serde attributes, as deep as the
/// declaration's own tokens go. Two programs whose fingerprints of one stream differ refuse each other by name instead
/// of misreading each other's items.
///
/// `Display` prints all 64 hex digits, `Debug` the first 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Schema([u8; 32]);

impl Schema {
    const DOMAIN: &'static [u8] = b"mosaik schema:";
    /// What one step of the chain takes: a BLAKE3 chunk without the 32 bytes of the step before.
    const STEP: usize = const_hash::MAX_LEN - 32;

    /// The fingerprint of a shape: BLAKE3 of its text, and of a text longer than one step, a chain of them.
    #[must_use]
    pub const fn of(shape: &str) -> Self {
        let mut rest = shape.as_bytes();
        let mut digest = const_hash::hash(Self::DOMAIN, first(rest, Self::STEP));
        while rest.len() > Self::STEP {
            rest = rest.split_at(Self::STEP).1;
            digest = const_hash::hash(&digest, first(rest, Self::STEP));
        }
        Self(digest)
    }

    /// The fingerprint of these 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) const fn same(self, other: Self) -> bool {
        let (mut a, mut b) = (self.0.as_slice(), other.0.as_slice());
        while let (Some((one, rest)), Some((other, others))) = (a.split_first_chunk(), b.split_first_chunk()) {
            if u128::from_le_bytes(*one) != u128::from_le_bytes(*other) {
                return false;
            }
            (a, b) = (rest, others);
        }
        true
    }
}

const fn first(bytes: &[u8], limit: usize) -> &[u8] {
    if bytes.len() > limit { bytes.split_at(limit).0 } else { bytes }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A declared tag, with its name for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagDecl {
    /// As declared.
    pub name: &'static str,
    /// What is announced.
    pub tag: Tag,
}

impl TagDecl {
    /// A tag of this name.
    ///
    /// # Panics
    /// When the name is empty, longer than 255 bytes or contains a comma; in a constant that is a compile error.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty(), "a tag is not empty");
        assert!(bytes.len() <= 255, "a tag is at most 255 bytes long");
        let mut i = 0;
        while i < bytes.len() {
            assert!(bytes[i] != b',', "a tag contains no comma: `--tag` and MOSAIK_TAG separate tags by it");
            i += 1;
        }
        Self { name, tag: Tag::from_name(name) }
    }
}

/// Which way items go, seen from the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The role sends them.
    Produces,
    /// The role receives them.
    Consumes,
}

/// One of two, by the direction.
pub(super) const fn way<T: Copy>(direction: Direction, produces: T, consumes: T) -> T {
    match direction {
        Direction::Produces => produces,
        Direction::Consumes => consumes,
    }
}

/// A field of a role that connects it with other nodes.
#[derive(Clone, Copy, Debug)]
pub struct EndpointDecl {
    /// The field's name.
    pub field: &'static str,
    /// What it is connected to.
    pub link: Link,
    /// Whether it is there only under a condition.
    pub optional: bool,
    /// What its field sets at its builder, in the order in which it is written.
    pub options: &'static [OptionDecl],
    /// Where the field is declared.
    pub place: Place,
}

/// An option of an endpoint as it is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionDecl {
    /// Its key in `#[mosaik(..)]`.
    pub key: &'static str,
    /// Its value as it is written, a text without its quotes; nothing for a key alone.
    pub value: &'static str,
}

/// A place in the source of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the compiler was given it.
    pub file: &'static str,
    /// The line, counted from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What a field of a role is connected to.
#[derive(Clone, Copy, Debug)]
pub enum Link {
    /// An end of a stream.
    Stream {
        /// Which way items go.
        direction: Direction,
        /// The stream.
        stream: StreamDecl,
        /// The stream that the type's serde container name gives, which `produce::<T>()` and `consume::<T>()` use.
        serde_id: fn() -> Option<StreamId>,
    },
    /// A member of a group.
    Group(MachineDecl),
    /// A client of a group, which is no member.
    Client(MachineDecl),
    /// An end of a store.
    Store {
        /// Which way deltas go: a primary produces them, a replica consumes them.
        direction: Direction,
        /// The store.
        store: StoreDecl,
    },
}

impl Link {
    /// Whether it is a member of the group of this name.
    #[must_use]
    pub const fn is_member_of(&self, group: &str) -> bool {
        matches!(self, Self::Group(machine) if same_text(machine.group.name, group))
    }
}

impl EndpointDecl {
    /// The value of an option that its field declares.
    #[must_use]
    pub const fn option(&self, key: &str) -> Option<&'static str> {
        let mut i = 0;
        while i < self.options.len() {
            if same_text(self.options[i].key, key) {
                return Some(self.options[i].value);
            }
            i += 1;
        }
        None
    }

    /// The stream that it is an end of, with its direction.
    #[must_use]
    pub const fn stream(&self) -> Option<(Direction, &StreamDecl)> {
        match &self.link {
            Link::Stream { direction, stream, .. } => Some((*direction, stream)),
            Link::Group(_) | Link::Client(_) | Link::Store { .. } => None,
        }
    }

    /// The machine of the group that it is a member of.
    #[must_use]
    pub const fn machine(&self) -> Option<&MachineDecl> {
        match &self.link {
            Link::Stream { .. } | Link::Store { .. } | Link::Client(_) => None,
            Link::Group(machine) => Some(machine),
        }
    }

    /// The machine of the group that it calls without being a member.
    #[must_use]
    pub const fn called(&self) -> Option<&MachineDecl> {
        match &self.link {
            Link::Stream { .. } | Link::Store { .. } | Link::Group(_) => None,
            Link::Client(machine) => Some(machine),
        }
    }

    /// The machine of the group that it is a member or a client of.
    pub(super) const fn group(&self) -> Option<&MachineDecl> {
        match self.machine() {
            Some(machine) => Some(machine),
            None => self.called(),
        }
    }

    /// The store that it is an end of, with the way that deltas go.
    #[must_use]
    pub const fn store(&self) -> Option<(Direction, &StoreDecl)> {
        match &self.link {
            Link::Store { direction, store } => Some((*direction, store)),
            Link::Stream { .. } | Link::Group(_) | Link::Client(_) => None,
        }
    }
}

impl EndpointDecl {
    /// What it is connected to: the kind of that and its name.
    #[must_use]
    pub const fn target(&self) -> (&'static str, &'static str) {
        match &self.link {
            Link::Stream { stream, .. } => ("stream", stream.name),
            Link::Group(machine) | Link::Client(machine) => ("group", machine.group.name),
            Link::Store { store, .. } => ("store", store.name),
        }
    }

    /// Whether two are connected to the same stream, group or store.
    pub(super) const fn is_of_the_same(&self, other: &Self) -> bool {
        let ((kind, name), (other_kind, other_name)) = (self.target(), other.target());
        same_text(name, other_name) && same_text(kind, other_kind)
    }

    /// The label of what it is connected to.
    #[must_use]
    pub const fn label(&self) -> Option<&'static str> {
        match &self.link {
            Link::Stream { stream, .. } => stream.label,
            Link::Group(machine) | Link::Client(machine) => machine.group.label,
            Link::Store { store, .. } => store.label,
        }
    }

    /// Whether the role receives by it what others send. A member of a group and who calls it do.
    #[must_use]
    pub const fn receives(&self) -> bool {
        match &self.link {
            Link::Stream { direction, .. } | Link::Store { direction, .. } => way(*direction, false, true),
            Link::Group(_) | Link::Client(_) => true,
        }
    }

    /// Whether others receive what the role sends by it. Commands of members and clients of a group are sent to all of them.
    #[must_use]
    pub const fn sends(&self) -> bool {
        match &self.link {
            Link::Stream { direction, .. } | Link::Store { direction, .. } => way(*direction, true, false),
            Link::Group(_) | Link::Client(_) => true,
        }
    }
}

impl EndpointDecl {
    /// What it is connected to, if the declaration of that asks for grants.
    #[must_use]
    pub const fn granted(&self) -> Option<&'static str> {
        let (name, first, second) = match &self.link {
            Link::Stream { stream, .. } => (stream.name, stream.produce, stream.consume),
            Link::Group(machine) | Link::Client(machine) => {
                (machine.group.name, machine.group.member, machine.group.call)
            }
            Link::Store { store, .. } => (store.name, store.primary, store.replica),
        };
        if first.is_empty() && second.is_empty() { None } else { Some(name) }
    }
}

/// How often a flag may be given, and what happens without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurs {
    /// Exactly once.
    Required,
    /// At most once.
    Optional,
    /// Any number of times.
    Many,
    /// Without a value: present or not.
    Switch,
    /// At most once; without it, this text is read.
    Default(&'static str),
    /// At most once; without it, the value of this expression is taken.
    Computed(&'static str),
}

/// A field of a role that is a flag on the command line.
#[derive(Clone, Copy, Debug)]
pub struct ArgDecl {
    /// The flag without its dashes.
    pub flag: &'static str,
    /// The field's doc comment.
    pub doc: &'static str,
    /// How often it may be given.
    pub occurs: Occurs,
    /// Whether a text is a value of the field's type; the error says why not.
    pub check: fn(&str) -> Result<(), String>,
}

/// A declared role.
#[derive(Clone, Copy, Debug)]
pub struct RoleDecl {
    /// Its name on the command line and in the graph.
    pub name: &'static str,
    /// The identifier of the Rust type.
    pub ty: &'static str,
    /// The type's doc comment.
    pub doc: &'static str,
    /// The tags that a node with this role announces.
    pub tags: &'static [TagDecl],
    /// The labels of what it may receive.
    pub clears: &'static [&'static str],
    /// The file with what may run at its peers (`attest`): it makes evidence of itself, and refuses who shows none that fits. Read when
    /// the node starts.
    pub attest: Option<&'static str>,
    /// Its flags.
    pub args: &'static [ArgDecl],
    /// Its ends of streams and stores, its members and clients of groups.
    pub endpoints: &'static [EndpointDecl],
}

impl RoleDecl {
    /// The endpoint of this field.
    #[must_use]
    pub const fn endpoint(&self, field: &str) -> Option<&'static EndpointDecl> {
        let mut i = 0;
        while i < self.endpoints.len() {
            if same_text(self.endpoints[i].field, field) {
                return Some(&self.endpoints[i]);
            }
            i += 1;
        }
        None
    }
}

/// The label of a declaration.
pub(super) const fn checked(label: &'static str) -> &'static str {
    assert!(is_label(label), "a label is letters, digits, `-`, `_` and `.`, at most 57 of them");
    label
}

/// String equality for constants. Eight bytes at a time, as the compiler takes its time for each step.
pub(super) const fn same_text(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    while let (Some((one, rest)), Some((other, others))) = (a.split_first_chunk(), b.split_first_chunk()) {
        if u64::from_le_bytes(*one) != u64::from_le_bytes(*other) {
            return false;
        }
        (a, b) = (rest, others);
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Checks that the silence after which a producer is late is declared once, for a handler of lateness with or without `after`.
/// Called in a constant, so that a violation is a compile error.
///
/// # Panics
/// When it is declared nowhere, or twice.
pub const fn check_late(role: &RoleDecl, field: &str, has_own: bool) {
    let Some(endpoint) = role.endpoint(field) else { return };
    let declared = endpoint.option("deadline").is_some();
    assert!(
        declared || has_own,
        "say after what silence a producer is late: `#[mosaik(deadline = \"5s\")]` on the field, or `after = \"5s\"` here"
    );
    assert!(
        !(declared && has_own),
        "the field says already after what silence a producer is late: leave `after` out here"
    );
}

/// Checks that a role is a member of the group that its handler runs once for. Called in a constant, so that a violation is a
/// compile error.
///
/// # Panics
/// When it is none, or only a client.
pub const fn check_once(role: &RoleDecl, group: &str) {
    let (mut i, mut is_client) = (0, false);
    while i < role.endpoints.len() {
        let endpoint = &role.endpoints[i];
        if endpoint.link.is_member_of(group) {
            return;
        }
        if let Some(machine) = endpoint.called() {
            is_client |= same_text(machine.group.name, group);
        }
        i += 1;
    }
    assert!(
        !is_client,
        "`once` runs the handler at the member that leads the group, and a client is no member: give the role a field of type \
         `Replica` of it"
    );
    assert!(
        is_client,
        "`once` runs the handler at the member that leads the group, and this role is no member of it: give it a field of type \
         `Replica` of that group"
    );
}

/// What is wrong with a role that sends on a stream, or changes a store, which a group owns.
pub(super) struct Owning {
    /// It is no member of the group.
    pub(super) is_outside: bool,
    /// The group has another label, so members get what they may not.
    pub(super) is_mislabelled: bool,
}

/// Looks at the owned streams on which a role sends, and at the owned stores that it changes.
pub(super) const fn owning(role: &RoleDecl) -> Owning {
    let mut found = Owning { is_outside: false, is_mislabelled: false };
    let mut i = 0;
    while i < role.endpoints.len() {
        let (owner, label) = match &role.endpoints[i].link {
            Link::Stream { direction: Direction::Produces, stream, .. } => (stream.owner, stream.label),
            Link::Store { direction: Direction::Produces, store } => (store.owner, store.label),
            _ => (None, None),
        };
        if let Some(group) = owner {
            let (mut j, mut is_member) = (0, false);
            while j < role.endpoints.len() {
                if role.endpoints[j].link.is_member_of(group) {
                    is_member = true;
                    found.is_mislabelled |= !same_optional(label, role.endpoints[j].label());
                }
                j += 1;
            }
            found.is_outside |= !is_member;
        }
        i += 1;
    }
    found
}

pub(super) const fn same_optional(a: Option<&str>, b: Option<&str>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => same_text(a, b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_shape_is_plain_blake3() {
        let want = blake3::Hasher::new().update(b"mosaik schema:struct{a:u8}").finalize();
        assert_eq!(Schema::of("struct{a:u8}").as_bytes(), want.as_bytes());
    }

    #[test]
    fn every_byte_of_a_long_shape_counts() {
        let long = "x".repeat(5000);
        for at in [0, 991, 992, 993, 1984, 4999] {
            let mut other = long.clone();
            other.replace_range(at..=at, "y");
            assert_ne!(Schema::of(&long), Schema::of(&other), "byte {at}");
        }
        assert_ne!(Schema::of(&long), Schema::of(&long[1..]));
    }
}
