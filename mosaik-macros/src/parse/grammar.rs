//! What may stand in the brackets of each attribute: the one table that parsing, "valid keys", "did you mean" and
//! "that key belongs to" are all read from.

/// What a key's value looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The key alone.
    Flag,
    /// A string literal.
    Text,
    /// The key alone or any expression.
    FlagOrExpr,
    /// Any expression.
    Expr,
    /// A closure, or the path of a function.
    Function,
    /// What is kept for late joiners.
    Retain,
    /// A string literal or a list of them: roles and grants of which one is needed.
    Grants,
    /// A string literal or a list of them: labels.
    Labels,
    /// `[a, b]` of expressions.
    Exprs,
    /// A type.
    Type,
    /// `[A, B]` of types.
    Types,
    /// A path, such as `crate::reexports::mosaik`.
    Path,
    /// `(version, function)`: what takes the state of an earlier version over. May be given for several versions.
    Migration,
    /// One identifier.
    Word,
    /// One identifier, or two with a dot between them.
    Member,
    /// `key in ..`, `key prefix ..` or `key range ..`: which items are asked for.
    Filter,
    /// An option of an endpoint: an expression that [`options`](super::options) looks into. This is how it is written.
    Setting(&'static str),
}

impl Kind {
    /// How a correct use of the key looks, for messages.
    pub(crate) fn usage(self, key: &str) -> String {
        match self {
            Self::Flag => format!("`{key}`"),
            Self::Text => format!("`{key} = \"..\"`"),
            Self::FlagOrExpr => format!("`{key}` or `{key} = <value>`"),
            Self::Expr if key == "key" => String::from("`key = env(\"VARIABLE\")`"),
            Self::Expr => format!("`{key} = <value>`"),
            Self::Function => format!("`{key} = |item| item.field` or `{key} = path::to::function`"),
            Self::Retain => format!(
                "`{key} = last(100)`, `last_per_key(1)`, `keyframe(path::to::function)` or `window(\"64MiB\", \"30s\")`"
            ),
            Self::Grants => format!("`{key} = \"builder\"` or `{key} = [\"builder\", \"relay\"]`"),
            Self::Labels => format!("`{key} = \"private\"` or `{key} = [\"private\", \"secret\"]`"),
            Self::Exprs if key == "terminal" => String::from("`terminal = [Filled, Cancelled]`"),
            Self::Exprs => format!("`{key} = [\"..\"]`"),
            Self::Type => format!("`{key} = Type`"),
            Self::Migration => format!("`{key}(1, up)` with `fn up(old: Old) -> Self`"),
            Self::Types => format!("`{key} = [TypeA, TypeB]`"),
            Self::Path => format!("`{key} = path::to::it`"),
            Self::Word if matches!(key, "state" | "since") => format!("`{key} = <name of a field of the machine>`"),
            Self::Word | Self::Member => format!("`{key} = <name>`"),
            Self::Filter => {
                format!("`{key} = key in [1, 2]`, `{key} = key prefix \"eu.\"` or `{key} = key range 10..20`")
            }
            Self::Setting(usage) => usage.to_owned(),
        }
    }
}

/// One key of an attribute.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// One attribute: what it is called, its value without a key (if it takes one) and its keys.
pub(crate) struct Attribute {
    pub(crate) name: &'static str,
    pub(crate) first: Option<Key>,
    pub(crate) keys: &'static [Key],
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind }
}

pub(crate) const STREAM: Attribute = Attribute {
    name: "#[mosaik::stream]",
    first: None,
    keys: &[
        key("name", Kind::Text),
        key("of", Kind::Type),
        key("key", Kind::Function),
        key("retain", Kind::Retain),
        key("codec", Kind::Text),
        key("evolve", Kind::Text),
        key("replicated", Kind::Setting("`replicated = true`")),
        key("produce", Kind::Grants),
        key("consume", Kind::Grants),
        key("label", Kind::Text),
        key("owner", Kind::Type),
        key("serde", Kind::Word),
        key("crate", Kind::Path),
    ],
};

pub(crate) const NODE: Attribute = Attribute {
    name: "#[mosaik::node]",
    first: None,
    keys: &[
        key("name", Kind::Text),
        key("tags", Kind::Exprs),
        key("clears", Kind::Labels),
        key("attest", Kind::Text),
        key("crate", Kind::Path),
    ],
};

