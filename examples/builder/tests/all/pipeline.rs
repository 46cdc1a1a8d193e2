//! A whole pipeline as processes on this machine: three members of the pool, three intakes, and whoever watches. All of them are
//! killed when it is dropped.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const BUILDER: &str = env!("CARGO_BIN_EXE_builder");
const KEY: &str = "0123456789abcdef0123456789abcdef";
/// For everything, on a machine that has other work to do.
pub const SOON: Duration = Duration::from_mins(1);

/// Waits until there is something.
pub fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A process, and what it has printed so far.
pub struct Process {
    child: Child,
    stdout: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn start(args: &[&str], bootstrap: &[String]) -> Self {
        let mut command = Command::new(BUILDER);
        command.arg("run").args(args);
        bootstrap.iter().for_each(|contact| _ = command.args(["--bootstrap", contact]));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MOSAIK_")) {
            command.env_remove(name);
        }
        command.env("BUILDER_KEY", KEY).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let (stdout, stderr) = (lines(child.stdout.take()), lines(child.stderr.take()));
        Self { child, stdout, stderr }
    }

    /// The last line on stderr that begins like this, without that.
    fn said(&self, begin: &str) -> Option<String> {
        let lines = self.stderr.lock().expect("no panic");
        lines.iter().rev().find_map(|line| line.strip_prefix(begin)).map(str::to_owned)
    }

    /// What it has printed, as JSON.
    pub fn printed(&self) -> Vec<Value> {
        let lines = self.stdout.lock().expect("no panic");
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }

    /// Ends it with SIGKILL; returns when it is gone.
    fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("a child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("a process said:\n{}", self.stderr.lock().expect("no panic").join("\n"));
        }
    }
}

fn lines(stream: Option<impl Read + Send + 'static>) -> Arc<Mutex<Vec<String>>> {
    let (stream, lines) = (BufReader::new(stream.expect("piped")), Arc::default());
    let kept: Arc<Mutex<Vec<String>>> = Arc::clone(&lines);
    thread::spawn(move || {
        stream.lines().map_while(Result::ok).for_each(|line| kept.lock().expect("no panic").push(line));
    });
    lines
}

/// The running pipeline.
pub struct Pipeline {
    pools: Vec<Process>,
    intakes: Vec<Process>,
    places: Vec<Place>,
    dir: tempfile::TempDir,
}

/// Where a member of the pool is found.
struct Place {
    secret: String,
    listen: SocketAddr,
    contact: String,
}

impl Place {
    fn new(number: usize) -> Self {
        let secret = format!("{:064x}", 0xb1d + number);
        let output = Command::new(BUILDER).args(["id", "--secret", &secret]).output().expect("starts");
        let id = String::from_utf8(output.stdout).expect("text");
        let listen = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        Self { secret, listen, contact: format!("{}@{listen}", id.trim()) }
    }
}

impl Pipeline {
    pub fn start() -> Self {
        let places = (0..3).map(Place::new).collect();
        let dir = tempfile::tempdir().expect("a directory");
        let mut pipeline = Self { pools: Vec::new(), intakes: Vec::new(), places, dir };
        pipeline.pools = (0..3).map(|number| pipeline.pool(number)).collect();
        let contacts = pipeline.contacts();
        let intake = |_| Process::start(&["intake", "--rpc", "127.0.0.1:0"], &contacts);
        pipeline.intakes = (0..3).map(intake).collect();
        pipeline
    }

    fn contacts(&self) -> Vec<String> {
        self.places.iter().map(|place| place.contact.clone()).collect()
    }

    fn pool(&self, number: usize) -> Process {
        let place = &self.places[number];
        let (dir, listen): (PathBuf, _) = (self.dir.path().join(number.to_string()), place.listen.to_string());
        let dir = dir.to_str().expect("text");
        let others: Vec<_> = self.contacts().into_iter().filter(|contact| *contact != place.contact).collect();
        Process::start(&["pool", "--secret", &place.secret, "--listen", &listen, "--data-dir", dir], &others)
    }

    /// Starts somebody who watches.
    pub fn watch(&self, args: &[&str]) -> Process {
        Process::start(&[&["watch"], args].concat(), &self.contacts())
    }

    /// The member that leads, once there is one.
    pub fn leader(&self) -> usize {
        let leads = |pool: &Process| pool.said("group pool: ").is_some_and(|it| it.starts_with("leader in term"));
        wait("a leader", || self.pools.iter().position(leads))
    }

    /// Kills a member with SIGKILL and starts it again.
    pub fn kill(&mut self, number: usize) {
        self.pools[number].kill();
        self.pools[number] = self.pool(number);
    }

    /// Kills all members.
    pub fn kill_all(&mut self) {
        self.pools.iter_mut().for_each(Process::kill);
    }

    /// Starts all members again.
    pub fn restart_all(&mut self) {
        self.pools = (0..3).map(|number| self.pool(number)).collect();
    }

    /// The addresses of the intakes.
    pub fn rpcs(&self) -> Vec<Rpc> {
        let address = |intake: &Process| wait("an intake", || intake.said("rpc "));
        self.intakes.iter().map(|intake| Rpc(address(intake).parse().expect("an address"))).collect()
    }
}

/// The server of an intake.
#[derive(Clone, Copy)]
pub struct Rpc(SocketAddr);

impl Rpc {
    /// The answer to a body; empty when there is none.
    pub fn post(self, body: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.0)?;
        stream.set_read_timeout(Some(SOON))?;
        let length = body.len();
        write!(stream, "POST / HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(body.to_owned())
    }

    /// The result of one call, or its error.
    pub fn call(self, method: &str, params: &Value) -> Result<Value, Value> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        outcome(&parse(&self.post(&request.to_string()).expect("answers")))
    }

    /// The results of a batch of transactions, in their order.
    pub fn batch(self, raw: &[String]) -> Vec<Result<Value, Value>> {
        let request =
            |(id, raw)| json!({"jsonrpc": "2.0", "id": id, "method": "eth_sendRawTransaction", "params": [raw]});
        let batch: Value = raw.iter().enumerate().map(request).collect();
        let answers = parse(&self.post(&batch.to_string()).expect("answers"));
        let of = |id: usize| answers.as_array().and_then(|all| all.iter().find(|answer| answer["id"] == id));
        (0..raw.len()).map(|id| outcome(of(id).unwrap_or_else(|| panic!("no answer to {id}: {answers}")))).collect()
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn outcome(answer: &Value) -> Result<Value, Value> {
    if answer["error"].is_null() { Ok(answer["result"].clone()) } else { Err(answer["error"].clone()) }
}
