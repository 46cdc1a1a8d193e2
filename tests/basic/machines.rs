//! Declared machines: what their attributes expand to, and what an app's graph says of their groups.

#![allow(
    clippy::disallowed_types,
    clippy::needless_pass_by_value,
    clippy::trivially_copy_pass_by_ref,
    reason = "machines of all kinds, as users may write them"
)]

use std::collections::{BTreeMap, HashMap};

use mosaik::{
    groups::StateMachine,
    node::{Declared, KeyDecl},
    prelude::*,
};

mod ledger {
    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    pub struct Overdraft;

    /// Who has how much.
    #[derive(Default, Clone, Serialize, Deserialize, PartialEq, Debug)]
    #[mosaik::group(name = "ledger", key = env("MOSAIK_TEST_NO_SUCH_KEY"), size = 3)]
    pub struct Ledger {
        balances: BTreeMap<String, u64>,
    }

    #[mosaik::state_machine(version = 1)]
    impl Ledger {
        /// Returns the new balance.
        #[command]
        fn deposit(&mut self, account: String, amount: u64) -> u64 {
            let balance = self.balances.entry(account).or_default();
            *balance += amount;
            *balance
        }

        #[command]
        fn transfer(&mut self, from: &str, to: &str, mut amount: u64) -> Result<(), Overdraft> {
            amount += 0;
            let left = self.balance(from).checked_sub(amount).ok_or(Overdraft)?;
            self.balances.insert(from.to_owned(), left);
            self.credit(to, amount);
            Ok(())
        }

        #[command]
        fn merge(&mut self, other: Self, without: &[String]) {
            for (account, balance) in other.balances {
                if !without.contains(&account) {
                    self.credit(&account, balance);
                }
            }
        }

        #[command]
        fn stamp(&mut self, ctx: &ApplyContext, account: String) -> (u64, u64) {
            self.balances.insert(account, ctx.index());
            (ctx.index(), ctx.time().as_secs())
        }

        #[query]
        fn balance(&self, account: &str) -> u64 {
            self.balances.get(account).copied().unwrap_or_default()
        }

        #[query]
        fn above(&self, limit: &u64) -> Vec<String> {
            self.balances.iter().filter(|(_, balance)| *balance > limit).map(|(account, _)| account.clone()).collect()
        }

        fn credit(&mut self, account: &str, amount: u64) {
            *self.balances.entry(account.to_owned()).or_default() += amount;
        }
    }

    fn at(index: u64) -> ApplyContext {
        ApplyContext::at(index)
    }

    #[test]
    fn a_command_calls_its_method() {
        let mut ledger = Ledger::default();
        let deposit = LedgerCommand::Deposit { account: "a".into(), amount: 5 };
        assert!(matches!(ledger.apply(deposit, &at(1)), LedgerOutput::Deposit(5)));
        let transfer = |amount| LedgerCommand::Transfer { from: "a".into(), to: "b".into(), amount };
        assert!(matches!(ledger.apply(transfer(6), &at(2)), LedgerOutput::Transfer(Err(Overdraft))));
        assert!(matches!(ledger.apply(transfer(2), &at(3)), LedgerOutput::Transfer(Ok(()))));
        let merge = LedgerCommand::Merge { other: ledger.clone(), without: vec!["a".into()] };
        assert!(matches!(ledger.apply(merge, &at(4)), LedgerOutput::Merge(())));
        let stamp = LedgerCommand::Stamp { account: "now".into() };
        let output = ledger.apply(stamp, &at(5).with_time(std::time::Duration::from_secs(9)));
        assert!(matches!(output, LedgerOutput::Stamp((5, 9))));
        let want = [("a", 3), ("b", 4), ("now", 5)].map(|(account, balance)| (account.to_owned(), balance));
        assert_eq!(ledger.balances, BTreeMap::from(want));
    }

    #[test]
    fn a_query_borrows_what_was_stored_owned() {
        let mut ledger = Ledger::default();
        ledger.deposit("a".into(), 5);
        assert!(matches!(ledger.query(LedgerQuery::Balance { account: "a".into() }), LedgerAnswer::Balance(5)));
        let LedgerAnswer::Above(above) = ledger.query(LedgerQuery::Above { limit: 4 }) else {
            panic!("another answer")
        };
        assert_eq!(above, ["a"]);
    }

    #[test]
    fn the_declaration_is_data() {
        let machine = Ledger::MACHINE;
        assert_eq!((Ledger::NAME, Ledger::VERSION, machine.version), ("ledger", 1, 1));
        assert_eq!((machine.group.ty, machine.group.doc, machine.group.size), ("Ledger", "Who has how much.", Some(3)));
        assert_eq!(machine.group.key, KeyDecl::Env("MOSAIK_TEST_NO_SUCH_KEY"));
        let names = |methods: &[mosaik::node::MethodDecl]| methods.iter().map(|method| method.name).collect::<Vec<_>>();
        assert_eq!(names(machine.commands), ["deposit", "transfer", "merge", "stamp"]);
        assert_eq!(names(machine.queries), ["balance", "above"]);
        assert_eq!((machine.commands[0].doc, machine.schema), ("Returns the new balance.", Ledger::SCHEMA));
    }

