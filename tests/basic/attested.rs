//! Roles with `attest`: they serve each other when each runs what the file names, and refuse who runs something else or shows nothing;
//! `explain` says so from both ends.

use std::{path::Path, process::Command, time::Duration};

use futures::FutureExt;
use mosaik::{
    Network,
    diagnostics::{Fault, Survey},
    discovery::Bootstrap,
    network::BuildError,
    node::{App, ArgValues, Role, RoleError, Setup, Warning},
    prelude::*,
    testing::{Cluster, Sim, eventually},
    trust::{
        Reason,
        attest::{AttestError, Measurements, Policy, SimEvidence, SimPlatform},
    },
};
use tokio::time::sleep;

/// When a simulation begins, seconds since the Unix epoch.
const BEGIN: u64 = 1_767_225_600;
const SOON: Duration = Duration::from_mins(1);

#[mosaik::stream(name = "attested.bids")]
struct Bid(u64);

/// Takes bids of who runs what it should.
#[mosaik::node(attest = "basic/measurements.toml")]
struct Matcher {
    bids: Consumer<Bid>,
    #[mosaik(default)]
    taken: u64,
}

#[mosaik::handlers]
impl Matcher {
    #[on(bids)]
    #[expect(clippy::needless_pass_by_value, reason = "handlers have this form")]
    fn take(&mut self, bid: Bid) {
        assert_eq!(bid.0, 1, "of who does not run what it should");
        self.taken += 1;
    }
}

#[mosaik::node(attest = "basic/measurements.toml")]
struct Right {
    bids: Producer<Bid>,
}

#[mosaik::handlers]
impl Right {
    #[every("1s", emit = bids)]
    #[expect(clippy::unused_self, reason = "handlers have this form")]
    fn bid(&self) -> Bid {
        Bid(1)
    }
}

/// What it runs is off by one bit.
#[mosaik::node(attest = "basic/measurements.toml")]
struct Off {
    bids: Producer<Bid>,
}

#[mosaik::handlers]
impl Off {
    #[every("1s", emit = bids)]
    #[expect(clippy::unused_self, reason = "handlers have this form")]
    fn bid(&self) -> Bid {
        Bid(2)
    }
}

/// It shows nothing.
#[mosaik::node]
struct Plain {
    bids: Producer<Bid>,
}

#[mosaik::handlers]
impl Plain {
    #[every("1s", emit = bids)]
    #[expect(clippy::unused_self, reason = "handlers have this form")]
    fn bid(&self) -> Bid {
        Bid(3)
    }
}

/// It shows nothing, and would read.
#[mosaik::node]
struct Reader {
    bids: Consumer<Bid>,
}

#[mosaik::handlers]
impl Reader {}

#[mosaik::app(name = "attested", roles = [Matcher, Right, Off, Plain, Reader])]
struct Attested;

fn platform() -> SimPlatform {
    let known = Measurements::default().with("builder-7", [("code", vec![7; 32])]).unwrap();
    SimPlatform::new(7, BEGIN + 86_400).running("builder-7", &known)
}

/// The first line of what is said between two nodes.
async fn said(cluster: &Cluster<Attested>, of: &Network, with: &Network) -> (Option<Fault>, String) {
    let survey = Survey::new(cluster.observer().diagnostics().client(), [Bootstrap::from(of.local().addr())]);
    let [of, with] = [of, with].map(|network| Bootstrap::from(network.local().addr()).to_string());
    let explained = survey.explain(&of, "stream:attested.bids", Some(&with)).await.unwrap().explanation;
    (explained.fault(), explained.to_string().lines().next().unwrap().to_owned())
}

