//! What a supervisor is told: that the node is ready, that it is alive, and that it is about to end. By a file (`--ready-file`), and by
//! systemd's protocol where the environment asks for it.
//!
//! Source: sd_notify(3), <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use super::process::{Failure, say};
use crate::{primitives::private, transport::Tasks};

/// The supervisor of this process, if it has one. The file is gone when this is dropped.
pub(super) struct Supervisor {
    file: Option<PathBuf>,
    socket: Option<Socket>,
    /// Where the node is reached, for those who read the file.
    pub(super) address: String,
}

impl Supervisor {
    /// Before the node is there: removes the file that an earlier run may have left.
    pub(super) fn new(file: Option<PathBuf>) -> Result<Self, Failure> {
        if let Some(file) = &file {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(of_file(file, &error)),
                _ => {}
            }
        }
        Ok(Self { file, socket: Socket::from_environment()?, address: String::new() })
    }

    /// The node does what it is for.
    pub(super) fn ready(&self) -> Result<(), Failure> {
        if let Some(file) = &self.file {
            private::replace(file, format!("{}\n", self.address).as_bytes()).map_err(|error| of_file(file, &error))?;
        }
        self.tell("READY=1");
        Ok(())
    }

    /// The node is about to end.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            socket.tell(state);
        }
    }

    /// Gives a sign of life as often as it is asked for, for as long as the node's own tasks run.
    pub(super) fn watch(&self, tasks: &Tasks) {
        let (Some(socket), Some(period)) = (self.socket.clone(), watchdog()) else { return };
        tasks.spawn("watchdog", async move {
            let mut turns = interval(period / 2);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                turns.tick().await;
                socket.tell("WATCHDOG=1");
            }
        });
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // One that never became ready has none.
            let _ = fs::remove_file(file);
        }
    }
}

fn of_file(file: &Path, error: &io::Error) -> Failure {
    format!("--ready-file {}: {error}", file.display()).into()
}

/// After how long without a sign of life this process is ended, if it is.
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0).map(Duration::from_micros)
}

/// Where states are sent to.
#[cfg(unix)]
#[derive(Clone, Debug)]
struct Socket(std::sync::Arc<std::os::unix::net::UnixDatagram>);

#[cfg(unix)]
impl Socket {
    fn from_environment() -> Result<Option<Self>, Failure> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
        let connect = || {
            let socket = std::os::unix::net::UnixDatagram::unbound()?;
            socket.connect_addr(&address(&name)?)?;
            // A supervisor that does not read must not hold the node.
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        match connect() {
            Ok(socket) => Ok(Some(Self(socket.into()))),
            Err(error) => {
                let error: io::Error = error;
                Err(format!("NOTIFY_SOCKET {}: {error}", name.display()).into())
            }
        }
    }

    fn tell(&self, state: &str) {
        if let Err(error) = self.0.send(state.as_bytes()) {
            say(format_args!("warning: the supervisor was not told {state}: {error}"));
        }
    }
}

/// A path, or with an `@` before it a name in Linux's abstract namespace.
#[cfg(unix)]
fn address(name: &std::ffi::OsStr) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::unix::{ffi::OsStrExt, net::SocketAddr};
    match name.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    }
}

#[cfg(not(unix))]
#[derive(Clone, Debug)]
struct Socket;

#[cfg(not(unix))]
impl Socket {
    fn from_environment() -> Result<Option<Self>, Failure> {
        Ok(None)
    }

    fn tell(&self, _: &str) {}
}
