//! Reads the graphs of apps out of a program, without running it: finds the link section in an ELF file and decodes its records,
//! each of which must be whole.

use std::{fs, path::Path};

use serde::Serialize;

use super::super::embed::{HEADER, MAGIC, SECTION, checksum};

/// The longest program that is read, in bytes.
const MAX_FILE: u64 = 1 << 30;
/// The most records, and the most elements of a list.
const MAX_LIST: u32 = 65_536;

/// Why a program's graphs cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum InspectError {
    #[error("cannot read {file}: {error}")]
    Read { file: String, error: std::io::Error },
    #[error("{file} is longer than 1 GiB")]
    TooLong { file: String },
    #[error("{file} is no 64-bit little-endian ELF program: {why}")]
    NotElf { file: String, why: &'static str },
    #[error("{file} declares no app: it has no section `mosaik`, so no `#[mosaik::app]` is linked into it")]
    NoApp { file: String },
    #[error("the declarations in {file} are damaged: {why}")]
    Damaged { file: String, why: &'static str },
}

/// An app as its program declares it.
#[derive(Debug, Serialize)]
pub(super) struct AppSeen {
    pub(super) app: String,
    pub(super) doc: String,
    pub(super) version: String,
    pub(super) roles: Vec<RoleSeen>,
}

#[derive(Debug, Serialize)]
pub(super) struct RoleSeen {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) ty: String,
    pub(super) doc: String,
    pub(super) tags: Vec<String>,
    pub(super) clears: Vec<String>,
    /// The file with what may run at those that it is connected to.
    pub(super) attest: Option<String>,
    pub(super) args: Vec<ArgSeen>,
    pub(super) endpoints: Vec<EndpointSeen>,
}

#[derive(Debug, Serialize)]
pub(super) struct ArgSeen {
    pub(super) flag: String,
    pub(super) doc: String,
    pub(super) occurs: String,
    pub(super) default: String,
}

#[derive(Debug, Serialize)]
pub(super) struct EndpointSeen {
    pub(super) field: String,
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) optional: bool,
    pub(super) options: Vec<(String, String)>,
    pub(super) link: LinkSeen,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum LinkSeen {
    Stream {
        direction: String,
        name: String,
        #[serde(rename = "type")]
        ty: String,
        shape: String,
        label: Option<String>,
        produce: Vec<String>,
        consume: Vec<String>,
        /// The group that owns it.
        owner: Option<String>,
    },
    Group {
        direction: String,
        name: String,
        #[serde(rename = "type")]
        ty: String,
        key_variable: String,
        size: u32,
        version: u32,
        schema: String,
        label: Option<String>,
        member: Vec<String>,
        call: Vec<String>,
    },
    Store {
        direction: String,
        name: String,
        #[serde(rename = "type")]
        ty: String,
        delta: String,
        version: u32,
        label: Option<String>,
        primary: Vec<String>,
        replica: Vec<String>,
        owner: Option<String>,
    },
}

impl LinkSeen {
    /// The kind and the name of what it is connected to.
    pub(super) fn target(&self) -> (&str, &str) {
        match self {
            Self::Stream { name, .. } => ("stream", name),
            Self::Group { name, .. } => ("group", name),
            Self::Store { name, .. } => ("store", name),
        }
    }

    /// What the role does with it.
    pub(super) fn direction(&self) -> &str {
        let (Self::Stream { direction, .. } | Self::Group { direction, .. } | Self::Store { direction, .. }) = self;
        direction
    }

    pub(super) fn label(&self) -> Option<&str> {
        let (Self::Stream { label, .. } | Self::Group { label, .. } | Self::Store { label, .. }) = self;
        label.as_deref()
    }

    /// The group that owns it.
    pub(super) fn owner(&self) -> Option<&str> {
        match self {
            Self::Stream { owner, .. } | Self::Store { owner, .. } => owner.as_deref(),
            Self::Group { .. } => None,
        }
    }

