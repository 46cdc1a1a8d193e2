//! One core for each worker of the runtime in runs of groups, whoever is measured. Members wait for each other and for disks, so
//! their threads often sleep, and some kernels of virtual machines then put all workers on one core while another one idles;
//! such a figure says more about the machine than about what runs on it. Streams keep all cores busy and need no help.

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may use, or nothing if its workers are not pinned.
static ALLOWED: OnceLock<CpuSet> = OnceLock::new();
static STARTED: AtomicUsize = AtomicUsize::new(0);

/// The runtime of this program.
pub fn runtime(pinned: bool) -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if pinned {
        let allowed = sched_getaffinity(None).context("cannot ask which cores there are")?;
        ALLOWED.get_or_init(|| allowed);
        builder.on_thread_start(pin);
    }
    Ok(builder.enable_all().build()?)
}

/// The first threads of a runtime are its workers, a core for each; later ones are for blocking calls and may run anywhere,
/// although a thread begins where the one that started it is pinned.
fn pin() {
    let Some(allowed) = ALLOWED.get() else { return };
    let nth = STARTED.fetch_add(1, Ordering::Relaxed);
    let core = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).nth(nth);
    let cores = core.map_or(*allowed, |core| {
        let mut one = CpuSet::new();
        one.set(core);
        one
    });
    if let Err(error) = sched_setaffinity(None, &cores) {
        eprintln!("a thread cannot be pinned: {error}");
    }
}
