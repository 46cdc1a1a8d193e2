//! Peers remembered in the data directory, to be looked for at the next start.
//!
//! A small file, written whole, synced and put in place by a rename, so that it is always an old or a new one. What makes no sense is
//! put aside and reported; what cannot be read is not written over. Its size is bounded whatever peers say of themselves.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use iroh::EndpointAddr;

use crate::primitives::private;

const FILE: &str = "known-peers";
/// Format and version; the rest is a BLAKE3 of the content and the content.
pub(super) const MAGIC: &[u8] = b"mosaik known peers 2\n";
/// The version before: it did not say which peers had answered.
const MAGIC_1: &[u8] = b"mosaik known peers 1\n";
/// The largest file that is read and written, in bytes.
const MAX_BYTES: usize = 4 << 20;
/// What [`MAGIC`] and the digest take, and more.
const HEADER_BYTES: usize = 128;

/// A peer's address, and whether it ever answered.
pub(super) type Remembered = (EndpointAddr, bool);

/// The file.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    max: usize,
    /// Whether the file is there and cannot be read: then it stays as it is.
    sealed: AtomicBool,
    /// Whether the last attempt to write failed, which was told.
    failing: AtomicBool,
}

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BookError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the content is damaged")]
    Damaged,
}

impl Book {
    pub(super) fn in_dir(dir: &Path, max: usize) -> Self {
        Self { path: dir.join(FILE), max, sealed: AtomicBool::new(false), failing: AtomicBool::new(false) }
    }

    /// How many peers it holds at most.
    pub(super) const fn max(&self) -> usize {
        self.max
    }

    /// The remembered peers, the most valuable first; none when there is no file yet or it is damaged.
    pub(super) fn load(&self) -> Vec<Remembered> {
        let path = self.path.display();
        match self.read() {
            Ok(peers) => peers,
            Err(BookError::Damaged) => {
                let aside = self.path.with_extension("damaged");
                match fs::rename(&self.path, &aside) {
                    Ok(()) => tracing::warn!(
                        %path,
                        aside = %aside.display(),
                        "the remembered peers are damaged; put aside, starting without"
                    ),
                    Err(error) => {
                        self.sealed.store(true, Ordering::Relaxed);
                        tracing::warn!(%path, %error, "the remembered peers are damaged and cannot be put aside; starting \
                                       without, and none will be remembered");
                    }
                }
                Vec::new()
            }
            Err(BookError::Io(error)) => {
                self.sealed.store(true, Ordering::Relaxed);
                tracing::warn!(%path, %error, "cannot read the remembered peers; starting without, and the file stays as it is");
                Vec::new()
            }
        }
    }