    /// The grants that its two ends need, each with its key in the declaration.
    pub(super) fn grants(&self) -> [(&'static str, &[String]); 2] {
        match self {
            Self::Stream { produce, consume, .. } => [("produce", produce), ("consume", consume)],
            Self::Group { member, call, .. } => [("member", member), ("call", call)],
            Self::Store { primary, replica, .. } => [("primary", primary), ("replica", replica)],
        }
    }
}

/// The apps that a program declares, in the order in which they lie in it.
pub(super) fn read(path: &Path) -> Result<Vec<AppSeen>, InspectError> {
    let file = || path.display().to_string();
    let failed = |error| InspectError::Read { file: file(), error };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(InspectError::TooLong { file: file() });
    }
    let bytes = fs::read(path).map_err(failed)?;
    let section = section(&bytes, SECTION).map_err(|why| InspectError::NotElf { file: file(), why })?;
    let section = section.ok_or_else(|| InspectError::NoApp { file: file() })?;
    let apps = records(section).map_err(|why| InspectError::Damaged { file: file(), why })?;
    if apps.is_empty() { Err(InspectError::NoApp { file: file() }) } else { Ok(apps) }
}

/// The contents of a section of an ELF file, if it has it (System V ABI, chapter 4).
fn section<'a>(file: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, &'static str> {
    if file.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("it does not begin as one");
    }
    const CUT: &str = "it is cut off";
    let table = long(file, 0x28).ok_or(CUT)?;
    let (size, count, names) = (short(file, 0x3a), short(file, 0x3c), short(file, 0x3e));
    let (size, count, names) = (size.ok_or(CUT)?, count.ok_or(CUT)?, names.ok_or(CUT)?);
    let header = |index: usize| file.get(table.checked_add(index.checked_mul(size)?)?..)?.get(..0x40);
    let contents = |header: &[u8]| {
        let (at, length) = (long(header, 0x18)?, long(header, 0x20)?);
        file.get(at..at.checked_add(length)?)
    };
    if count == 0 {
        return Err("it has no sections");
    }
    let names = header(names).and_then(contents).ok_or(CUT)?;
    for index in 0..count {
        let header = header(index).ok_or(CUT)?;
        let at = word(header, 0).ok_or(CUT)?;
        let found = usize::try_from(at).ok().and_then(|at| names.get(at..)).unwrap_or_default();
        if found.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)) {
            return contents(header).map(Some).ok_or(CUT);
        }
    }
    Ok(None)
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes).into())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().and_then(|bytes| usize::try_from(u64::from_le_bytes(*bytes)).ok())
}

/// The linker may leave room between records.
fn records(mut section: &[u8]) -> Result<Vec<AppSeen>, &'static str> {
    let mut apps = Vec::new();
    while let Some(begin) = section.iter().position(|byte| *byte != 0) {
        section = section.get(begin..).unwrap_or_default();
        let (header, rest) = section.split_at_checked(HEADER).ok_or("the last record is cut off")?;
        if header.get(..7) != MAGIC.get(..7) {
            return Err("something that is no record lies between them");
        }
        if header.get(7) != MAGIC.get(7) {
            return Err("another version of mosaik has written them");
        }
        let length = word(header, 8).and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        let (body, after) = rest.split_at_checked(length).ok_or("the last record is cut off")?;
        let sum = header.get(12..).and_then(<[u8]>::first_chunk).map(|sum| u64::from_le_bytes(*sum));
        if sum != Some(checksum(body)) {
            return Err("a checksum is wrong");
        }
        let mut input = Input(body);
        apps.push(input.app().filter(|_| input.0.is_empty()).ok_or("a record does not say what it should")?);
        section = after;
    }
    Ok(apps)
}

