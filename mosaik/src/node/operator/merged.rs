//! Several programs' declarations beside each other: `inspect` prints one, `check` says what does not fit together.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    super::corridor::{self, End},
    embedded::{AppSeen, EndpointSeen, LinkSeen, RoleSeen},
};

/// What is wrong between programs, and what is probably not meant.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// What is labelled, who has it, and what is declassified; nothing where there is no label.
    pub(super) corridors: String,
}

/// An end of something, with where it is declared.
struct Use<'a> {
    program: &'a str,
    role: &'a RoleSeen,
    endpoint: &'a EndpointSeen,
}

impl Use<'_> {
    fn place(&self) -> String {
        let Self { program, role, endpoint } = self;
        format!("{}.{} in {program} ({}:{})", role.name, endpoint.field, endpoint.file, endpoint.line)
    }

    /// Whether it is an end that another one needs: it sends items or deltas, or is a member.
    fn sends(&self) -> bool {
        matches!(self.endpoint.link.direction(), "produces" | "changes" | "replicates")
    }
}

/// Compares all programs, each with the name that it was given by.
pub(super) fn check(programs: &[(String, Vec<AppSeen>)]) -> Findings {
    let mut uses: BTreeMap<(&str, &str), Vec<Use<'_>>> = BTreeMap::new();
    for (program, apps) in programs {
        for role in apps.iter().flat_map(|app| &app.roles) {
            for endpoint in &role.endpoints {
                uses.entry(endpoint.link.target()).or_default().push(Use { program, role, endpoint });
            }
        }
    }
    let mut findings = Findings { corridors: corridors(programs), ..Findings::default() };
    for ((kind, name), uses) in &uses {
        let Some(first) = uses.first() else { continue };
        for other in &uses[1..] {
            if let Some(differs) = difference(name, &first.endpoint.link, &other.endpoint.link) {
                let (one, two) = (first.place(), other.place());
                findings.errors.push(format!("{kind} \"{name}\": {differs}\n    {one}\n    {two}"));
            }
            for ((key, ours), (_, theirs)) in first.endpoint.link.grants().into_iter().zip(other.endpoint.link.grants())
            {
                if ours != theirs {
                    let (ours, theirs) = (granted(ours), granted(theirs));
                    let (one, two) = (first.place(), other.place());
                    findings.warnings.push(format!(
                        "{kind} \"{name}\": `{key}` is granted to {ours}, and to {theirs}\n    {one}\n    {two}"
                    ));
                }
            }
        }
        unattested(kind, name, uses, &mut findings);
        let places = || uses.iter().map(|each| format!("\n    {}", each.place())).collect::<Vec<_>>().concat();
        match (*kind, uses.iter().any(Use::sends), uses.iter().all(Use::sends)) {
            ("stream", false, _) => {
                findings.warnings.push(format!("stream \"{name}\" is consumed and produced by nobody{}", places()));
            }
            ("stream", _, true) => {
                findings.warnings.push(format!("stream \"{name}\" is produced and consumed by nobody{}", places()));
            }
            ("store", false, _) => {
                findings.warnings.push(format!("store \"{name}\" is followed and changed by nobody{}", places()));
            }
            ("store", _, true) => {
                findings.warnings.push(format!("store \"{name}\" is changed and followed by nobody{}", places()));
            }
            ("group", false, _) => {
                findings.warnings.push(format!("group \"{name}\" is called and has no member{}", places()));
            }
            ("group", ..) => timings(name, uses, &mut findings),
            _ => {}
        }
    }
    findings
}