    #[test]
    fn a_missing_key_names_the_variable_and_the_group() {
        let error = Ledger::key().expect_err("is not set").to_string();
        assert!(error.contains("MOSAIK_TEST_NO_SUCH_KEY") && error.contains("\"ledger\""), "{error}");
    }

    mod changed {
        use mosaik::prelude::*;

        #[derive(Default, Clone, Serialize, Deserialize)]
        #[mosaik::group(key = secret("s"))]
        pub struct Ledger(u64);

        #[mosaik::state_machine(version = 1)]
        impl Ledger {
            #[command]
            fn deposit(&mut self, account: String, amount: u32) -> u64 {
                self.0 += u64::from(amount) + account.len() as u64;
                self.0
            }
        }
    }

    #[test]
    fn another_argument_is_another_fingerprint() {
        assert_ne!(Ledger::SCHEMA, changed::Ledger::SCHEMA);
        assert!(Ledger::SCHEMA.is_some());
    }
}

mod snapshots {
    use super::*;

    #[derive(Default, Serialize, Deserialize)]
    #[mosaik::group(key = secret("s"))]
    struct NoClone(u64);

    #[mosaik::state_machine]
    impl NoClone {
        #[command]
        fn touch(&mut self) {
            self.0 += 1;
        }
    }

    #[derive(Default)]
    #[mosaik::group(key = GroupKey::from_bytes([7; 32]), initial = Bare { seen: HashMap::from([(1, 1)]) })]
    struct Bare {
        #[mosaik(nondeterministic = "only looked up by key")]
        seen: HashMap<u8, u8>,
    }

    const VERSION: u32 = 7;

    #[mosaik::state_machine(version = VERSION)]
    impl Bare {
        #[command]
        #[mosaik(nondeterministic = "only shown")]
        fn touch(&mut self, at: u8) -> Option<u8> {
            println!("{:?}", std::time::SystemTime::UNIX_EPOCH.elapsed());
            self.seen.remove(&at)
        }
    }

    #[derive(Default)]
    #[mosaik::group(key = secret("s"))]
    struct ByHand(u64);

    #[mosaik::state_machine(snapshots = Snapshots::with(
        |machine| { let bytes = machine.0.to_le_bytes().to_vec(); Box::new(move || Ok(bytes.into())) },
        |_| Ok(ByHand(0)),
    ))]
    impl ByHand {
        #[command]
        fn touch(&mut self) {
            self.0 += 1;
        }
    }

    #[test]
    fn they_are_what_the_type_can_do() {
        assert!(ledger::Ledger::snapshots().any() && NoClone::snapshots().any() && ByHand::snapshots().any());
        assert!(!Bare::snapshots().any(), "it is not serde");
    }

    #[test]
    fn the_first_machine_is_the_declared_one() {
        let mut bare = Bare::initial();
        assert_eq!((bare.touch(1), Bare::VERSION, Bare::NAME), (Some(1), 7, "Bare"));
        assert_eq!(Bare::key(), Ok(GroupKey::from_bytes([7; 32])));
        assert_eq!(NoClone::key(), Ok(GroupKey::from_secret("s")));
    }
}

mod derived {
    use super::*;

    #[derive(Serialize, Deserialize)]
    pub enum Step {
        Up(u32),
        Down,
    }

    #[derive(Default, Clone, Serialize, Deserialize, StateMachine)]
    #[state_machine(command = Step, output = u32, query = bool, answer = u32, version = 3)]
    #[mosaik::group(name = "stairs", key = env("STAIRS_KEY"))]
    pub struct Stairs(u32);

    impl Stairs {
        fn on_command(&mut self, step: Step, ctx: &ApplyContext) -> u32 {
            self.0 = match step {
                Step::Up(by) => self.0.saturating_add(by),
                Step::Down => self.0.saturating_sub(u32::from(ctx.index() > 0)),
            };
            self.0
        }

        fn on_query(&self, double: bool) -> u32 {
            if double { self.0 * 2 } else { self.0 }
        }
    }

    #[test]
    fn methods_do_what_the_types_say() {
        let mut stairs = Stairs::default();
        let ctx = ApplyContext::at(1);
        assert_eq!((stairs.apply(Step::Up(3), &ctx), stairs.apply(Step::Down, &ctx), stairs.query(true)), (3, 2, 4));
        assert_eq!((Stairs::NAME, Stairs::VERSION, Stairs::snapshots().any()), ("stairs", 3, true));
        assert_eq!(Stairs::MACHINE.group.size, None);
    }
}

/// Names of the language's own in the user's scope, raw identifiers, an impl in a function, a machine from a macro.
mod hygiene {
    #![allow(dead_code, non_camel_case_types, reason = "they only have to be in the way")]

    struct Option;
    struct Result;
    struct String;
    struct Vec;
    struct Box;
    type Some = ();
    fn borrow() {}

