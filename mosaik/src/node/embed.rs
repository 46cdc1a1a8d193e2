//! An app's graph as bytes in the program itself, for `mosaik inspect` and `mosaik check`, which read it without running it. The
//! compiler computes it; [`embedded`](super::operator) reads it back. Fields in the order of the declarations: numbers are four
//! bytes, little-endian, texts and lists have their length before them.

use super::{
    decl::{EndpointDecl, Link, Occurs, RoleDecl},
    graph::Graph,
    machine::{KeyDecl, MachineDecl},
    store::StoreDecl,
};

/// What every record begins with; the last byte is the version of what follows.
pub(super) const MAGIC: [u8; 8] = *b"mosaikG\x04";
/// The magic, the length of what follows the header, and its checksum.
pub(super) const HEADER: usize = 8 + 4 + 8;
/// The link section of the records: a name that every object format takes.
#[cfg(feature = "cli")]
pub(super) const SECTION: &str = "mosaik";

/// FNV-1a over words of eight bytes, the last one filled up with zeros: it finds damage, not forgery.
pub(super) const fn checksum(bytes: &[u8]) -> u64 {
    let (mut rest, mut sum) = (bytes, 0xcbf2_9ce4_8422_2325_u64);
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        sum = (sum ^ u64::from_le_bytes(*word)).wrapping_mul(0x0100_0000_01b3);
        rest = after;
    }
    let mut last = [0; 8];
    last.split_at_mut(rest.len()).0.copy_from_slice(rest);
    (sum ^ u64::from_le_bytes(last)).wrapping_mul(0x0100_0000_01b3)
}

/// How many bytes a graph takes.
#[must_use]
pub const fn record_size(graph: &Graph) -> usize {
    let mut out = Out { bytes: [], at: HEADER };
    put_graph(&mut out, graph);
    out.at
}

/// The record of a graph, of [`record_size`] bytes.
#[must_use]
pub const fn record<const N: usize>(graph: &Graph) -> [u8; N] {
    let mut out = Out { bytes: [0; N], at: HEADER };
    put_graph(&mut out, graph);
    let body = out.bytes.split_at(HEADER).1;
    let (length, sum) = (number(body.len()), checksum(body));
    out.at = 0;
    out.raw(&MAGIC);
    out.number(length);
    out.raw(&sum.to_le_bytes());
    out.bytes
}

/// Bytes that are filled one part after the other; without room for any, they are only counted.
struct Out<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

#[expect(clippy::cast_possible_truncation, reason = "no program declares so much")]
const fn number(value: usize) -> u32 {
    value as u32
}

impl<const N: usize> Out<N> {
    const fn raw(&mut self, part: &[u8]) {
        if N > 0 && !part.is_empty() {
            self.bytes.split_at_mut(self.at).1.split_at_mut(part.len()).0.copy_from_slice(part);
        }
        self.at += part.len();
    }

    const fn number(&mut self, value: u32) {
        // They are zero until they are filled, and most texts are empty.
        if N > 0 && value > 0 {
            let at = self.at;
            [self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]] = value.to_le_bytes();
        }
        self.at += 4;
    }

    const fn text(&mut self, text: &str) {
        self.number(number(text.len()));
        self.raw(text.as_bytes());
    }
}

const fn put_graph<const N: usize>(out: &mut Out<N>, graph: &Graph) {
    out.text(graph.app);
    out.text(graph.doc);
    out.text(match graph.version {
        Some(version) => version,
        None => "",
    });
    out.number(number(graph.roles.len()));
    let mut i = 0;
    while i < graph.roles.len() {
        put_role(out, &graph.roles[i].role);
        i += 1;
    }
}

const fn put_role<const N: usize>(out: &mut Out<N>, role: &RoleDecl) {
    out.text(role.name);
    out.text(role.ty);
    out.text(role.doc);
    out.number(number(role.tags.len()));
    let mut i = 0;
    while i < role.tags.len() {
        out.text(role.tags[i].name);
        i += 1;
    }
    put_texts(out, role.clears);
    out.text(match role.attest {
        Some(file) => file,
        None => "",
    });
    out.number(number(role.args.len()));
    i = 0;
    while i < role.args.len() {
        let (kind, default) = match role.args[i].occurs {
            Occurs::Required => ("required", ""),
            Occurs::Optional => ("optional", ""),
            Occurs::Many => ("many", ""),
            Occurs::Switch => ("switch", ""),
            Occurs::Default(text) | Occurs::Computed(text) => ("default", text),
        };
        out.text(role.args[i].flag);
        out.text(role.args[i].doc);
        out.text(kind);
        out.text(default);
        i += 1;
    }
    out.number(number(role.endpoints.len()));
    i = 0;
    while i < role.endpoints.len() {
        put_endpoint(out, &role.endpoints[i]);
        i += 1;
    }
}

const fn put_endpoint<const N: usize>(out: &mut Out<N>, endpoint: &EndpointDecl) {
    out.text(endpoint.field);
    out.text(endpoint.place.file);
    out.number(endpoint.place.line);
    out.number(endpoint.optional as u32);
    out.number(number(endpoint.options.len()));
    let mut i = 0;
    while i < endpoint.options.len() {
        out.text(endpoint.options[i].key);
        out.text(endpoint.options[i].value);
        i += 1;
    }
    match &endpoint.link {
        Link::Stream { direction, stream, .. } => {
            out.text(super::decl::way(*direction, "produces", "consumes"));
            out.text(stream.name);
            out.text(stream.ty);
            out.text(stream.shape);
            put_terms(out, stream.label, stream.produce, stream.consume);
            put_owner(out, stream.owner);
        }
        Link::Group(machine) => put_group(out, "replicates", machine),
        Link::Client(machine) => put_group(out, "calls", machine),
        Link::Store { direction, store } => {
            out.text(super::decl::way(*direction, "changes", "follows"));
            put_store(out, store);
        }
    }
}

const fn put_group<const N: usize>(out: &mut Out<N>, verb: &str, machine: &MachineDecl) {
    out.text(verb);
    out.text(machine.group.name);
    out.text(machine.group.ty);
    out.text(match machine.group.key {
        KeyDecl::Env(variable) => variable,
        KeyDecl::File(_) | KeyDecl::Secret | KeyDecl::Value => "",
    });
    out.number(match machine.group.size {
        Some(size) => size,
        None => 0,
    });
    out.number(machine.version);
    match machine.schema {
        Some(schema) => out.raw(&schema),
        None => out.raw(&[0; 32]),
    }
    put_terms(out, machine.group.label, machine.group.member, machine.group.call);
}

const fn put_store<const N: usize>(out: &mut Out<N>, store: &StoreDecl) {
    out.text(store.name);
    out.text(store.ty);
    out.text(store.delta);
    out.number(store.version);
    put_terms(out, store.label, store.primary, store.replica);
    put_owner(out, store.owner);
}

/// Empty without one.
const fn put_owner<const N: usize>(out: &mut Out<N>, owner: Option<&str>) {
    out.text(match owner {
        Some(group) => group,
        None => "",
    });
}

/// A label, empty without one, and the grants of the two ends.
const fn put_terms<const N: usize>(out: &mut Out<N>, label: Option<&str>, first: &[&str], second: &[&str]) {
    out.text(match label {
        Some(label) => label,
        None => "",
    });
    put_texts(out, first);
    put_texts(out, second);
}

const fn put_texts<const N: usize>(out: &mut Out<N>, texts: &[&str]) {
    out.number(number(texts.len()));
    let mut i = 0;
    while i < texts.len() {
        out.text(texts[i]);
        i += 1;
    }
}
