//! Evidence of Intel TDX: what a quote proves, and each thing that may be wrong with one; on quotes of a vendor made for tests, and on those
//! that `dcap-qvl` ships, which Intel's machines have made.

mod pki;

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use mosaik::{
    NetworkId, PeerId,
    testing::{Sim, eventually},
    trust::attest::{AttestError, Challenge, Evidence, Measurements, Policy, Tdx},
};
use serde_json::Value;

use self::pki::{Domain, Machine, Vendor, Word};

const NET: NetworkId = NetworkId::from_name("tdx tests");
/// The second of January 2026, seconds since the Unix epoch.
const NOW: u64 = 1_767_225_600 + DAY;
const DAY: u64 = 86_400;

fn policy() -> Policy {
    Policy::default().with_measurements(Measurements::default().with("image", [("mrtd", vec![7; 48])]).unwrap())
}

fn domain() -> Domain {
    Domain { debug: false, mrtd: [7; 48] }
}

fn peer(n: u8) -> PeerId {
    mosaik::SecretKey::from_bytes(&[n; 32]).public().into()
}

fn challenge() -> Challenge {
    Challenge::new(NET, peer(1), NOW)
}

fn tdx(vendor: &Vendor, word: Word) -> Tdx {
    let tdx = Tdx::new(policy()).with_root(vendor.root());
    tdx.set_collateral(vendor.word(word).to_string().as_bytes()).unwrap();
    tdx
}

fn grants(tdx: &Tdx, quote: &[u8], now: u64) -> Result<Vec<String>, AttestError> {
    tdx.verify(quote, &challenge(), now).map(|claims| claims.grants().map(str::to_owned).collect())
}

/// A quote of what should run, about this peer.
fn quote(machine: &Machine) -> Vec<u8> {
    machine.quote(domain(), challenge().as_bytes())
}

#[test]
fn what_runs_is_proved_up_to_the_root() {
    let vendor = Vendor::new();
    let tdx = tdx(&vendor, Word::default());
    let quote = quote(&vendor.machine());
    assert_eq!(grants(&tdx, &quote, NOW), Ok(vec!["attested:tdx".to_owned(), "measured:image".to_owned()]));
    let report = tdx.report(&quote, NOW).unwrap();
    assert_eq!((report.status.as_str(), report.debug), ("UpToDate", false));
    assert_eq!(report.collateral_until, NOW + 29 * DAY);
    assert_eq!(report.registers.len(), 10);
    // Beyond its end what the vendor says counts for the grace, and not for longer.
    let (end, grace) = (NOW + 29 * DAY, Policy::default().grace().as_secs());
    assert!(grants(&tdx, &quote, end + grace).is_ok());
    let late = grace + 5 * DAY;
    assert_eq!(grants(&tdx, &quote, end + late), Err(AttestError::StaleCollateral { late, grace }));
}

#[test]
fn each_thing_that_is_wrong_has_its_own_reason() {
    let vendor = Vendor::new();
    let (good, machine) = (tdx(&vendor, Word::default()), vendor.machine());
    let own = quote(&machine);
    assert!(grants(&good, &own, NOW).is_ok());

    let debug = machine.quote(Domain { debug: true, ..domain() }, challenge().as_bytes());
    assert_eq!(grants(&good, &debug, NOW), Err(AttestError::Debug));
    let mut off = domain();
    off.mrtd[47] ^= 1;
    let off = grants(&good, &machine.quote(off, challenge().as_bytes()), NOW);
    assert_eq!(off, Err(AttestError::Measurement { register: "mrtd".into(), theirs: "07".repeat(16) + ".." }));
    let others = machine.quote(domain(), Challenge::new(NET, peer(2), NOW).as_bytes());
    assert_eq!(grants(&good, &others, NOW), Err(AttestError::AnotherPeer));

    let foreign = quote(&Vendor::named("another").machine());
    assert_eq!(grants(&good, &foreign, NOW), Err(AttestError::ForeignChain));
    // One that calls itself as the root is called.
    let alike = quote(&Vendor::new().machine());
    assert_eq!(grants(&good, &alike, NOW), Err(AttestError::Forged { what: "a certificate".into() }));
    let revoking = tdx(&vendor, Word { revokes: true, ..Word::default() });
    assert!(
        matches!(grants(&revoking, &own, NOW), Err(AttestError::Revoked { .. })),
        "{:?}",
        grants(&revoking, &own, NOW)
    );
    let revoked = grants(&tdx(&vendor, Word { status: "Revoked", ..Word::default() }), &own, NOW);
    assert_eq!(revoked, Err(AttestError::Revoked { what: "the level of the platform's TCB".into() }));
    // The library says "ok" to this one.
    let old = grants(&tdx(&vendor, Word { status: "OutOfDate", ..Word::default() }), &own, NOW);
    assert_eq!(old, Err(AttestError::Status { status: "OutOfDate".into(), accepted: "UpToDate".into() }));

    let mut word = vendor.word(Word::default());
    for (part, what) in [("tcb_info", "tcb_info"), ("qe_identity", "qe_identity")] {
        let changed = word[part].as_str().unwrap().replace("2025-01-01", "2025-01-02");
        let before = std::mem::replace(&mut word[part], Value::from(changed));
        let forged = Tdx::new(policy()).with_root(vendor.root());
        forged.set_collateral(word.to_string().as_bytes()).unwrap();
        let refused = grants(&forged, &own, NOW);
        assert!(matches!(&refused, Err(AttestError::Forged { what: said }) if said.contains(what)), "{refused:?}");
        word[part] = before;
    }
    let nothing = grants(&Tdx::new(policy()).with_root(vendor.root()), &own, NOW);
    assert_eq!(nothing, Err(AttestError::NoCollateral { platform: "10c06f000000".into() }));
    assert!(matches!(grants(&good, &own[..100], NOW), Err(AttestError::Undecodable { .. })));
    // Its own root is not Intel's.
    let intels = Tdx::new(policy());
    intels.set_collateral(vendor.word(Word::default()).to_string().as_bytes()).unwrap();
    assert_eq!(grants(&intels, &own, NOW), Err(AttestError::ForeignChain));
}

