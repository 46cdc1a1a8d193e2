//! Files and directories for their owner alone: secret keys, logs of groups, states of stores. The permissions are those of
//! Unix, of what is made here; what exists already keeps the ones that an operator has given it.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use super::fresh_bytes;

/// Makes a directory, and those above it that are missing, for the owner only (0700).
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Options to open a file, which if it is created can be read and written by its owner only (0600).
pub(crate) fn file() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "the mode is one of Unix"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes what was created, renamed or removed in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    // Only Unix lets a directory be opened and synced; elsewhere the file system sees to it.
    if cfg!(unix) { File::open(path).and_then(|dir| dir.sync_all()) } else { Ok(()) }
}

/// Writes a file that does not exist yet, for its owner only and durably; what exists is never replaced.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = file().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_dir(parent(path))
}

/// Writes a file for its owner only, whole or not at all, in place of the one that may be there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let [a, b, c, d, ..] = fresh_bytes();
    name.push(format!(".{a:02x}{b:02x}{c:02x}{d:02x}.new"));
    let temporary = path.with_file_name(name);
    let written = write_new(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell; a copy that cannot be removed either is in the same trouble.
        let _ = std::fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_dir(parent(path)))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether others than the owner can read or write the file.
#[cfg(unix)]
pub(crate) fn is_shared(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

/// Whether others than the owner can read or write the file; only Unix says so.
#[cfg(not(unix))]
pub(crate) fn is_shared(_: &Path) -> bool {
    false
}