/// Who asks for evidence and who shows none refuse each other.
fn unattested(kind: &str, name: &str, uses: &[Use<'_>], findings: &mut Findings) {
    let asks = uses.iter().filter(|each| each.role.attest.is_some());
    for (asks, other) in asks.flat_map(|asks| uses.iter().map(move |other| (asks, other))) {
        let (one, two) = (end(asks.role, asks.endpoint), end(other.role, other.endpoint));
        if other.role.attest.is_none() && (one.sends && two.receives || one.receives && two.sends) {
            findings.warnings.push(format!(
                "{kind} \"{name}\": one end has `attest`, so it asks for evidence, which the other end does not show\n    {}\n    {}",
                asks.place(),
                other.place()
            ));
        }
    }
}

fn granted(names: &[String]) -> String {
    if names.is_empty() { String::from("everybody") } else { names.join(" or ") }
}

/// What is labelled in all programs together.
fn corridors(programs: &[(String, Vec<AppSeen>)]) -> String {
    let roles = || programs.iter().flat_map(|(_, apps)| apps).flat_map(|app| &app.roles);
    let ends = roles().flat_map(|role| role.endpoints.iter().map(|endpoint| end(role, endpoint)));
    corridor::report(&ends.collect::<Vec<_>>())
}

fn end<'a>(role: &'a RoleSeen, endpoint: &'a EndpointSeen) -> End<'a> {
    let link = &endpoint.link;
    let declassify = endpoint.options.iter().find(|(key, _)| key == "declassify").map(|(_, reason)| reason.as_str());
    End {
        role: &role.name,
        field: &endpoint.field,
        target: link.target(),
        label: link.label(),
        sends: !matches!(link.direction(), "consumes" | "follows"),
        receives: !matches!(link.direction(), "produces" | "changes"),
        declassify,
    }
}

/// All members must have the same timing, which a field may declare.
fn timings(name: &str, uses: &[Use<'_>], findings: &mut Findings) {
    let timing = |each: &Use<'_>| {
        let option = each.endpoint.options.iter().find(|(key, _)| key == "timing");
        option.map_or_else(|| "the default".to_owned(), |(_, value)| value.clone())
    };
    let mut members = uses.iter().filter(|each| each.sends());
    let Some(first) = members.next() else { return };
    for other in members.filter(|other| timing(other) != timing(first)) {
        let (ours, theirs) = (timing(first), timing(other));
        let (one, two) = (first.place(), other.place());
        findings.errors.push(format!(
            "group \"{name}\": members of different timing refuse each other: {ours}, {theirs}\n    {one}\n    {two}"
        ));
    }
}

/// What two ends that mean the same thing declare differently.
fn difference(name: &str, one: &LinkSeen, other: &LinkSeen) -> Option<String> {
    if one.label() != other.label() {
        let shown = |link: &LinkSeen| link.label().map_or_else(|| String::from("none"), |label| format!("\"{label}\""));
        return Some(format!("labels {} and {}", shown(one), shown(other)));
    }
    if one.owner() != other.owner() {
        let shown = |link: &LinkSeen| link.owner().map_or_else(|| String::from("nobody"), str::to_owned);
        return Some(format!("owned by {} and by {}", shown(one), shown(other)));
    }
    match (one, other) {
        (LinkSeen::Stream { shape: a, .. }, LinkSeen::Stream { shape: other_a, .. }) => shapes(name, a, other_a),
        (LinkSeen::Store { delta: a, version: b, .. }, LinkSeen::Store { delta: other_a, version: other_b, .. }) => {
            if b != other_b {
                return Some(format!("versions {b} and {other_b}"));
            }
            (a != other_a).then(|| format!("deltas of type {a} and {other_a}"))
        }
        (
            LinkSeen::Group { size: a, version: b, schema: c, .. },
            LinkSeen::Group { size: other_a, version: other_b, schema: other_c, .. },
        ) => {
            if a != other_a {
                return Some(format!("{a} and {other_a} founders"));
            }
            if b != other_b {
                return Some(format!("versions {b} and {other_b} of the machine"));
            }
            (c != other_c).then(|| "commands of different shape under one version".to_owned())
        }
        _ => None,
    }
}

/// The first difference of two declared shapes, with its path.
fn shapes(path: &str, one: &str, other: &str) -> Option<String> {
    if one == other {
        return None;
    }
    if let (Some((kind, ours)), Some((other_kind, theirs))) = (members(one), members(other))
        && kind == other_kind
    {
        for index in 0..ours.len().max(theirs.len()) {
            let (ours, theirs) = (ours.get(index), theirs.get(index));
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                let missing = ours.or(theirs).copied().unwrap_or_default();
                return Some(format!("{path}: one of them has `{missing}` more"));
            };
            if ours == theirs {
                continue;
            }
            let ((name, ours), (other_name, theirs)) = (named(ours), named(theirs));
            if name != other_name {
                return Some(format!("{path}: {name} and {other_name}"));
            }
            let inner = if name.is_empty() { format!("{path}.{index}") } else { format!("{path}.{name}") };
            return shapes(&inner, ours, theirs);
        }
    }
    Some(format!("{path}: {one} and {other}"))
}

