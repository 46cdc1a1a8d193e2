//! One core for each worker of the runtime in runs of groups, whoever is measured. Members wait for each other and for disks, so
//! their threads often sleep, and some kernels of virtual machines then put all workers on one core while another one idles;
//! such a figure says more about the machine than about what runs on it. Streams keep all cores busy and need no help.

use anyhow::Result;
use tokio::runtime::{Builder, Runtime};

/// Whether threads can be pinned here.
pub const POSSIBLE: bool = cfg!(target_os = "linux");

/// The runtime of this program.
pub fn runtime(pinned: bool) -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if pinned {
        pin(&mut builder)?;
    }
    Ok(builder.enable_all().build()?)
}

/// The first threads of a runtime are its workers, a core for each; later ones are for blocking calls and may run anywhere,
/// although a thread begins where the one that started it is pinned.
#[cfg(target_os = "linux")]
fn pin(builder: &mut Builder) -> Result<()> {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let allowed = sched_getaffinity(None)?;
    let started = AtomicUsize::new(0);
    builder.on_thread_start(move || {
        let nth = started.fetch_add(1, Ordering::Relaxed);
        let core = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).nth(nth);
        let cores = core.map_or(allowed, |core| {
            let mut one = CpuSet::new();
            one.set(core);
            one
        });
        if let Err(error) = sched_setaffinity(None, &cores) {
            eprintln!("a thread cannot be pinned: {error}");
        }
    });
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn pin(_: &mut Builder) -> Result<()> {
    anyhow::bail!("threads can only be pinned on Linux")
}