/// On a field of a role: where its value comes from, or how its endpoint is set up. The names are those of the builders'
/// methods, without `with_`.
pub(crate) const FIELD: Attribute = Attribute {
    name: "#[mosaik(..)]",
    first: None,
    keys: &[
        key("arg", Kind::Flag),
        key("default", Kind::FlagOrExpr),
        key("only_if", Kind::Setting("`only_if = flag` or `only_if = Self::wanted(flag)`")),
        key("accept_if", Kind::Setting(PREDICATE)),
        key("online_when", Kind::Setting("`online_when = \"2 with tag eu\"` or `online_when = |c| c.minimum_of(2)`")),
        key("max_consumers", Kind::Setting("`max_consumers = 4`")),
        key("egress", Kind::Setting("`egress = \"8MiB/s\"`")),
        key("buffer", Kind::Setting(BUFFER)),
        key("on_lag", Kind::Setting("`on_lag = disconnect`, `drop_oldest`, `conflate` or `block(\"500ms\")`")),
        key("replay", Kind::Setting(BUFFER)),
        key("replay_pace", Kind::Setting("`replay_pace = \"16MiB/s\"`")),
        key("lifespan", Kind::Setting("`lifespan = \"1s\"`")),
        key("retain", Kind::Retain),
        key("key", Kind::Function),
        key("undelivered", Kind::Setting("`undelivered = Self::back` with `fn back(&mut self, item: T)`")),
        key("subscribe_if", Kind::Setting(PREDICATE)),
        key("deadline", Kind::Setting("`deadline = \"5s\"`")),
        key("backoff", Kind::Setting("`backoff = \"50ms..2s\"`")),
        key("live_only", Kind::Flag),
        key("state", Kind::Setting("`state = <value>`: what the store begins with")),
        key("prefer", Kind::Setting(PREFER)),
        key("fanin", Kind::Setting("`fanin = 2`")),
        key("standby", Kind::Setting("`standby = 1`")),
        key("filter", Kind::Filter),
        key("role", Kind::Setting("`role = voter`, `reluctant` or `observer`")),
        key("timing", Kind::Setting("`timing = lan` or an expression of type `Timing`")),
        key("log_limit", Kind::Setting("`log_limit = \"64MiB\"`")),
        key("declassify", Kind::Setting("`declassify = \"why this may be passed on\"`")),
    ],
};

const PREDICATE: &str = "a function of a peer: `Self::may_read`, `|peer| peer.tags().contains(\"eu\")`, or `Self::may_read(flag)` \
                         with fields that it also takes";
const PREFER: &str =
    "`prefer = latency`, `zone`, `tag(\"gold\")` or `by(Self::rank)`, or several in their order: `[zone, latency]`";
const BUFFER: &str = "`\"4MiB\"`, `\"1024 items\"` or `\"1024 items, 4MiB\"`";

pub(crate) const HANDLERS: Attribute =
    Attribute { name: "#[mosaik::handlers]", first: None, keys: &[key("crate", Kind::Path)] };

pub(crate) const ON: Attribute = Attribute {
    name: "#[on(..)]",
    first: Some(key("field", Kind::Member)),
    keys: &[
        key("after", Kind::Text),
        key("concurrency", Kind::Setting("`concurrency = 8`: how many calls may share the role, 2 to 1024")),
        EMIT,
        ON_ERROR,
        ONCE,
    ],
};

pub(crate) const EVERY: Attribute =
    Attribute { name: "#[every(..)]", first: Some(key("period", Kind::Text)), keys: &[EMIT, ON_ERROR, ONCE] };

pub(crate) const START: Attribute = Attribute { name: "#[start]", first: None, keys: &[EMIT] };

pub(crate) const STOP: Attribute = Attribute { name: "#[stop]", first: None, keys: &[EMIT] };

pub(crate) const READY: Attribute = Attribute { name: "#[ready]", first: None, keys: &[] };

const EMIT: Key = key("emit", Kind::Word);
const ONCE: Key = key("once", Kind::Type);
const ON_ERROR: Key = key("on_error", Kind::Setting("`on_error = log`, `on_error = restart` or `on_error = stop`"));

