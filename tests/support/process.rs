//! A child process that never outlives the tests.

use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use std::{io, thread};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::wait::eventually;

/// A running child. It is killed when dropped, and by the kernel when the test process dies in whatever way.
pub struct Process {
    name: String,
    child: Mutex<Child>,
}

impl Process {
    /// Starts the command. `name` is for messages.
    pub fn spawn(name: &str, command: Command) -> Self {
        let child = spawn(command).unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self {
            name: name.to_owned(),
            child: Mutex::new(child),
        }
    }

    pub fn pid(&self) -> u32 {
        self.lock().id()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.lock().try_wait().expect("the child is ours to wait for")
    }

    /// # Panics
    /// When the process has ended: its id may be another's by now.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.lock();
        let ended = child.try_wait().expect("the child is ours to wait for");
        assert!(
            ended.is_none(),
            "{signal:?} for {}, which has ended: {ended:?}",
            self.name
        );
        kill_process(Pid::from_child(&child), signal).expect("a signal reaches a child that is not waited for yet");
    }

    /// Sends a signal that ends it, and waits for its end.
    pub fn end(&self, signal: Signal) {
        self.signal(signal);
        self.lock().wait().expect("the child is ours to wait for");
    }

    /// Kills it with SIGKILL and waits for its end. Does nothing when it has ended.
    pub fn kill(&self) {
        let mut child = self.lock();
        child.kill().expect("a child can be killed");
        child.wait().expect("the child is ours to wait for");
    }

    /// Waits until it has ended.
    pub async fn wait(&self, limit: Duration) -> ExitStatus {
        eventually(&format!("the end of {}", self.name), limit, async || self.ended()).await
    }

    /// The read ends of its piped standard output and error, once.
    pub fn take_output(&self) -> (ChildStdout, ChildStderr) {
        let mut child = self.lock();
        let output = child.stdout.take().zip(child.stderr.take());
        output.expect("both streams are piped and not taken yet")
    }

    fn lock(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

type Order = (Command, Sender<io::Result<Child>>);

/// Starts the command from a thread that lives as long as the test process.
///
/// The kernel's death signal is sent when the *thread* that started the child ends, and each test is a thread.
fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // The asking test may have panicked meanwhile; then the child is killed by its own drop.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    // SAFETY: between fork and exec only a system call is made, which neither allocates nor locks.
    #[expect(
        unsafe_code,
        reason = "the standard library has no safe way to have a child end with its parent"
    )]
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let (answer, child) = channel();
    spawner.send((command, answer)).expect("the spawner never ends");
    child.recv().expect("the spawner answers each order")
}
