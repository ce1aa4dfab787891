//! The real binary as a process: started, listened to, signalled, killed.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Condvar, Mutex, mpsc},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Longer than anything here takes on a busy machine; a wait that reaches it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// The `clocher` this test run was built with.
pub(crate) fn clocher() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clocher"));
    command.env("LC_ALL", "C");
    command
}

/// Runs it to its end.
pub(crate) fn run_to_end(arguments: &[&str]) -> Output {
    clocher().args(arguments).output().expect("the binary starts")
}

type Heard = Arc<(Mutex<Vec<String>>, Condvar)>;

/// A `clocher` at work.
pub(crate) struct Running {
    child: Child,
    heard: Heard,
}

impl Running {
    /// Starts it and listens to what it says on standard output and error.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .env("CLOCHER_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let heard = Heard::default();
        listen(child.stdout.take().expect("piped"), Arc::clone(&heard));
        listen(child.stderr.take().expect("piped"), Arc::clone(&heard));
        Self { child, heard }
    }

    /// Starts a gateway on a file.
    pub(crate) fn gateway(config: &Path) -> Self {
        let mut command = clocher();
        command.arg("run").arg("--config").arg(config);
        Self::start(command)
    }

    /// Waits for a line that holds `text`; gives the line.
    pub(crate) fn line(&self, text: &str) -> String {
        self.nth_line(text, 1)
    }

    /// Waits for the `n`th line that holds `text`.
    pub(crate) fn nth_line(&self, text: &str, n: usize) -> String {
        let until = Instant::now() + PATIENCE;
        let (lines, more) = &*self.heard;
        let mut lines = lines.lock().expect("not poisoned");
        loop {
            if let Some(found) = lines.iter().filter(|line| line.contains(text)).nth(n - 1) {
                return found.clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line {n} with {text:?}; heard:\n{}", lines.join("\n"));
            lines = more.wait_timeout(lines, left).expect("not poisoned").0;
        }
    }

    /// Waits for a line such as `Panel ready address=127.0.0.1:43211` and gives the address.
    pub(crate) fn address(&self, text: &str) -> SocketAddr {
        let line = self.line(text);
        let field = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
        field.and_then(|field| field.parse().ok()).unwrap_or_else(|| panic!("no address in {line:?}"))
    }

    /// All it said so far.
    pub(crate) fn said(&self) -> String {
        self.heard.0.lock().expect("not poisoned").join("\n")
    }

    /// As a power cut would: no goodbye.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal and goes on.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal).expect("it runs");
    }

    /// Asks it to stop and waits; gives how long it took, whether it ended well, and all it said.
    pub(crate) fn stop(mut self, signal: Signal) -> (Duration, bool, String) {
        let asked = Instant::now();
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).expect("it runs");
        let (ended, done) = mpsc::channel::<()>();
        // A gateway that does not stop is killed, and its exit code fails the test.
        let guard = std::thread::spawn(move || {
            if done.recv_timeout(PATIENCE).is_err_and(|e| e == mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let status = self.child.wait().expect("it ends");
        let took = asked.elapsed();
        drop(ended);
        guard.join().expect("no panic");
        (took, status.success(), self.said())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(from: impl std::io::Read + Send + 'static, heard: Heard) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            heard.0.lock().expect("not poisoned").push(line);
            heard.1.notify_all();
        }
    });
}
