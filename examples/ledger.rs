//! A bank whose branches keep one ledger: a replicated state machine behind a small server.
//!
//! ```text
//! export LEDGER_KEY=$(head -c 16 /dev/urandom | xxd -p)
//! cargo run --example ledger -- run bank --data-dir /tmp/one --listen 127.0.0.1:7001 --api 127.0.0.1:8001
//! cargo run --example ledger -- run bank --data-dir /tmp/two --bootstrap <id>@127.0.0.1:7001 --api 127.0.0.1:8002
//! cargo run --example ledger -- run bank --data-dir /tmp/three --bootstrap <id>@127.0.0.1:7001 --api 127.0.0.1:8003
//! echo '{"id":1,"op":"deposit","account":"alice","amount":5}' | nc -N 127.0.0.1 8002
//! ```
//!
//! Every branch serves JSON lines at `--api`: one line of answer for each line of request, in any order, matched by `id`.
//!
//! * `deposit` (`account`, `amount`): the new balance; an account that was never used has 0.
//! * `transfer` (`from`, `to`, `amount`): `null`, or `"fail":"overdraft"`.
//! * `cas` (`account`, `expect`, `set`): whether the balance was as expected and is now `set`.
//! * `balance` (`account`, `consistency`: `"strong"`, the default, or `"weak"`).
//! * `status`: what this branch is in the group, and why it does not answer if it does not.
//!
//! What is not done within 5 s, or `timeout_ms`, is an error whose `outcome` is `"none"` when it was certainly not applied
//! and never will be, and `"unknown"` otherwise. A request with a `session` and a `seq` may be sent again, to any branch:
//! it is applied once and answered alike.

use std::{collections::BTreeMap, io, net::SocketAddr, process::ExitCode, time::Duration};

use mosaik::prelude::*;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

#[path = "ledger/api.rs"]
pub mod api;

/// Answers that are remembered of each session. A client has fewer requests under way than this.
const MAX_ANSWERS: usize = 1024;
/// Sessions that are remembered.
const MAX_SESSIONS: usize = 16_384;
/// How long a session is remembered after its last request, by the group's own clock.
const SESSION_LIFE: Duration = Duration::from_hours(1);

/// Who has how much.
#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(name = "ledger", key = env("LEDGER_KEY"), size = 3)]
pub struct Ledger {
    balances: BTreeMap<String, u64>,
    sessions: BTreeMap<String, Session>,
}

/// What is remembered of a client, so that what it sends again is not done again.
#[derive(Default, Clone, Serialize, Deserialize)]
pub struct Session {
    answers: BTreeMap<u64, Answer>,
    /// Answers up to this number may have been forgotten.
    forgotten: Option<u64>,
    /// The group's time of the last request.
    used: Duration,
}

/// The request of a client, by which it is known when it comes again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// The client.
    pub session: String,
    /// The number that it gave the request.
    pub seq: u64,
}

/// What a command gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The new balance.
    Balance(u64),
    /// Whether the balance was replaced.
    Swapped(bool),
    /// The transfer is done.
    Transferred,
    /// There is not enough on the account.
    Overdraft,
    /// There would be more on the account than a number can say.
    Overflow,
    /// The number is below those that are remembered of its session: it may have been applied.
    TooOld,
    /// There is no room for another session.
    TooManySessions,
}

#[mosaik::state_machine(version = 1)]
impl Ledger {
    /// Adds to an account; the new balance.
    #[command]
    fn deposit(&mut self, origin: Option<Origin>, account: String, amount: u64, ctx: &ApplyContext) -> Answer {
        self.once(origin, ctx, |balances| {
            let balance = balances.get(&account).copied().unwrap_or_default();
            let Some(balance) = balance.checked_add(amount) else { return Answer::Overflow };
            balances.insert(account, balance);
            Answer::Balance(balance)
        })
    }

