//! Machines with states: transitions, conditions and time-outs by themselves, in a group, and as data; and machines over an enum
//! of commands with a method each.

#![allow(
    clippy::trivially_copy_pass_by_ref,
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "machines as users may write them"
)]

use std::time::Duration;

use mosaik::{
    groups::StateMachine,
    node::Declared,
    prelude::*,
    testing::{Cluster, Sim},
};

/// Where an order is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    #[default]
    New,
    Open,
    Filled,
    Cancelled,
    Expired,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TooMuch;

/// An order that is filled in parts.
#[derive(Clone, Default, Serialize, Deserialize)]
#[mosaik::group(name = "states.order", key = env("STATES_TEST_KEY"), size = 3)]
pub struct Order {
    stage: Stage,
    entered: Duration,
    left: u64,
    notes: Vec<String>,
}

#[mosaik::state_machine(
    version = 1,
    states = Stage { New, Open, Filled, Cancelled, Expired },
    state = stage,
    since = entered,
    terminal = [Filled, Cancelled, Expired]
)]
impl Order {
    /// Opens it for so many.
    #[transition(New -> Open)]
    fn open(&mut self, quantity: u64, note: &str) {
        self.left = quantity;
        self.notes.push(note.to_owned());
    }

    #[transition(Placed: Open -> Filled, if = Self::enough)]
    fn fill(&mut self, quantity: u64) -> Result<u64, TooMuch> {
        self.left = self.left.checked_sub(quantity).ok_or(TooMuch)?;
        Ok(self.left)
    }

    #[transition(Placed: Open -> Open)]
    fn fill_in_part(&mut self, quantity: u64, ctx: &ApplyContext) -> Result<u64, TooMuch> {
        self.left -= quantity;
        self.notes.push(format!("{quantity} at {}", ctx.index()));
        Ok(self.left)
    }

    #[transition(New | Open -> Cancelled, if = !Self::is_locked)]
    fn cancel(&mut self) {}

    #[transition(Open -> Expired, after = "30s")]
    #[transition(New -> Expired, after = "60s")]
    fn expire(&mut self) {
        self.left = 0;
    }

    /// In every state.
    #[command]
    fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    #[query]
    fn stage(&self) -> Stage {
        self.stage
    }

    #[query]
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn enough(&self, quantity: &u64) -> bool {
        *quantity >= self.left
    }

    fn is_locked(&self) -> bool {
        self.notes.iter().any(|note| note == "locked")
    }
}

fn at(seconds: u64) -> ApplyContext {
    ApplyContext::at(seconds).with_time(Duration::from_secs(seconds))
}

fn opened() -> Order {
    let mut order = Order::initial();
    let open = OrderCommand::Open { quantity: 10, note: String::from("first") };
    assert!(matches!(order.apply(open, &at(100)), OrderOutput::Open(Ok(()))));
    order
}

fn placed(order: &mut Order, quantity: u64, second: u64) -> Result<Result<u64, TooMuch>, NoTransition<Stage>> {
    match order.apply(OrderCommand::Placed { quantity }, &at(second)) {
        OrderOutput::Placed(result) => result,
        _ => panic!("the output of another command"),
    }
}

#[test]
fn a_command_takes_the_first_transition_whose_condition_holds() {
    let mut order = opened();
    assert_eq!((order.stage, order.entered), (Stage::Open, Duration::from_secs(100)));
    assert_eq!(placed(&mut order, 4, 101), Ok(Ok(6)));
    assert_eq!((order.stage, order.entered), (Stage::Open, Duration::from_secs(101)));
    assert_eq!(order.notes, ["first", "4 at 101"]);
    assert_eq!(placed(&mut order, 6, 102), Ok(Ok(0)));
    assert_eq!((order.stage, order.entered), (Stage::Filled, Duration::from_secs(102)));
}

#[test]
fn a_method_that_fails_does_not_move() {
    let mut order = opened();
    assert_eq!(placed(&mut order, 11, 101), Ok(Err(TooMuch)));
    assert_eq!((order.stage, order.entered, order.left), (Stage::Open, Duration::from_secs(100), 10));
}