    fn read(&self) -> Result<Vec<Remembered>, BookError> {
        let meta = match fs::metadata(&self.path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        if meta.len() > MAX_BYTES as u64 {
            return Err(BookError::Damaged);
        }
        let bytes = fs::read(&self.path)?;
        let (rest, old) = match bytes.strip_prefix(MAGIC) {
            Some(rest) => (rest, false),
            None => (bytes.strip_prefix(MAGIC_1).ok_or(BookError::Damaged)?, true),
        };
        let (sum, content) = rest.split_at_checked(32).ok_or(BookError::Damaged)?;
        if blake3::hash(content).as_bytes() != sum {
            return Err(BookError::Damaged);
        }
        let mut peers: Vec<Remembered> = if old {
            let peers: Vec<EndpointAddr> = postcard::from_bytes(content).map_err(|_| BookError::Damaged)?;
            peers.into_iter().map(|addr| (addr, true)).collect()
        } else {
            postcard::from_bytes(content).map_err(|_| BookError::Damaged)?
        };
        peers.truncate(self.max);
        Ok(peers)
    }

    /// Replaces the remembered peers by the first of these, as many as there is room for. A failure is told once, until it is over.
    pub(super) fn save(&self, peers: &[Remembered]) {
        if self.sealed.load(Ordering::Relaxed) {
            return;
        }
        match self.write(peers) {
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(path = %self.path.display(), "the remembered peers are written down again");
                }
            }
            Err(error) if self.failing.swap(true, Ordering::Relaxed) => {
                tracing::debug!(%error, "cannot write the remembered peers down");
            }
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "cannot write the remembered peers down; it is tried again");
            }
        }
    }

    fn write(&self, peers: &[Remembered]) -> Result<(), BookError> {
        let size = |peer: &Remembered| postcard::experimental::serialized_size(peer).unwrap_or(MAX_BYTES);
        let mut room = MAX_BYTES - HEADER_BYTES;
        let fits = |peer: &&Remembered| {
            let left = room.checked_sub(size(peer));
            room = left.unwrap_or(room);
            left.is_some()
        };
        let peers: Vec<&Remembered> = peers.iter().take(self.max).filter(fits).collect();
        let content = postcard::to_allocvec(&peers).map_err(|_| BookError::Damaged)?;
        let temporary = self.path.with_extension("new");
        let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
        private::create_dir(dir)?;
        let mut file = private::file().write(true).create(true).truncate(true).open(&temporary)?;
        file.write_all(MAGIC)?;
        file.write_all(blake3::hash(&content).as_bytes())?;
        file.write_all(&content)?;
        // Without this a crash of the machine may leave the new name with nothing behind it.
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, &self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::*;

    fn addr(n: u8) -> EndpointAddr {
        EndpointAddr::new(SecretKey::from_bytes(&[n; 32]).public())
    }

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("mosaik-book-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn peers_are_kept_within_the_limit_and_damage_is_put_aside() {
        let dir = dir("damage");
        let book = Book::in_dir(&dir, 2);
        assert_eq!(book.load(), []);
        book.save(&[(addr(1), true), (addr(2), false), (addr(3), true)]);
        assert_eq!(book.load(), [(addr(1), true), (addr(2), false)]);
        let mut bytes = fs::read(&book.path).expect("reads");
        bytes[60] ^= 1;
        fs::write(&book.path, &bytes).expect("writes");
        assert!(matches!(book.read(), Err(BookError::Damaged)));
        assert_eq!(book.load(), []);
        assert_eq!(fs::read(dir.join("known-peers.damaged")).expect("is there"), bytes);
        book.save(&[(addr(4), true)]);
        assert_eq!(book.load(), [(addr(4), true)]);
        fs::remove_dir_all(dir).expect("removes");
    }

    #[test]
    fn the_format_before_is_read() {
        let dir = dir("format");
        fs::create_dir_all(&dir).expect("creates");
        let book = Book::in_dir(&dir, 9);
        let content = postcard::to_allocvec(&[addr(1), addr(2)].to_vec()).expect("encodes");
        let bytes = [MAGIC_1, blake3::hash(&content).as_bytes(), &content[..]].concat();
        fs::write(&book.path, bytes).expect("writes");
        assert_eq!(book.load(), [(addr(1), true), (addr(2), true)]);
        fs::remove_dir_all(dir).expect("removes");
    }

    #[test]
    fn what_cannot_be_read_is_not_written_over() {
        let dir = dir("unreadable");
        // A directory in its place is as unreadable as a bad sector.
        fs::create_dir_all(dir.join(FILE).join("x")).expect("creates");
        let book = Book::in_dir(&dir, 9);
        assert_eq!(book.load(), []);
        book.save(&[(addr(1), true)]);
        assert!(dir.join(FILE).join("x").exists() && !dir.join("known-peers.new").exists());
        fs::remove_dir_all(dir).expect("removes");
    }

    #[test]
    fn long_addresses_do_not_make_a_file_that_is_not_read_again() {
        let dir = dir("long");
        let book = Book::in_dir(&dir, 2000);
        let long = |n: u8| {
            let url = format!("https://{}.example", "x".repeat(60_000));
            (addr(n).with_relay_url(url.parse().expect("a URL")), true)
        };
        let mut peers: Vec<Remembered> = (0..200).map(long).collect();
        peers.push((addr(201), false));
        book.save(&peers);
        let kept = book.load();
        assert!(kept.len() > 50 && kept.contains(&(addr(201), false)), "{} are kept", kept.len());
        fs::remove_dir_all(dir).expect("removes");
    }
}