pub(crate) const GROUP: Attribute = Attribute {
    name: "#[mosaik::group]",
    first: None,
    keys: &[
        key("name", Kind::Text),
        key("key", Kind::Expr),
        key("size", Kind::Expr),
        key("initial", Kind::Expr),
        key("member", Kind::Grants),
        key("call", Kind::Grants),
        key("label", Kind::Text),
        key("crate", Kind::Path),
    ],
};

pub(crate) const STATE_MACHINE: Attribute = Attribute {
    name: "#[mosaik::state_machine]",
    first: None,
    keys: &[
        key("version", Kind::Expr),
        key("snapshots", Kind::Expr),
        key("migrate_from", Kind::Migration),
        key(
            "states",
            Kind::Setting("`states = Stage { Open, Filled }`: an enum and its variants, where it begins first"),
        ),
        key("state", Kind::Word),
        key("since", Kind::Word),
        key("terminal", Kind::Exprs),
        key("crate", Kind::Path),
    ],
};

/// On the struct of a machine that is written by hand, or on the enum of its commands.
pub(crate) const DERIVED: Attribute = Attribute {
    name: "#[state_machine(..)]",
    first: None,
    keys: &[
        key("machine", Kind::Type),
        key("command", Kind::Type),
        key("output", Kind::Type),
        key("query", Kind::Type),
        key("answer", Kind::Type),
        key("version", Kind::Expr),
        key("snapshots", Kind::Expr),
        key("migrate_from", Kind::Migration),
        key("crate", Kind::Path),
    ],
};

/// On the impl of a state.
pub(crate) const STORE: Attribute = Attribute {
    name: "#[mosaik::store]",
    first: None,
    keys: &[
        key("name", Kind::Text),
        key("version", Kind::Expr),
        key("evolve", Kind::Text),
        key("primary", Kind::Grants),
        key("replica", Kind::Grants),
        key("label", Kind::Text),
        key("owner", Kind::Type),
        key("crate", Kind::Path),
    ],
};

pub(crate) const COMMAND: Attribute = Attribute { name: "#[command]", first: None, keys: &[] };

pub(crate) const QUERY: Attribute = Attribute { name: "#[query]", first: None, keys: &[] };

/// Behind `From -> To`.
pub(crate) const TRANSITION: Attribute = Attribute {
    name: "#[transition(..)]",
    first: None,
    keys: &[
        key("if", Kind::Setting("`if = Self::enough` or `if = !Self::enough`, with `fn enough(&self, ..) -> bool`")),
        key("after", Kind::Text),
    ],
};

/// On a variant of the enum of commands.
pub(crate) const VARIANT: Attribute =
    Attribute { name: "#[state_machine(..)] on a variant", first: None, keys: &[key("context", Kind::Flag)] };

/// On a command, on a field of a machine, or on a function of a store.
pub(crate) const EXCUSE: Attribute = Attribute {
    name: "#[mosaik(..)] in a machine or a store",
    first: None,
    keys: &[key("nondeterministic", Kind::Text)],
};

pub(crate) const APP: Attribute = Attribute {
    name: "#[mosaik::app]",
    first: None,
    keys: &[key("name", Kind::Text), key("roles", Kind::Types), key("crate", Kind::Path)],
};

pub(crate) const MAIN: Attribute = Attribute {
    name: "#[mosaik::main]",
    first: None,
    keys: &[key("name", Kind::Text), key("tags", Kind::Exprs), key("crate", Kind::Path)],
};

pub(crate) const TEST: Attribute = Attribute {
    name: "#[mosaik::test]",
    first: None,
    keys: &[
        key("seeds", Kind::Expr),
        key("faults", Kind::Setting("`faults = [kill, partition, pause]`")),
        key("with", Kind::Setting("`with = [Sensor = 3, Display = 2]`")),
        key("durable", Kind::Flag),
        key("crate", Kind::Path),
    ],
};

/// All of them, to tell where a misplaced key belongs.
pub(crate) const ALL: &[&Attribute] = &[
    &STREAM,
    &NODE,
    &FIELD,
    &HANDLERS,
    &ON,
    &EVERY,
    &START,
    &STOP,
    &READY,
    &GROUP,
    &STATE_MACHINE,
    &DERIVED,
    &STORE,
    &COMMAND,
    &QUERY,
    &TRANSITION,
    &VARIANT,
    &EXCUSE,
    &APP,
    &MAIN,
    &TEST,
];
