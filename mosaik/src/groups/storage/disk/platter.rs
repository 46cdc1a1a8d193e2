//! A model of what is on the platter, beside the file system that always shows the cache: what a power loss may leave.
//!
//! A file's data and length are safe after its `fdatasync`, a name after the `fsync` of its directory. Until then any sector
//! of a file may have reached the platter or not, each with any of its contents since the last sync, and names change in
//! order (a journal), up to any point. A sync that fails forgets: the cache shows what was written, takes it for clean, and no
//! later sync brings it to the platter. For tests.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::format::SECTOR;

#[derive(Clone, Debug, Default)]
pub(super) struct Platter {
    files: Vec<Content>,
    /// By name: what is safe, and what the cache shows.
    safe: BTreeMap<PathBuf, usize>,
    shown: BTreeMap<PathBuf, usize>,
    /// Changes of names since the last sync of the directory.
    names: Vec<Naming>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    safe: Vec<u8>,
    /// Since the last sync: each sector's contents in their order, and the lengths.
    sectors: BTreeMap<usize, Vec<[u8; SECTOR]>>,
    lengths: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Naming {
    Add(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Add(path, file) => _ = names.insert(path.clone(), *file),
            Self::Remove(path) => _ = names.remove(path),
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

impl Content {
    fn len(&self) -> usize {
        self.lengths.last().copied().unwrap_or(self.safe.len())
    }

    /// What the cache shows of a sector.
    fn sector(&self, number: usize) -> [u8; SECTOR] {
        if let Some(last) = self.sectors.get(&number).and_then(|contents| contents.last()) {
            return *last;
        }
        let mut sector = [0; SECTOR];
        let from = (number * SECTOR).min(self.safe.len());
        let to = (from + SECTOR).min(self.safe.len());
        sector[..to - from].copy_from_slice(&self.safe[from..to]);
        sector
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let (number, offset) = ((at + done) / SECTOR, (at + done) % SECTOR);
            let len = (SECTOR - offset).min(bytes.len() - done);
            let mut sector = self.sector(number);
            sector[offset..offset + len].copy_from_slice(&bytes[done..done + len]);
            self.sectors.entry(number).or_default().push(sector);
            done += len;
        }
        if at + bytes.len() > self.len() {
            self.lengths.push(at + bytes.len());
        }
    }

    fn sync(&mut self) {
        *self = Self { safe: self.after(|count| count), ..Self::default() };
    }

    /// The file as it is when `pick` says how many of so many changes have happened.
    fn after(&self, mut pick: impl FnMut(usize) -> usize) -> Vec<u8> {
        let len = pick(self.lengths.len()).checked_sub(1).map_or(self.safe.len(), |at| self.lengths[at]);
        let mut bytes = self.safe.clone();
        bytes.resize(len, 0);
        for (number, contents) in &self.sectors {
            let Some(at) = pick(contents.len()).checked_sub(1) else { continue };
            let from = (number * SECTOR).min(len);
            let to = (from + SECTOR).min(len);
            bytes[from..to].copy_from_slice(&contents[at][..to - from]);
        }
        bytes
    }
}

impl Platter {
    /// All files of a directory are safe.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let mut platter = Self::default();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let safe = fs::read(&path)?;
            platter.files.push(Content { safe, ..Content::default() });
            platter.safe.insert(path, platter.files.len() - 1);
        }
        platter.shown = platter.safe.clone();
        Ok(platter)
    }

    fn file(&mut self, path: &Path) -> Option<&mut Content> {
        let file = *self.shown.get(path)?;
        self.files.get_mut(file)
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.shown);
        self.names.push(naming);
    }

    pub fn create(&mut self, path: &Path) {
        self.files.push(Content::default());
        self.name(Naming::Add(path.to_owned(), self.files.len() - 1));
    }

    pub fn rename(&mut self, from: &Path, to: &Path) {
        self.name(Naming::Rename(from.to_owned(), to.to_owned()));
    }

    pub fn remove(&mut self, path: &Path) {
        self.name(Naming::Remove(path.to_owned()));
    }

    pub fn write(&mut self, path: &Path, at: u64, bytes: &[u8]) {
        if let Some(file) = self.file(path) {
            file.write(usize::try_from(at).unwrap_or(usize::MAX), bytes);
        }
    }

    pub fn grow(&mut self, path: &Path, to: u64) {
        if let Some(file) = self.file(path) {
            file.lengths.push(usize::try_from(to).unwrap_or(usize::MAX));
        }
    }

    pub fn sync(&mut self, path: &Path, works: bool) {
        let Some(file) = self.file(path) else { return };
        if works {
            file.sync();
        } else {
            // Taken for clean from now on.
            file.sectors.clear();
        }
    }

    pub fn sync_names(&mut self) {
        self.names.clear();
        self.safe.clone_from(&self.shown);
    }

    /// Writes into an empty directory what the lights going out now may leave; `pick` chooses one of so many.
    pub fn power_loss(&self, into: &Path, mut pick: impl FnMut(usize) -> usize) -> io::Result<()> {
        let mut names = self.safe.clone();
        let happened = pick(self.names.len() + 1);
        self.names.iter().take(happened).for_each(|naming| naming.apply(&mut names));
        for (path, file) in names {
            let Some(name) = path.file_name() else { continue };
            let bytes = self.files[file].after(|changes| pick(changes + 1));
            fs::write(into.join(name), bytes)?;
        }
        Ok(())
    }
}