#[test]
fn a_changed_bit_is_noticed_wherever_it_is() {
    let vendor = Vendor::new();
    let (tdx, own) = (tdx(&vendor, Word::default()), quote(&vendor.machine()));
    let mut forged = 0;
    // What is signed and the signatures: all but lengths, and the certificates behind it.
    for at in (0..632).chain(636..764).chain(770..1_218).step_by(3) {
        let mut changed = own.clone();
        changed[at] ^= 1;
        let refused = grants(&tdx, &changed, NOW).expect_err("is noticed");
        forged += usize::from(matches!(refused, AttestError::Forged { .. }));
    }
    assert!(forged > 200, "{forged}");
    assert!(grants(&tdx, &own, NOW).is_ok());
}

#[test]
fn what_is_newer_counts_and_nobody_can_take_it_back() {
    let vendor = Vendor::new();
    let (tdx, own) = (tdx(&vendor, Word::default()), quote(&vendor.machine()));
    let take = |word: &Value| tdx.set_collateral(word.to_string().as_bytes()).unwrap();
    assert!(grants(&tdx, &own, NOW).is_ok());
    let given = tdx.collateral();
    assert_eq!(given.len(), 1);

    // What says to be newer and is nothing changes nothing, however much there is of it.
    for n in 0..9 {
        let mut made_up = vendor.word(Word { day: 2, ..Word::default() });
        made_up["tcb_info"] =
            made_up["tcb_info"].as_str().unwrap().replace("2026-01-02", &format!("2099-01-0{n}")).into();
        take(&made_up);
    }
    assert!(grants(&tdx, &own, NOW + DAY).is_ok());
    assert_eq!(tdx.collateral(), given);

    let revoking = Word { day: 2, revokes: true, number: 2, ..Word::default() };
    let refused = |tdx: &Tdx| matches!(grants(tdx, &own, NOW + DAY), Err(AttestError::Revoked { .. }));
    take(&vendor.word(revoking));
    assert!(refused(&tdx));
    // Neither an older word nor one that is new in one part alone.
    take(&vendor.word(Word::default()));
    assert!(refused(&tdx));
    let fresh = Tdx::new(policy()).with_root(vendor.root());
    let other = vendor.word(Word { day: 2, number: 2, ..Word::default() });
    fresh.set_collateral(other.to_string().as_bytes()).unwrap();
    assert!(grants(&fresh, &own, NOW + DAY).is_ok());
    let mut mixed = vendor.word(Word { day: 3, number: 3, ..Word::default() });
    mixed["pck_crl"] = vendor.word(Word::default())["pck_crl"].clone();
    fresh.set_collateral(mixed.to_string().as_bytes()).unwrap();
    assert!(grants(&fresh, &own, NOW + 2 * DAY).is_ok());
    let second: Value = serde_json::from_slice(&fresh.collateral()[0]).unwrap();
    assert_eq!(second["tcb_info"], other["tcb_info"], "and not the mixed one");
}

#[test]
fn a_source_is_asked_when_nothing_is_known_and_no_more_than_once_an_hour() {
    let vendor = Vendor::new();
    let (own, asked) = (quote(&vendor.machine()), Arc::new(AtomicU64::new(0)));
    let (counts, word) = (asked.clone(), vendor.word(Word::default()).to_string());
    let fails = Tdx::new(policy()).with_root(vendor.root()).with_source(move |_| {
        counts.fetch_add(1, Relaxed);
        Err(AttestError::Unavailable { why: "no network".into() })
    });
    for minute in 0..90 {
        let refused = grants(&fails, &own, NOW + minute * 60);
        assert!(matches!(refused, Err(AttestError::NoCollateral { .. })), "{refused:?}");
    }
    assert_eq!(asked.load(Relaxed), 2);
    fails.set_collateral(word.as_bytes()).unwrap();
    assert!(grants(&fails, &own, NOW).is_ok());

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("collateral.json");
    let from_file = Tdx::new(policy()).with_root(vendor.root()).with_collateral_file(&file);
    assert!(matches!(grants(&from_file, &own, NOW), Err(AttestError::NoCollateral { .. })));
    fs::write(&file, word).unwrap();
    assert!(grants(&from_file, &own, NOW + 3_600).is_ok());
    let no_kernel = Tdx::new(policy()).make(&challenge());
    assert!(matches!(no_kernel, Err(AttestError::Unavailable { .. })) || Tdx::new(policy()).available().is_ok());
}

