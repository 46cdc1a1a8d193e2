//! Where the processes of one user on one host find each other: a Unix socket with a name that nobody can guess, in a directory
//! that is for this user alone. Its name is told over QUIC.
//!
//! Who connects has to say at once for which stream of which connection; the silent are kept to a bound, the oldest goes first.
//! A socket file outlives a process that is killed: whoever starts next in the same directory removes those at which nobody
//! listens, under the lock of the directory.

use std::{
    collections::VecDeque,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use data_encoding::HEXLOWER;
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Lanes,
    hello::{HELLO, Hello},
    is_exhausted, session,
};
use crate::primitives::{fresh_bytes, private};

/// Connections that have not said yet what they are for.
const MAX_SILENT: usize = 64;
/// How long they may take.
const SILENCE: Duration = Duration::from_secs(2);
/// After an error of the socket, such as too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Bytes of a socket's name, which are written in hexadecimal digits.
const NAME: usize = 16;
/// The end of a socket's name.
const SUFFIX: &str = "lane";
/// The file whose lock keeps who cleans up from who begins to listen.
const LOCK: &str = "lock";
/// How often the lock is tried.
const LOCK_TRIES: u32 = 50;
/// Between the tries.
const LOCK_AGAIN: Duration = Duration::from_millis(10);

/// A socket that listens; its file goes with it.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    file: SocketFile,
}

/// A socket's file.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the socket of the lane is not there any more");
        }
    }
}

impl Listener {
    /// Listens in the first directory that can be used; `None` without one.
    pub(super) async fn bind(dirs: &[PathBuf]) -> Option<Self> {
        for dir in dirs {
            match Self::bind_in(dir).await {
                Ok(listener) => return Some(listener),
                Err(error) => {
                    tracing::debug!(dir = %dir.display(), %error, "no lane for other processes of this host in this directory");
                }
            }
        }
        None
    }

    async fn bind_in(dir: &Path) -> io::Result<Self> {
        private::create_dir(dir)?;
        if !is_private(dir) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not for this user alone (0700)"));
        }
        let lock = lock(dir).await?;
        if lock.is_some() {
            clean(dir).await?;
        }
        let name = HEXLOWER.encode(&fresh_bytes()[..NAME]);
        // As it is to be told to others, whose working directory is another one.
        let path = fs::canonicalize(dir)?.join(name).with_extension(SUFFIX);
        let socket = UnixListener::bind(&path)?;
        Ok(Self { socket, file: SocketFile(path) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.0
    }

    /// Takes connections until the node ends.
    pub(super) async fn accept_loop(self, lanes: Arc<Lanes>) {
        let mut silent: VecDeque<CancellationToken> = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = lanes.closing.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    silent.retain(|greeted| !greeted.is_cancelled());
                    if silent.len() == MAX_SILENT
                        && let Some(oldest) = silent.pop_front()
                    {
                        oldest.cancel();
                    }
                    let greeted = CancellationToken::new();
                    silent.push_back(greeted.clone());
                    lanes.tasks.spawn("lane-greet", greet(socket, greeted));
                }
                Err(error) => {
                    if is_exhausted(&error) {
                        lanes.warn_exhausted(&error);
                    }
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

/// Hears for which stream a connection is, and hands it on. Cancelled through the token while it is silent.
async fn greet(socket: UnixStream, greeted: CancellationToken) {
    let hello = async {
        let mut bytes = [0; HELLO];
        read_exact(&socket, &mut bytes).await.ok()?;
        Hello::decode(&bytes)
    };
    let hello = tokio::select! {
        biased;
        () = greeted.cancelled() => return,
        hello = timeout(SILENCE, hello) => hello.ok().flatten(),
    };
    greeted.cancel();
    let Some(hello) = hello.filter(|_| is_own(&socket)) else { return };
    // An end that is gone has nothing to say.
    let Some(session) = session::find(hello.name, hello.opener.other()) else { return };
    session.greet(hello, socket).await;
}

/// The lock of a directory, for as long as the file is open; `None` when somebody keeps it for long.
async fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = private::file().write(true).create(true).truncate(false).open(dir.join(LOCK))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => sleep(LOCK_AGAIN).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// Removes the sockets at which nobody listens.
async fn clean(dir: &Path) -> io::Result<()> {
    for file in fs::read_dir(dir)? {
        let file = file?;
        let path = file.path();
        let is_ours = path.extension().is_some_and(|suffix| suffix == SUFFIX);
        if is_ours && file.file_type()?.is_socket() && is_abandoned(&path).await {
            tracing::debug!(path = %path.display(), "removing the socket of a process that is gone");
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

async fn is_abandoned(path: &Path) -> bool {
    matches!(UnixStream::connect(path).await, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether a directory is of this user and closed to others.
fn is_private(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|meta| {
        meta.is_dir() && Some(meta.uid()) == own_uid() && meta.permissions().mode().trailing_zeros() >= 6
    })
}

/// Whether this may be the socket of a lane, of this user, here. A peer has told where it is: it must not send this process to
/// the sockets of other programs.
pub(super) fn is_one(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let named = HEXLOWER.decode(stem.as_bytes()).is_ok_and(|name| name.len() == NAME);
    let suffixed = path.extension().is_some_and(|suffix| suffix == SUFFIX);
    let is_own = || {
        let meta = fs::symlink_metadata(path);
        meta.is_ok_and(|meta| meta.file_type().is_socket() && Some(meta.uid()) == own_uid())
    };
    named && suffixed && path.is_absolute() && path.parent().is_some_and(is_private) && is_own()
}

/// The user of this process, as the kernel tells it to the other end of a socket.
fn own_uid() -> Option<u32> {
    static UID: OnceLock<Option<u32>> = OnceLock::new();
    *UID.get_or_init(|| UnixStream::pair().ok()?.0.peer_cred().ok().map(|own| own.uid()))
}

/// Whether the other end of a socket is a process of this user.
pub(super) fn is_own(socket: &UnixStream) -> bool {
    socket.peer_cred().is_ok_and(|peer| Some(peer.uid()) == own_uid())
}

/// Everything was read that has come, so that the socket is readable only with the next byte.
pub(super) fn has_no_more(socket: &UnixStream) {
    let nothing = || Err::<(), io::Error>(io::ErrorKind::WouldBlock.into());
    // That it would block is what it is told.
    let _ = socket.try_io(Interest::READABLE, nothing);
}

pub(super) async fn write_all(socket: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) async fn read_exact(socket: &UnixStream, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.readable().await?;
        match socket.try_read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => bytes = &mut bytes[read..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
