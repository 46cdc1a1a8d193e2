//! Peers remembered in the data directory, to be dialled at the next start.
//!
//! A small file, written whole and put in place by a rename, so that it is always an old or a new one. It is a cache:
//! content that makes no sense is reported and ignored. Writing is synchronous, because it is some kilobytes at most
//! every few seconds and a blocking thread would cost more.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use iroh::EndpointAddr;

use crate::primitives::private;

const FILE: &str = "known-peers";
/// Format and version; the rest is a BLAKE3 of the content and the content.
const MAGIC: &[u8] = b"mosaik known peers 1\n";
/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    max: usize,
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
        Self { path: dir.join(FILE), max }
    }

    /// The remembered peers; none when there is no file yet or it is damaged.
    pub(super) fn load(&self) -> Vec<EndpointAddr> {
        self.read().unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "cannot read the remembered peers; starting without");
            Vec::new()
        })
    }

    fn read(&self) -> Result<Vec<EndpointAddr>, BookError> {
        let meta = match fs::metadata(&self.path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        if meta.len() > MAX_BYTES {
            return Err(BookError::Damaged);
        }
        let bytes = fs::read(&self.path)?;
        let rest = bytes.strip_prefix(MAGIC).ok_or(BookError::Damaged)?;
        let (sum, content) = rest.split_at_checked(32).ok_or(BookError::Damaged)?;
        if blake3::hash(content).as_bytes() != sum {
            return Err(BookError::Damaged);
        }
        let mut peers: Vec<EndpointAddr> = postcard::from_bytes(content).map_err(|_| BookError::Damaged)?;
        peers.truncate(self.max);
        Ok(peers)
    }

    /// Replaces the remembered peers; the first `max` are kept.
    pub(super) fn save<'a>(&self, peers: impl Iterator<Item = &'a EndpointAddr>) -> Result<(), BookError> {
        let peers: Vec<&EndpointAddr> = peers.take(self.max).collect();
        let content = postcard::to_allocvec(&peers).map_err(|_| BookError::Damaged)?;
        let temporary = self.path.with_extension("new");
        if let Some(dir) = self.path.parent() {
            private::create_dir(dir)?;
        }
        let mut file = private::file().write(true).create(true).truncate(true).open(&temporary)?;
        file.write_all(MAGIC)?;
        file.write_all(blake3::hash(&content).as_bytes())?;
        file.write_all(&content)?;
        drop(file);
        fs::rename(&temporary, &self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::*;

    #[test]
    fn peers_are_kept_within_the_limit_and_damage_starts_empty() {
        let dir = std::env::temp_dir().join(format!("mosaik-book-{}", std::process::id()));
        let book = Book::in_dir(&dir, 2);
        let addr = |n: u8| EndpointAddr::new(SecretKey::from_bytes(&[n; 32]).public());
        assert_eq!(book.load(), []);
        book.save([addr(1), addr(2), addr(3)].iter()).expect("writes");
        assert_eq!(book.load(), [addr(1), addr(2)]);
        let mut bytes = fs::read(&book.path).expect("reads");
        bytes[60] ^= 1;
        fs::write(&book.path, bytes).expect("writes");
        assert!(matches!(book.read(), Err(BookError::Damaged)));
        assert_eq!(book.load(), []);
        fs::remove_dir_all(dir).expect("removes");
    }
}
