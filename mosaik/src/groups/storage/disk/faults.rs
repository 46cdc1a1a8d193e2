//! A seam at which tests let the operating system fail. Without the feature `testing` it is nothing.

use std::io;

#[cfg(feature = "testing")]
use std::sync::{Arc, Mutex, PoisonError};

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

    pub(super) fn write(&self, bytes: u64) -> io::Result<()> {
        self.change(|plan| {
            count_down(&mut plan.write)?;
            match &mut plan.room {
                Some(room) if *room < bytes => Err(io::ErrorKind::StorageFull.into()),
                Some(room) => {
                    *room -= bytes;
                    Ok(())
                }
                None => Ok(()),
            }
        })
    }

    #[expect(clippy::disallowed_methods, reason = "it is the writer's own thread that a slow disk holds up")]
    pub(super) fn sync(&self) -> io::Result<()> {
        let (done, delay) = self.change(|plan| {
            plan.syncs += 1;
            (count_down(&mut plan.sync), plan.delay)
        });
        std::thread::sleep(delay);
        while self.change(|plan| plan.hung) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        done
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
impl Faults {
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the counterpart for tests uses both")]
    pub(super) const fn write(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the counterpart for tests uses both")]
    pub(super) const fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