#[test]
fn a_command_without_a_transition_changes_nothing() {
    let mut order = Order::initial();
    let refused = placed(&mut order, 1, 1).expect_err("is not open");
    assert_eq!((refused, *refused.state()), (NoTransition::None { state: Stage::New }, Stage::New));
    assert_eq!(refused.to_string(), "not possible in the state New");
    order.note("locked".into());
    let output = order.apply(OrderCommand::Cancel {}, &at(2));
    assert!(matches!(output, OrderOutput::Cancel(Err(NoTransition::Unmet { state: Stage::New }))));
    order.notes.clear();
    assert!(matches!(order.apply(OrderCommand::Cancel {}, &at(3)), OrderOutput::Cancel(Ok(()))));
    assert_eq!(order.stage, Stage::Cancelled);
    let output = order.apply(OrderCommand::Note { text: "late".into() }, &at(4));
    assert!(matches!(output, OrderOutput::Note(())), "a plain command is one in every state");
}

#[test]
fn a_time_out_comes_by_the_time_of_the_group() {
    let mut order = opened();
    let expire = |order: &mut Order, second| match order.apply(OrderCommand::Expire {}, &at(second)) {
        OrderOutput::Expire(result) => result,
        _ => panic!("the output of another command"),
    };
    assert_eq!(expire(&mut order, 129), Err(NoTransition::Unmet { state: Stage::Open }));
    assert_eq!(placed(&mut order, 1, 129), Ok(Ok(9)));
    assert_eq!(expire(&mut order, 130), Err(NoTransition::Unmet { state: Stage::Open }), "its time has begun anew");
    assert_eq!(expire(&mut order, 159), Ok(()));
    assert_eq!((order.stage, order.left), (Stage::Expired, 0));
    assert_eq!(expire(&mut order, 999), Err(NoTransition::None { state: Stage::Expired }));

    let mut order = Order::initial();
    assert_eq!(expire(&mut order, 500), Err(NoTransition::Unmet { state: Stage::New }), "the first asks when it began");
    assert_eq!(expire(&mut order, 559), Err(NoTransition::Unmet { state: Stage::New }));
    assert_eq!(expire(&mut order, 560), Ok(()));
}

#[test]
fn states_are_data_and_a_drawing() {
    let states = Order::MACHINE.states.expect("are declared");
    assert_eq!(
        (states.ty, states.names[0], states.terminal),
        ("Stage", "New", &["Filled", "Cancelled", "Expired"][..])
    );
    assert_eq!(
        states.mermaid,
        "stateDiagram-v2\n    [*] --> New\n    New --> Open: open\n    Open --> Filled: placed [enough]\n    \
         Open --> Open: placed\n    New --> Cancelled: cancel [not is_locked]\n    Open --> Cancelled: cancel [not is_locked]\n    \
         Open --> Expired: expire after 30s\n    New --> Expired: expire after 60s\n    Filled --> [*]\n    Cancelled --> [*]\n    \
         Expired --> [*]\n"
    );
    let expire = states.transitions.iter().find(|each| each.command == "expire").expect("is one");
    assert_eq!((expire.from, expire.to, expire.after), ("Open", "Expired", Some(Duration::from_secs(30))));
    let json: serde_json::Value = serde_json::from_str(&states.to_json()).expect("is JSON");
    assert_eq!(json["transitions"][1]["if"], "enough");
    assert!(states.to_dot().contains("\"Open\" -> \"Expired\" [label=\"expire after 30s\"];"));
    let names: Vec<_> = Order::MACHINE.commands.iter().map(|command| command.name).collect();
    assert_eq!(names, ["open", "placed", "cancel", "expire", "note"]);
}

mod other_transitions {
    use super::*;

    #[derive(Clone, Default, Serialize, Deserialize)]
    #[mosaik::group(name = "states.order", key = env("STATES_TEST_KEY"))]
    pub struct Order {
        stage: Stage,
    }

    #[mosaik::state_machine(states = Stage { New, Open, Filled, Cancelled, Expired }, state = stage, terminal = [Filled, Cancelled, Expired])]
    impl Order {
        #[transition(New -> Open)]
        #[transition(Open -> Filled)]
        #[transition(Stopped: New -> Cancelled)]
        #[transition(Stopped: Open -> Expired)]
        fn go(&mut self) {}
    }

    mod with_another {
        use super::*;

        #[derive(Clone, Default, Serialize, Deserialize)]
        #[mosaik::group(name = "states.order", key = env("STATES_TEST_KEY"))]
        pub struct Order {
            stage: Stage,
        }

        #[mosaik::state_machine(states = Stage { New, Open, Filled, Cancelled, Expired }, state = stage, terminal = [Filled, Cancelled, Expired])]
        impl Order {
            #[transition(New -> Open)]
            #[transition(Open -> Filled)]
            #[transition(Stopped: New -> Expired)]
            #[transition(Stopped: Open -> Cancelled)]
            fn go(&mut self) {}
        }
    }

