//! Child processes that end with the process that started them, whatever ends it.
//!
//! Destructors do not run after `kill -9`, nor for statics at a normal exit, so each program runs
//! under a small shell that blocks on a pipe from this process and kills its whole process group
//! when the pipe closes: the kernel closes it in every case. `PR_SET_PDEATHSIG` would not do: it
//! fires when the spawning *thread* ends, and test harnesses spawn from short-lived threads.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Arguments: file for stdout, file for stderr, program, its arguments. Reads signal names from
/// stdin; prints the program's pid at once and its exit code at its end.
///
/// When stdin closes, the guard kills only the program, so that the shell sees it end, reports
/// that, and kills the rest of the group; the guard does so itself if the shell is gone. Lines are
/// printed by subshells because their reader may be gone, and SIGPIPE ends the process that prints.
const SUPERVISOR: &str = r#"
exec 3<&0 </dev/null
out=$1 err=$2
shift 2
"$@" >>"$out" 2>>"$err" 3<&- &
child=$!
(
    while read -r signal; do kill -s "$signal" "$child"; done
    kill -s KILL "$child"
    sleep 1
    kill -s KILL 0
) <&3 >/dev/null &
exec 3<&-
(printf '%s\n' "$child")
wait "$child"
code=$?
(printf '%s\n' "$code")
kill -s KILL 0
"#;

/// What a shell reports for a program that SIGKILL ended.
const KILLED: i32 = 128 + 9;

/// Where a program's output goes. Files are appended to.
#[derive(Clone, Debug)]
pub enum Output {
    /// stdout and stderr to one file.
    Merged(PathBuf),
    /// stdout and stderr to a file each.
    Split {
        /// File for stdout.
        stdout: PathBuf,
        /// File for stderr.
        stderr: PathBuf,
    },
}

impl Output {
    /// The file that takes stdout.
    #[must_use]
    pub fn stdout(&self) -> &Path {
        match self {
            Self::Merged(file) | Self::Split { stdout: file, .. } => file,
        }
    }

    /// The file that takes stderr.
    #[must_use]
    pub fn stderr(&self) -> &Path {
        match self {
            Self::Merged(file) | Self::Split { stderr: file, .. } => file,
        }
    }
}

/// A running (or ended) program that cannot outlive this process. Dropping it kills the program,
/// waits for its end, and kills everything it started in its process group.
#[derive(Debug)]
pub struct Supervised {
    pid: u32,
    output: Output,
    link: Arc<Link>,
}

impl Supervised {
    /// Starts `command`'s program with its arguments, environment changes and working directory.
    /// Its stdin is empty and its output goes to `output`; stdio settings and `env_clear` of
    /// `command` are not carried over, as `Command` does not expose them.
    ///
    /// A program that cannot be executed counts as ended with code 126 or 127, and the shell's
    /// message is in the stderr file.
    pub fn spawn(command: &Command, output: Output) -> io::Result<Self> {
        for file in [output.stdout(), output.stderr()] {
            OpenOptions::new().create(true).append(true).open(file)?;
        }
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", SUPERVISOR, "supervisor"])
            .args([absolute(output.stdout())?, absolute(output.stderr())?])
            .arg(command.get_program())
            .args(command.get_args())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            shell.current_dir(folder);
        }
        let mut supervisor = shell.spawn()?;
        let control = supervisor.stdin.take();
        let mut reports = BufReader::new(supervisor.stdout.take().expect("stdout is a pipe"));
        let Some(pid) = read_number(&mut reports) else {
            drop(control);
            supervisor.wait()?;
            return Err(io::Error::other(format!(
                "the supervisor of {} ended before it started it",
                command.get_program().display()
            )));
        };
        let link = Arc::new(Link {
            control: Mutex::new(control),
            code: Mutex::new(None),
            known: Condvar::new(),
        });
        thread::Builder::new().name("supervised".into()).spawn({
            let link = Arc::clone(&link);
            move || link.watch(supervisor, reports)
        })?;
        Ok(Self { pid, output, link })
    }

    /// The program's own process id, not the supervisor's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where the output goes.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Sends SIGTERM to the program; [`Self::wait`] returns once it has ended.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGKILL to the program, as `kill -9` does; [`Self::wait`] returns once it has ended.
    pub fn kill(&self) {
        self.signal("KILL");
    }

    /// Waits until the program has ended and returns its exit code (128 + n where signal n ended
    /// it, as a shell reports it), or `None` if it still runs after `timeout`.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> Option<i32> {
        self.link.wait(timeout)
    }

    /// Whether the program still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.wait(Duration::ZERO).is_none()
    }

    fn signal(&self, name: &str) {
        if let Some(control) = lock(&self.link.control).as_mut() {
            // Fails only where the supervisor is gone, and then so is the program.
            let _ = writeln!(control, "{name}");
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.link.cut();
        let _ = self.wait(Duration::from_mins(1));
    }
}

/// A figure of a process's memory in bytes: that of a line of `/proc/PID/status`, such as `VmRSS`. On Linux alone.
pub fn memory(pid: u32, line: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|found| {
        let value = found.strip_prefix(line)?.strip_prefix(':')?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other(format!("no {line} of process {pid}")))
}

/// The last `count` lines of a log file, from at most its last 64 KiB; empty if it cannot be read.
#[must_use]
pub fn last_lines(file: &Path, count: usize) -> String {
    let tail = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(file)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&tail().unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The messages between this process and the supervisor.
#[derive(Debug)]
struct Link {
    /// Signal names to send; the guard kills the group when this closes.
    control: Mutex<Option<ChildStdin>>,
    /// The exit code, once there is one.
    code: Mutex<Option<i32>>,
    known: Condvar,
}

impl Link {
    fn cut(&self) {
        drop(lock(&self.control).take());
    }

    /// Waits for the program's exit code, then for the supervisor, which kills what is left of
    /// the group. A supervisor that was killed itself reports no code: the guard does its work.
    fn watch(&self, mut supervisor: Child, mut reports: impl BufRead) {
        let code = read_number(&mut reports);
        if code.is_none() {
            self.cut();
        }
        // Reaps the shell; it cannot fail for a child that only this thread waits for.
        let _ = supervisor.wait();
        *lock(&self.code) = Some(code.unwrap_or(KILLED));
        self.known.notify_all();
    }

    fn wait(&self, timeout: Duration) -> Option<i32> {
        let code = lock(&self.code);
        let (code, _) = self
            .known
            .wait_timeout_while(code, timeout, |code| code.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        *code
    }
}

fn read_number<N: std::str::FromStr>(reports: &mut impl BufRead) -> Option<N> {
    let mut line = String::new();
    reports.read_line(&mut line).ok()?;
    line.trim().parse().ok()
}

/// The shell may start in another folder than this process.
fn absolute(file: &Path) -> io::Result<impl AsRef<OsStr> + use<>> {
    std::path::absolute(file)
}

/// A panic of another thread leaves nothing half-done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
