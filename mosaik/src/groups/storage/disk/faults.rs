//! A seam at which tests let the operating system fail. Without the feature `testing` it is nothing.

use std::{io, path::Path};

#[cfg(feature = "testing")]
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "testing")]
use super::platter::Platter;

/// What is to go wrong below a [`Disk`](super::Disk); clones share it. For tests.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    #[cfg(feature = "testing")]
    plan: Arc<Mutex<Plan>>,
}

#[cfg(feature = "testing")]
#[derive(Debug, Default)]
struct Plan {
    sync: Option<(u64, io::ErrorKind)>,
    write: Option<(u64, io::ErrorKind)>,
    room: Option<u64>,
    delay: std::time::Duration,
    syncs: u64,
    hung: bool,
    /// What is on the platter, if that is watched, and whether it still has power.
    platter: Option<Platter>,
    /// Operations until the power is lost.
    power: Option<u64>,
    dark: bool,
    /// Nothing is synced: only the process fails, not the machine.
    unsynced: bool,
}

#[cfg(feature = "testing")]
impl Faults {
    fn change<T>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        change(&mut self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// After so many more, one `fdatasync` fails.
    pub fn fail_sync(&self, after: u64, kind: io::ErrorKind) {
        self.change(|plan| plan.sync = Some((after, kind)));
    }

    /// After so many more, one write fails, before anything of it is written.
    pub fn fail_write(&self, after: u64, kind: io::ErrorKind) {
        self.change(|plan| plan.write = Some((after, kind)));
    }

    /// So many more bytes can be written, then the disk is full.
    pub fn leave_room(&self, bytes: u64) {
        self.change(|plan| plan.room = Some(bytes));
    }

    /// Each `fdatasync` takes this much longer.
    pub fn slow_down(&self, by: std::time::Duration) {
        self.change(|plan| plan.delay = by);
    }

    /// While it is set no `fdatasync` returns: a device that has stopped answering.
    pub fn hang(&self, hung: bool) {
        self.change(|plan| plan.hung = hung);
    }

    /// How often `fdatasync` was called.
    pub fn syncs(&self) -> u64 {
        self.change(|plan| plan.syncs)
    }

    /// Keeps account of what is on the platter from now on; the directory must be empty yet.
    pub fn watch_platter(&self) {
        self.change(|plan| plan.platter = Some(Platter::default()));
    }

    /// As [`watch_platter`](Self::watch_platter), in a directory that has files already, all of them safe.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn watch_platter_of(&self, dir: &Path) -> io::Result<()> {
        let platter = Platter::of(dir)?;
        self.change(|plan| plan.platter = Some(platter));
        Ok(())
    }

    /// After so many more operations the power is lost: what comes later never reaches the platter, although the process
    /// does not notice.
    pub fn lose_power(&self, after: u64) {
        self.change(|plan| plan.power = Some(after));
    }

    /// Whether the power is lost.
    pub fn is_dark(&self) -> bool {
        self.change(|plan| plan.dark)
    }

    /// Writes into an empty directory what a power loss, the one that happened or one now, may leave of the watched one: of
    /// all that is possible `pick` chooses one of so many, time and again.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn remains(&self, into: &Path, pick: impl FnMut(usize) -> usize) -> io::Result<()> {
        self.change(|plan| plan.platter.as_ref().map_or(Ok(()), |platter| platter.power_loss(into, pick)))
    }

    /// An operation on the watched platter, unless it is dark.
    fn operate(&self, operation: impl FnOnce(&mut Platter)) {
        self.change(|plan| plan.operate(operation));
    }

    pub(super) fn write(&self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(|plan| plan.takes(bytes.len() as u64))?;
        self.operate(|platter| platter.write(path, at, bytes));
        Ok(())
    }

    pub(super) fn grow(&self, path: &Path, from: u64, to: u64) -> io::Result<()> {
        self.change(|plan| plan.takes(to - from))?;
        self.operate(|platter| platter.grow(path, to));
        Ok(())
    }

    pub(super) fn create(&self, path: &Path) {
        self.operate(|platter| platter.create(path));
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) {
        self.operate(|platter| platter.rename(from, to));
    }

    pub(super) fn remove(&self, path: &Path) {
        self.operate(|platter| platter.remove(path));
    }

    pub(super) fn leave_unsynced(&self) {
        self.change(|plan| plan.unsynced = true);
    }

    /// Whether the operating system is asked to sync.
    pub(super) fn is_synced(&self) -> bool {
        self.change(|plan| !plan.unsynced)
    }

    pub(super) fn sync(&self, path: &Path) -> io::Result<()> {
        self.synced(|platter, works| platter.sync(path, works))
    }

    pub(super) fn sync_dir(&self) -> io::Result<()> {
        self.synced(|platter, works| {
            if works {
                platter.sync_names();
            }
        })
    }

    #[expect(clippy::disallowed_methods, reason = "it is the writer's own thread that a slow disk holds up")]
    fn synced(&self, operation: impl FnOnce(&mut Platter, bool)) -> io::Result<()> {
        let (done, delay) = self.change(|plan| {
            plan.syncs += 1;
            let done = count_down(&mut plan.sync);
            plan.operate(|platter| operation(platter, done.is_ok()));
            (done, plan.delay)
        });
        std::thread::sleep(delay);
        while self.change(|plan| plan.hung) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        done
    }
}

#[cfg(feature = "testing")]
impl Plan {
    fn operate(&mut self, operation: impl FnOnce(&mut Platter)) {
        let Some(platter) = self.platter.as_mut().filter(|_| !self.dark) else { return };
        match &mut self.power {
            Some(0) => self.dark = true,
            Some(left) => {
                *left -= 1;
                operation(platter);
            }
            None => operation(platter),
        }
    }

    /// Whether so many bytes more can be written.
    fn takes(&mut self, bytes: u64) -> io::Result<()> {
        count_down(&mut self.write)?;
        match &mut self.room {
            Some(room) if *room < bytes => Err(io::ErrorKind::StorageFull.into()),
            Some(room) => {
                *room -= bytes;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(feature = "testing")]
fn count_down(fault: &mut Option<(u64, io::ErrorKind)>) -> io::Result<()> {
    match fault {
        Some((0, kind)) => {
            let kind = *kind;
            *fault = None;
            Err(kind.into())
        }
        Some((after, _)) => {
            *after -= 1;
            Ok(())
        }
        None => Ok(()),
    }
}

#[cfg(not(feature = "testing"))]
#[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the counterpart for tests uses both")]
impl Faults {
    pub(super) const fn write(&self, _: &Path, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    pub(super) const fn grow(&self, _: &Path, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    pub(super) const fn create(&self, _: &Path) {}

    pub(super) const fn rename(&self, _: &Path, _: &Path) {}

    pub(super) const fn remove(&self, _: &Path) {}

    pub(super) const fn is_synced(&self) -> bool {
        true
    }

    pub(super) const fn sync(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(super) const fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}