    #[derive(mosaik::prelude::Serialize, mosaik::prelude::Deserialize, Default, Clone)]
    #[mosaik::group(key = env("KEY"))]
    struct r#Odd(u64);

    #[mosaik::state_machine]
    impl Odd {
        #[command]
        fn r#move(&mut self, r#type: &str, call: u64, ctx: u64, command: &u64) -> u64 {
            self.0 += call + ctx + command + r#type.len() as u64;
            self.0
        }

        #[query]
        fn r#match(&self, query: u64, r#self_: &[u64]) -> u64 {
            self.0 + query + self_.len() as u64
        }
    }

    macro_rules! machine {
        ($name:ident, $field:ty, $method:ident) => {
            #[derive(mosaik::prelude::Serialize, mosaik::prelude::Deserialize, Default, Clone)]
            #[mosaik::group(key = env("KEY"))]
            struct $name($field);

            #[mosaik::state_machine]
            impl $name {
                #[command]
                fn $method(&mut self, value: $field) -> $field {
                    ::core::mem::replace(&mut self.0, value)
                }
            }
        };
    }

    #[test]
    fn nothing_in_the_scope_changes_what_is_generated() {
        use mosaik::groups::{ApplyContext, StateMachine};

        machine!(Local, u8, set);

        let ctx = ApplyContext::at(1);
        let mut odd = Odd::default();
        let call = OddCommand::Move { r#type: "ab".into(), call: 1, ctx: 2, command: 3 };
        assert!(matches!(odd.apply(call, &ctx), OddOutput::Move(8)));
        assert!(matches!(odd.query(OddQuery::Match { query: 1, self_: vec![1] }), OddAnswer::Match(10)));
        let mut local = Local::default();
        assert!(matches!(local.apply(LocalCommand::Set { value: 5 }, &ctx), LocalOutput::Set(0)));
        assert_eq!((Odd::NAME, local.0), ("Odd", 5));
    }
}

mod graph {
    use mosaik::node::{Link, Role};

    use super::*;

    #[mosaik::node]
    pub struct Bank {
        ledger: Replica<ledger::Ledger>,
        #[mosaik(default)]
        moved: u64,
    }

    #[mosaik::handlers]
    impl Bank {
        #[every("1s")]
        async fn work(&mut self) -> Result<(), CallError> {
            let _: u64 = self.ledger.deposit("alice".into(), 5).await?;
            let moved: Result<(), ledger::Overdraft> = self.ledger.transfer("a", "b", 5).await?;
            self.moved += u64::from(moved.is_ok());
            let _: u64 = self.ledger.balance("alice").strong().await?;
            let _: Vec<String> = self.ledger.above(&5).weak().await?;
            let _ = self.ledger.group();
            Ok(())
        }
    }

    #[mosaik::node]
    pub struct Clerk {
        stairs: Replica<derived::Stairs>,
        books: Replica<ledger::Ledger>,
    }

    #[mosaik::handlers]
    impl Clerk {
        #[every("1s")]
        async fn climb(&mut self) -> Result<(), CallError> {
            let height: u32 = self.stairs.execute(derived::Step::Up(1)).await?;
            let _: bool = self.stairs.query(false).weak().await? == height;
            let _ = self.books.clone();
            Ok(())
        }
    }

    #[mosaik::app(name = "bank", roles = [Bank, Clerk])]
    pub struct Branch;

    #[test]
    fn a_replica_is_an_endpoint() {
        let [endpoint] = Bank::ROLE.endpoints else { panic!("one endpoint") };
        assert_eq!(endpoint.field, "ledger");
        assert!(matches!(endpoint.link, Link::Group(machine) if machine == ledger::Ledger::MACHINE));
    }

    #[test]
    fn groups_are_drawn_and_listed() {
        let graph = Branch::GRAPH;
        let groups: Vec<_> = graph.groups().into_iter().map(|each| (each.machine.group.name, each.members)).collect();
        assert_eq!(groups, [("ledger", vec!["bank", "clerk"]), ("stairs", vec!["clerk"])]);
        assert!(graph.warnings().is_empty());
        let mermaid = graph.to_mermaid();
        let edges = "    g0[(\"ledger\")]\n    r0 <--> g0\n    r1 <--> g0\n    g1[(\"stairs\")]\n    r1 <--> g1\n";
        assert!(mermaid.ends_with(edges), "{mermaid}");
        let dot = graph.to_dot();
        assert!(dot.contains("g0 [shape=cylinder, label=\"ledger\"];\n    r0 -> g0 [dir=both];"), "{dot}");
        let json = graph.to_json();
        let part = "\"key_variable\":\"MOSAIK_TEST_NO_SUCH_KEY\",\"version\":1";
        assert!(json.contains(part) && json.contains("\"members\":[\"bank\",\"clerk\"]"), "{json}");
        let listing = graph.to_listing();
        let line = "member of ledger (Ledger, 3 founders, key in MOSAIK_TEST_NO_SUCH_KEY)";
        assert!(listing.contains(line), "{listing}");
    }
}