/// One node can ask the vendor, and the others are given what it says.
#[test]
fn the_word_of_the_vendor_spreads_to_who_cannot_fetch_it() {
    Sim::run(1, |sim| async move {
        let vendor = Arc::new(Vendor::new());
        let word = vendor.word(Word::default()).to_string();
        let machine = |fetches: bool| {
            let (machine, word) = (vendor.machine(), word.clone());
            let tdx = Tdx::new(policy()).with_root(vendor.root());
            let tdx = tdx.with_quotes(move |data| Ok(machine.quote(domain(), data)));
            if fetches { tdx.with_source(move |_| Ok(word.clone().into_bytes())) } else { tdx }
        };
        let [source, other, third] = [("source", true), ("other", false), ("third", false)];
        let start = async |(name, fetches): (&str, bool)| {
            let builder = sim.node(name).builder(NET).with_evidence(machine(fetches)).with_attested_peers();
            builder.build().await.unwrap()
        };
        // Who comes first knows nothing of its own platform until the source is there.
        let (other, third) = (start(other).await, start(third).await);
        let source = start(source).await;
        let nodes = [&source, &other, &third];
        let proved = || {
            nodes.iter().all(|node| {
                let catalog = node.discovery().catalog();
                let others = nodes.iter().filter(|other| other.local().id() != node.local().id());
                others.clone().all(|other| {
                    let entry = catalog.get(other.local().id());
                    entry.is_some_and(|entry| entry.grants().contains("measured:image"))
                })
            })
        };
        assert!(
            eventually(std::time::Duration::from_mins(20), proved).await,
            "{:?}",
            nodes.map(|node| node.trust().refusals())
        );
    });
}

/// The samples of the package that verifies, of Intel's machines.
fn samples() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let metadata = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--manifest-path", manifest])
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let mut packages = metadata["packages"].as_array().unwrap().iter();
    let package = packages.find(|package| package["name"] == "dcap-qvl").expect("is used");
    let dir = PathBuf::from(package["manifest_path"].as_str().unwrap()).with_file_name("sample");
    let read = |name: String| fs::read(dir.join(name)).unwrap();
    let names = ["tdx_quote", "tdx_quote_outdated", "tdx_quote_td15ex"];
    names.map(|name| (name, read(name.to_owned()), read(format!("{name}_collateral.json")))).into()
}

/// A time at which the collateral holds.
fn time_of(collateral: &[u8]) -> u64 {
    let collateral: Value = serde_json::from_slice(collateral).unwrap();
    let tcb: Value = serde_json::from_str(collateral["tcb_info"].as_str().unwrap()).unwrap();
    let issued = tcb["issueDate"].as_str().unwrap();
    let numbers: Vec<i64> =
        issued.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    // Days since the epoch of a date of the civil calendar.
    let (year, month) = if numbers[1] > 2 { (numbers[0], numbers[1]) } else { (numbers[0] - 1, numbers[1] + 12) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * (month - 3) + 2) / 5 + numbers[2] - 719_469;
    // An hour later: its parts are issued one after the other.
    u64::try_from(days).unwrap() * DAY + u64::try_from(numbers[3] + 2).unwrap() * 3_600
}

#[test]
fn quotes_of_intels_machines_are_verified_up_to_intels_root() {
    for (name, quote, collateral) in samples() {
        let now = time_of(&collateral);
        let tdx = Tdx::new(Policy::default());
        tdx.set_collateral(&collateral).unwrap();
        if name == "tdx_quote_outdated" {
            // Older than all that Intel has a level for.
            let refused = AttestError::Other { why: "No matching TCB level found".into() };
            assert_eq!(grants(&tdx, &quote, now), Err(refused));
            continue;
        }
        let report = tdx.report(&quote, now).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!report.debug && report.registers["mrtd"] != [0; 48], "{name}");
        assert_eq!(report.status, "UpToDate", "{name}");
        // It was made for somebody else.
        assert_eq!(grants(&tdx, &quote, now), Err(AttestError::AnotherPeer), "{name}");

        let mut forged = quote.clone();
        // In the measurement of the domain, which is signed.
        forged[48 + 140] ^= 1;
        assert!(matches!(tdx.report(&forged, now), Err(AttestError::Forged { .. })), "{name}");
        let grace = Policy::default().grace().as_secs();
        let stale = tdx.report(&quote, now + 60 * DAY);
        assert!(matches!(stale, Err(AttestError::StaleCollateral { late, .. }) if late > grace), "{name}: {stale:?}");
        assert!(tdx.report(&quote, now).is_ok());

        let foreign = Tdx::new(Policy::default()).with_root(Vendor::new().root());
        foreign.set_collateral(&collateral).unwrap();
        assert_eq!(foreign.report(&quote, now).unwrap_err(), AttestError::ForeignChain, "{name}");
    }
}