/// A text that is empty when there is none.
fn present(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// A record that is being decoded; `None` is the end of what can be understood.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*number))
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn list<T>(&mut self, each: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number().filter(|count| *count <= MAX_LIST)?;
        (0..count).map(|_| each(self)).collect()
    }

    fn app(&mut self) -> Option<AppSeen> {
        let (app, doc, version) = (self.text()?, self.text()?, self.text()?);
        Some(AppSeen { app, doc, version, roles: self.list(Self::role)? })
    }

    fn role(&mut self) -> Option<RoleSeen> {
        Some(RoleSeen {
            name: self.text()?,
            ty: self.text()?,
            doc: self.text()?,
            tags: self.list(Self::text)?,
            clears: self.list(Self::text)?,
            attest: present(self.text()?),
            args: self.list(|input| {
                let (flag, doc) = (input.text()?, input.text()?);
                Some(ArgSeen { flag, doc, occurs: input.text()?, default: input.text()? })
            })?,
            endpoints: self.list(Self::endpoint)?,
        })
    }

    fn endpoint(&mut self) -> Option<EndpointSeen> {
        Some(EndpointSeen {
            field: self.text()?,
            file: self.text()?,
            line: self.number()?,
            optional: self.number()? != 0,
            options: self.list(|input| Some((input.text()?, input.text()?)))?,
            link: self.link()?,
        })
    }

    /// A label, and the grants of the two ends.
    fn terms(&mut self) -> Option<(Option<String>, Vec<String>, Vec<String>)> {
        Some((present(self.text()?), self.list(Self::text)?, self.list(Self::text)?))
    }

    fn link(&mut self) -> Option<LinkSeen> {
        let direction = self.text()?;
        Some(match direction.as_str() {
            "produces" | "consumes" => {
                let (name, ty, shape) = (self.text()?, self.text()?, self.text()?);
                let (label, produce, consume) = self.terms()?;
                let owner = Some(self.text()?).filter(|owner| !owner.is_empty());
                LinkSeen::Stream { direction, name, ty, shape, label, produce, consume, owner }
            }
            "replicates" | "calls" => {
                let (name, ty, key_variable) = (self.text()?, self.text()?, self.text()?);
                let (size, version) = (self.number()?, self.number()?);
                let (schema, rest) = self.0.split_first_chunk::<32>()?;
                self.0 = rest;
                let schema = schema.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
                let (label, member, call) = self.terms()?;
                LinkSeen::Group { direction, name, ty, key_variable, size, version, schema, label, member, call }
            }
            "changes" | "follows" => {
                let (name, ty, delta) = (self.text()?, self.text()?, self.text()?);
                let version = self.number()?;
                let (label, primary, replica) = self.terms()?;
                let owner = Some(self.text()?).filter(|owner| !owner.is_empty());
                LinkSeen::Store { direction, name, ty, delta, version, label, primary, replica, owner }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{
        Graph,
        embed::{record, record_size},
    };

    const GRAPH: Graph = Graph { app: "an app", doc: "What it is.", version: Some("1.2.3"), roles: &[] };
    const RECORD: [u8; record_size(&GRAPH)] = record(&GRAPH);

    #[test]
    fn records_are_read_with_room_between_them() {
        let section = [&[0; 5][..], &RECORD, &[0; 3], &RECORD, &[0; 9]].concat();
        let apps = records(&section).expect("whole");
        assert_eq!(apps.len(), 2);
        assert_eq!((apps[1].app.as_str(), apps[1].version.as_str()), ("an app", "1.2.3"));
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        for at in 0..RECORD.len() {
            let mut damaged = RECORD;
            damaged[at] ^= 0x55;
            assert!(records(&damaged).is_err(), "byte {at}");
            assert!(at == 0 || records(&RECORD[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(section(b"#!/bin/sh\n", SECTION).is_err());
        assert!(section(b"\x7fELF\x02\x01", SECTION).is_err());
        let own = fs::read(std::env::current_exe().expect("it has a path")).expect("readable");
        assert!(section(&own, ".text").expect("a program").is_some_and(|text| !text.is_empty()));
        assert!(section(&own, "no such section").expect("a program").is_none());
        for cut in [7, 0x40, own.len() / 2] {
            assert!(section(&own[..cut], SECTION).is_err(), "cut at {cut}");
        }
    }
}