/// What stands before the brackets of a shape, and what stands in them, split at the commas of this level.
fn members(shape: &str) -> Option<(&str, Vec<&str>)> {
    let open = shape.find(['{', '('])?;
    let inside = shape.get(open + 1..)?.strip_suffix(['}', ')'])?;
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0usize, 0);
    for (at, letter) in inside.char_indices() {
        match letter {
            '{' | '(' | '<' | '[' => depth += 1,
            '}' | ')' | '>' | ']' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(inside.get(begin..at)?);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if begin < inside.len() {
        parts.push(inside.get(begin..)?);
    }
    Some((shape.get(..open)?, parts))
}

/// A member's name and the rest: a field and its type, or a variant and what it holds.
fn named(member: &str) -> (&str, &str) {
    let end = member.find([':', '{', '(']).unwrap_or(member.len());
    match member.as_bytes().get(end) {
        Some(b':') if member.as_bytes().get(end + 1) != Some(&b':') => {
            (member.get(..end).unwrap_or_default(), member.get(end + 1..).unwrap_or_default())
        }
        Some(b'{' | b'(') => (member.get(..end).unwrap_or_default(), member),
        _ => ("", member),
    }
}

/// One program's apps for people.
pub(super) fn listing(apps: &[AppSeen]) -> String {
    let mut out = String::new();
    for app in apps {
        // Writing to a String does not fail.
        let _ = writeln!(out, "app {} {}", app.app, app.version);
        for role in &app.roles {
            let _ = writeln!(out, "  role {} ({})", role.name, role.ty);
            for tag in &role.tags {
                let _ = writeln!(out, "    tag {tag}");
            }
            for label in &role.clears {
                let _ = writeln!(out, "    clears {label}");
            }
            if let Some(file) = &role.attest {
                let _ = writeln!(out, "    attested by {file}");
            }
            for EndpointSeen { field, file, line, optional, options, link } in &role.endpoints {
                let what = match link {
                    LinkSeen::Stream { direction, name, ty, owner, .. } => {
                        let owner = owner.as_ref().map_or_else(String::new, |group| format!(", owned by {group}"));
                        format!("{direction} stream {name} ({ty}){owner}")
                    }
                    LinkSeen::Group { direction, name, ty, size, version, .. } => {
                        format!("{direction} group {name} ({ty}, {size} founders, version {version})")
                    }
                    LinkSeen::Store { direction, name, ty, owner, .. } => {
                        let owner = owner.as_ref().map_or_else(String::new, |group| format!(", owned by {group}"));
                        format!("{direction} store {name} ({ty}){owner}")
                    }
                };
                let maybe = if *optional { ", optional" } else { "" };
                let label = link.label().map_or_else(String::new, |label| format!(", labelled {label}"));
                let _ = writeln!(out, "    {field}: {what}{label}{maybe}  {file}:{line}");
                for (key, names) in link.grants().into_iter().filter(|(_, names)| !names.is_empty()) {
                    let _ = writeln!(out, "      {key} granted to {}", granted(names));
                }
                for (key, value) in options {
                    let value = if value.is_empty() { String::new() } else { format!(" = {value}") };
                    let _ = writeln!(out, "      {key}{value}");
                }
            }
            for arg in &role.args {
                let default = if arg.default.is_empty() { String::new() } else { format!(" = {}", arg.default) };
                let _ = writeln!(out, "    --{} {}{default}", arg.flag, arg.occurs);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_told_with_its_path() {
        for (one, other, want) in [
            ("struct{a:u8,b:Vec<u8>}", "struct{a:u8,b:Vec<u16>}", "s.b: Vec<u8> and Vec<u16>"),
            ("struct{a:u8}", "struct{a:u8,b:u8}", "s: one of them has `b:u8` more"),
            ("struct{a:u8}", "struct{b:u8}", "s: a and b"),
            ("struct(u8,(u8,u16))", "struct(u8,(u8,u8))", "s.1.1: u16 and u8"),
            ("enum{A(u8),C{d:u8}}", "enum{A(u8),C{d:i8}}", "s.C.d: u8 and i8"),
            ("struct{a:u8}", "enum{A}", "s: struct{a:u8} and enum{A}"),
            ("struct{a:std::net::IpAddr}", "struct{a:u32}", "s.a: std::net::IpAddr and u32"),
        ] {
            assert_eq!(shapes("s", one, other).as_deref(), Some(want), "{one} {other}");
        }
        assert_eq!(shapes("s", "struct{a:u8}", "struct{a:u8}"), None);
    }

    /// One endpoint of the group "ledger" in a program of its own.
    fn program(direction: &str, options: &[(&str, &str)]) -> (String, Vec<AppSeen>) {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let text = String::new;
        let link = LinkSeen::Group {
            direction: direction.to_owned(),
            name: "ledger".to_owned(),
            ty: text(),
            key_variable: text(),
            size: 3,
            version: 1,
            schema: text(),
            label: None,
            member: vec![],
            call: vec![],
        };
        let endpoint = EndpointSeen { field: "it".into(), file: text(), line: 1, optional: false, options, link };
        let role = RoleSeen {
            name: direction.to_owned(),
            ty: text(),
            doc: text(),
            tags: vec![],
            clears: vec![],
            attest: None,
            args: vec![],
            endpoints: vec![endpoint],
        };
        (direction.to_owned(), vec![AppSeen { app: text(), doc: text(), version: text(), roles: vec![role] }])
    }

    #[test]
    fn a_client_needs_a_member_and_no_timing() {
        let alone = check(&[program("calls", &[])]);
        assert_eq!(alone.warnings.len(), 1, "{alone:?}");
        assert!(alone.warnings[0].starts_with("group \"ledger\" is called and has no member"), "{alone:?}");
        let both = check(&[program("calls", &[]), program("replicates", &[("timing", "lan")])]);
        assert!(both.errors.is_empty() && both.warnings.is_empty(), "{both:?}");
        let two = check(&[program("replicates", &[]), program("replicates", &[("timing", "lan")])]);
        assert_eq!(two.errors.len(), 1, "{two:?}");
    }
}