#[test]
fn who_runs_something_else_or_shows_nothing_is_refused_and_told_why() {
    Sim::run(1, |sim| async move {
        let cluster = Cluster::<Attested>::in_sim(&sim)
            .with_platform::<Matcher>(|_| platform())
            .with_platform::<Right>(|_| platform())
            .with_platform::<Off>(|_| {
                let mut off = platform();
                off.registers.entry("code".into()).and_modify(|code| code[31] ^= 1);
                off
            })
            .start()
            .await
            .unwrap();
        let matcher = cluster.network::<Matcher>(0);
        let [right, off, plain, reader] = [
            cluster.network::<Right>(0),
            cluster.network::<Off>(0),
            cluster.network::<Plain>(0),
            cluster.network::<Reader>(0),
        ];
        assert!(eventually(SOON, || cluster.role::<Matcher>(0).status().handled >= 3).await, "of the right one");
        let judged = || {
            let mut refusals = off.trust().refusals().into_iter();
            refusals.any(|it| matches!(it.reason, Reason::Attestation(AttestError::Measurement { .. })))
        };
        assert!(eventually(SOON, judged).await, "who is off is told: {:?}", off.trust().refusals());
        // Whatever is tried once more is tried by then.
        sleep(SOON).await;
        assert_eq!(said(&cluster, &right, &matcher).await.0, None);

        let bit = "code is 07070707070707070707070707070707.., which is none of the measurements that are accepted";
        let produce = "grant missing to produce the stream attested.bids: has nothing, needs attested:sim; ";
        let consume = "grant missing to consume the stream attested.bids: has nothing, needs attested:sim; ";
        for (one, other, parts) in [
            (&off, &matcher, [produce, bit]),
            (&plain, &matcher, [produce, "no evidence was shown"]),
            (&reader, &right, [consume, "no evidence was shown"]),
        ] {
            for (of, with) in [(one, other), (other, one)] {
                let (fault, line) = said(&cluster, of, with).await;
                assert_eq!(fault, Some(Fault::NotAttested), "{line}");
                assert!(parts.iter().all(|part| line.contains(part)), "{line}");
            }
        }
        // Nobody asks who shows nothing of those that ask nobody.
        assert_eq!(said(&cluster, &plain, &reader).await.0, None);
        // Not forgiven: that it is declared so is a mistake.
        let missing = cluster.converged_within(Duration::from_secs(1)).await.unwrap_err();
        assert!(missing.to_string().contains("no evidence was shown"), "{missing}");
    });
}

#[test]
fn a_generated_main_says_what_it_lacks() {
    let vault = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_guarded"))
            .args(["run", "vault", "--listen", "127.0.0.1:0"])
            .args(args)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = vault(&[]);
    assert_eq!(code, Some(1), "{said}");
    let why = "error: cannot read the measurements in measurements.toml: ";
    assert!(said.contains(why) && said.contains("--measurements names another file"), "{said}");
    if !Path::new("/sys/kernel/config/tsm/report").is_dir() {
        let (code, said) = vault(&["--measurements", "basic/measurements.toml"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("no evidence can be made here: /sys/kernel/config/tsm/report is missing"), "{said}");
    }
    let help = |role: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_guarded")).args(["run", role, "--help"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(help("vault").contains("[default: measurements.toml]") && help("vault").contains("--collateral <FILE>"));
    assert!(!help("buyer").contains("--measurements"));
}

#[test]
fn without_machines_nobody_is_asked() {
    Sim::run(2, |sim| async move {
        let cluster = Cluster::<Attested>::in_sim(&sim).with::<Off>(0).with::<Plain>(0).start().await.unwrap();
        cluster.converged().await.unwrap();
    });
}

#[test]
fn a_role_with_attest_does_not_open_on_a_node_that_asks_nobody() {
    Sim::run(3, |sim| async move {
        let network = sim.node("bare").builder("attested").build().await.unwrap();
        let values = ArgValues::parse(&Right::ROLE, [""; 0]).unwrap();
        let opened = Right::open(&mut Setup::new(&network, &values)).await;
        assert!(matches!(opened, Err(RoleError::NotAttested { role: "right" })), "{:?}", opened.err());

        let in_vain = sim.node("vain").builder("attested").with_attested_peers().build().await;
        assert!(matches!(in_vain, Err(BuildError::NoVerifier)), "{in_vain:?}");

        let evidence = SimEvidence::new(platform(), Policy::from_file("basic/measurements.toml").unwrap());
        let builder = sim.node("asks").builder("attested").with_evidence(evidence).with_attested_peers();
        let network = builder.build().await.unwrap();
        let opened = Right::open(&mut Setup::new(&network, &values)).now_or_never();
        assert!(matches!(opened, Some(Ok(_))), "is open at once");
    });
}

#[test]
fn the_file_is_in_the_graph_and_who_would_be_refused_is_warned_of() {
    let graph = Attested::GRAPH;
    let json: serde_json::Value = serde_json::from_str(&graph.to_json()).unwrap();
    let file = "basic/measurements.toml";
    assert_eq!((&json["roles"][0]["attest"], &json["roles"][3]["attest"]), (&file.into(), &().into()));
    assert!(graph.to_listing().contains(&format!("    attested  by {file}\n")), "{}", graph.to_listing());
    let asks = graph.warnings().into_iter().filter_map(|warning| match warning {
        Warning::NotAttested { role, asks, by } => Some((role, asks, by)),
        _ => None,
    });
    let by = "stream \"attested.bids\"".to_owned();
    let want = [("plain", "matcher"), ("reader", "right"), ("reader", "off")];
    assert_eq!(asks.collect::<Vec<_>>(), want.map(|(role, asks)| (role, asks, by.clone())));
}
