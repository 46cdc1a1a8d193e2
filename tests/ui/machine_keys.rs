//! The keys of the attributes of groups and machines.

macro_rules! machine {
    ($($ty:ident)*) => { $(
        #[mosaik::state_machine]
        impl $ty {
            #[command]
            fn touch(&mut self) {}
        }
    )* };
}

#[derive(Default)]
#[mosaik::group]
struct NoKey;

#[derive(Default)]
#[mosaik::group(key = "hunter2")]
struct PlainText;

#[derive(Default)]
#[mosaik::group(key = env(), size = 0)]
struct NoVariable;

#[derive(Default)]
#[mosaik::group(key = env(5), size = "3")]
struct Number;

#[derive(Default)]
#[mosaik::group(key = secret("s3cret"), sise = 3, members = 5)]
struct Unknown;

#[derive(Default)]
#[mosaik::group(key = env("KEY"), version = 1, tags = ["a"])]
struct Misplaced;

#[derive(Default)]
#[mosaik::group(name = " ", key = env("KEY"), size = -1)]
struct Unnamed;

machine!(NoKey PlainText NoVariable Number Unknown Misplaced Unnamed);

#[derive(Default)]
#[mosaik::group(name = "versions", key = env("KEY"))]
struct Versions;

#[mosaik::state_machine(version = "1", name = "x")]
impl Versions {
    #[command(name = "y")]
    fn touch(&mut self) {}

    #[query = "z"]
    fn look(&self) {}
}

fn main() {}
