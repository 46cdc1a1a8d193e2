//! Files and directories for their owner alone: secret keys, logs of groups, states of stores. The permissions are those of
//! Unix, of what is made here; what exists already keeps the ones that an operator has given it.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    path::Path,
};

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