    #[test]
    fn what_leads_elsewhere_is_another_machine() {
        assert_ne!(Order::MACHINE.schema, with_another::Order::MACHINE.schema);
        let mut order = Order::initial();
        assert!(matches!(order.apply(OrderCommand::Stopped {}, &at(1)), OrderOutput::Stopped(Ok(()))));
        assert_eq!(order.stage, Stage::Cancelled);
    }
}

#[mosaik::node]
pub struct Desk {
    order: Replica<Order>,
}

#[mosaik::handlers]
impl Desk {}

#[mosaik::app(name = "states-test", roles = [Desk])]
pub struct Trading;

/// The leader calls a time-out, also another one after the first was killed; each takes place once.
#[test]
fn the_group_calls_its_time_outs() {
    Sim::run(7, |sim| async move {
        let cluster = Cluster::<Trading>::in_sim(&sim).with::<Desk>(3).start().await.expect("starts");
        cluster.converged().await.expect("as declared");
        let order = cluster.client::<Order>().await.expect("joins");
        assert_eq!(order.open(3, "a").await.expect("applied"), Ok(()));
        assert_eq!(order.placed(1).await.expect("applied"), Ok(Ok(2)));
        let began = tokio::time::Instant::now();
        let leader = order.group().leader().expect("there is one");
        let index = (0..3).find(|index| cluster.network::<Desk>(*index).local().id() == leader);
        cluster.kill::<Desk>(index.expect("a desk leads"));
        let expired = async || order.stage().strong().await.is_ok_and(|stage| stage == Stage::Expired);
        let deadline = began + Duration::from_mins(1);
        while !expired().await {
            assert!(tokio::time::Instant::now() < deadline, "never expired");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let took = began.elapsed();
        assert!(Duration::from_secs(29) < took && took < Duration::from_secs(45), "{took:?}");
        assert_eq!(order.placed(1).await.expect("applied"), Err(NoTransition::None { state: Stage::Expired }));
        cluster.stop().await.expect("stops");
    });
}

/// Whom nobody opens expires as well: the time in the first state begins with the first leader.
#[test]
fn the_first_state_has_a_time_out_too() {
    Sim::run(8, |sim| async move {
        let cluster = Cluster::<Trading>::in_sim(&sim).with::<Desk>(3).start().await.expect("starts");
        cluster.converged().await.expect("as declared");
        let order = cluster.client::<Order>().await.expect("joins");
        let began = tokio::time::Instant::now();
        while order.stage().strong().await.ok() != Some(Stage::Expired) {
            assert!(began.elapsed() < Duration::from_secs(90), "never expired");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(began.elapsed() > Duration::from_secs(50), "{:?}", began.elapsed());
        cluster.stop().await.expect("stops");
    });
}

mod commands_with_methods {
    use super::*;

    /// What is done to a lamp.
    #[derive(Serialize, Deserialize, StateMachine)]
    #[state_machine(machine = Lamp, output = u32, query = (), answer = bool, version = 2)]
    pub enum Switch {
        Off,
        Dim(u32, u32),
        #[state_machine(context)]
        Stamp {
            note: String,
        },
        Move,
    }

    #[derive(Default, Clone, Serialize, Deserialize)]
    #[mosaik::group(name = "states.lamp", key = env("STATES_TEST_KEY"))]
    pub struct Lamp {
        level: u32,
        note: String,
    }

    impl Lamp {
        fn off(&mut self) -> u32 {
            self.level = 0;
            self.level
        }

        fn dim(&mut self, by: u32, times: u32) -> u32 {
            self.level += by * times;
            self.level
        }

        fn stamp(&mut self, note: String, ctx: &ApplyContext) -> u32 {
            self.note = format!("{note} {}", ctx.index());
            self.level
        }

        fn r#move(&mut self) -> u32 {
            self.level + 1
        }

        fn on_query(&self, (): ()) -> bool {
            self.level > 0
        }
    }

    #[test]
    fn each_command_has_its_method() {
        let mut lamp = Lamp::default();
        assert_eq!(lamp.apply(Switch::Dim(2, 3), &at(1)), 6);
        assert_eq!(lamp.apply(Switch::Stamp { note: "x".into() }, &at(9)), 6);
        assert_eq!((lamp.apply(Switch::Move, &at(9)), lamp.note.as_str()), (7, "x 9"));
        assert!(lamp.query(()));
        assert_eq!(lamp.apply(Switch::Off, &at(10)), 0);
        assert_eq!((Lamp::VERSION, Lamp::MACHINE.group.name), (2, "states.lamp"));
    }
}