    /// Moves an amount from one account to another.
    #[command]
    fn transfer(
        &mut self,
        origin: Option<Origin>,
        from: String,
        to: String,
        amount: u64,
        ctx: &ApplyContext,
    ) -> Answer {
        self.once(origin, ctx, |balances| {
            let balance = |account: &str| balances.get(account).copied().unwrap_or_default();
            let Some(left) = balance(&from).checked_sub(amount) else { return Answer::Overdraft };
            if from == to {
                return Answer::Transferred;
            }
            let Some(sum) = balance(&to).checked_add(amount) else { return Answer::Overflow };
            balances.insert(from, left);
            balances.insert(to, sum);
            Answer::Transferred
        })
    }

    /// Sets a balance if it is the expected one.
    #[command]
    fn cas(&mut self, origin: Option<Origin>, account: String, expect: u64, set: u64, ctx: &ApplyContext) -> Answer {
        self.once(origin, ctx, |balances| {
            let swapped = balances.get(&account).copied().unwrap_or_default() == expect;
            if swapped {
                balances.insert(account, set);
            }
            Answer::Swapped(swapped)
        })
    }

    /// What is on an account.
    #[query]
    fn balance(&self, account: &str) -> u64 {
        self.balances.get(account).copied().unwrap_or_default()
    }

    /// Applies a change unless it has been before; the answer is the same each time.
    fn once(
        &mut self,
        origin: Option<Origin>,
        ctx: &ApplyContext,
        change: impl FnOnce(&mut BTreeMap<String, u64>) -> Answer,
    ) -> Answer {
        let Some(Origin { session, seq }) = origin else { return change(&mut self.balances) };
        if !self.sessions.contains_key(&session) && !self.has_room(ctx.time()) {
            return Answer::TooManySessions;
        }
        let known = self.sessions.entry(session).or_default();
        known.used = ctx.time();
        if let Some(answer) = known.answers.get(&seq) {
            return *answer;
        }
        if known.forgotten.is_some_and(|forgotten| seq <= forgotten) {
            return Answer::TooOld;
        }
        let answer = change(&mut self.balances);
        known.answers.insert(seq, answer);
        if known.answers.len() > MAX_ANSWERS
            && let Some((oldest, _)) = known.answers.pop_first()
        {
            known.forgotten = Some(oldest);
        }
        answer
    }

    /// Whether there is room for another session, after those that are over have been forgotten.
    fn has_room(&mut self, now: Duration) -> bool {
        if self.sessions.len() >= MAX_SESSIONS {
            self.sessions.retain(|_, session| now.saturating_sub(session.used) < SESSION_LIFE);
        }
        self.sessions.len() < MAX_SESSIONS
    }
}

/// A branch: a member of the ledger's group, and a server for its clients.
#[mosaik::node]
pub struct Bank {
    /// Where to serve JSON lines over TCP
    #[mosaik(arg)]
    api: SocketAddr,
    ledger: Replica<Ledger>,
    /// Ends with the role.
    #[mosaik(default)]
    server: JoinSet<()>,
    /// Dropped when the role is to end: clients are answered first.
    #[mosaik(default)]
    open: Option<oneshot::Sender<()>>,
}

#[mosaik::handlers]
impl Bank {
    #[start]
    async fn serve(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.api).await?;
        eprintln!("api {}", listener.local_addr()?);
        let (open, ending) = oneshot::channel();
        self.open = Some(open);
        self.server.spawn(api::accept(listener, self.ledger.clone(), api::ending(ending)));
        Ok(())
    }

    /// Requests that are under way get their answer, within the half second that a role has to stop.
    #[stop]
    async fn close(&mut self) {
        self.open = None;
        while self.server.join_next().await.is_some() {}
    }
}

/// A bank whose branches keep one ledger.
#[mosaik::app(name = "ledger", roles = [Bank])]
pub struct Branches;

fn main() -> ExitCode {
    Branches::main()
}
