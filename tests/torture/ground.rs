//! Where the processes of a job under torture run: in a network of their own, with their checkpoints on a small disk of their
//! own, so that cutting, slowing and filling them harms nobody else.
//!
//! Both are namespaces that hang on one process (the holder), which ends when its standard input closes. What this user has no
//! right to is left out, with the reason, and the faults that need it are not run.
//!
//! Invariant: no link and no disk outlives the test process, however that ends.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Room for checkpoints: far more than the job needs, and little enough to be filled at once.
const DISK: &str = "size=192m";
/// Makes the disk in the holder's mount namespace, says so, and stays until standard input closes.
const HOLDER: &str = r#"
    if mount -t tmpfs -o "$1" tmpfs "$0"; then echo disk; fi
    if ip link set lo up; then echo network; fi
    echo ready
    read -r
"#;

/// A cable between the job and the broker.
pub(super) struct Cable {
    /// Our end, and the broker's address.
    host: Ipv4Addr,
    outer: String,
    inner: String,
}

/// The ground of one job.
pub(super) struct Ground {
    folder: TempDir,
    holder: Option<(Child, ChildStdin)>,
    disk: Result<(), String>,
    cable: Result<Cable, String>,
}

impl Ground {
    /// As much of it as this user may have.
    pub(super) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("waterwheel-torture-").tempdir().expect("a temporary folder");
        let mut ground = Ground { folder, holder: None, disk: Err(String::new()), cable: Err(String::new()) };
        match ground.hold() {
            Ok(()) => {}
            Err(why) => (ground.disk, ground.cable) = (Err(why.clone()), Err(why)),
        }
        ground
    }

    fn hold(&mut self) -> Result<(), String> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--propagation", "private", "bash", "-c", HOLDER]).arg(self.folder.path()).arg(DISK);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
        let (lifeline, said) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let pid = child.id();
        self.holder = Some((child, lifeline));
        let mut has: Vec<String> = Vec::new();
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            if line == "ready" {
                let lacks =
                    |what: &str| if has.iter().any(|h| h == what) { Ok(()) } else { Err(format!("no right to a {what} of its own")) };
                self.disk = lacks("disk");
                self.cable = lacks("network").and_then(|()| Cable::lay(pid));
                return Ok(());
            }
            has.push(line);
        }
        self.holder = None;
        Err("no right to namespaces of its own".into())
    }

    fn pid(&self) -> Option<u32> {
        self.holder.as_ref().map(|(child, _)| child.id())
    }

    /// The folder of checkpoints, as the job sees it.
    pub(super) fn checkpoints(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of checkpoints, as we see it.
    fn seen_from_here(&self) -> PathBuf {
        match (self.pid(), &self.disk) {
            (Some(pid), Ok(())) => Path::new(&format!("/proc/{pid}/root")).join(self.folder.path().strip_prefix("/").expect("absolute")),
            _ => self.folder.path().to_owned(),
        }
    }

    /// The address that a broker must have for the job to reach it.
    pub(super) fn host(&self) -> String {
        self.cable.as_ref().map_or_else(|_| Ipv4Addr::LOCALHOST, |cable| cable.host).to_string()
    }

    /// The same command, to be started inside.
    pub(super) fn enter(&self, command: &Command) -> Command {
        let Some(pid) = self.pid() else { return copy(command, Command::new(command.get_program())) };
        let mut entered = Command::new("nsenter");
        entered.args(["--target", &pid.to_string()]);
        if self.cable.is_ok() {
            entered.arg("--net");
        }
        if self.disk.is_ok() {
            entered.arg("--mount");
        }
        if let Some(folder) = command.get_current_dir() {
            entered.arg(format!("--wd={}", folder.display()));
        }
        entered.arg("--").arg(command.get_program());
        copy(command, entered)
    }

    /// Why there is no disk to fill, if there is none.
    pub(super) fn lacks_disk(&self) -> Option<String> {
        self.disk.as_ref().err().cloned()
    }

    /// Why there is no cable to cut, if there is none.
    pub(super) fn lacks_cable(&self) -> Option<String> {
        self.cable.as_ref().err().cloned()
    }

    /// Fills the disk to its last byte, until what is given back is dropped.
    pub(super) fn fill_disk(&self) -> Ballast {
        use std::io::Write;
        let path = self.seen_from_here().join("ballast");
        let mut file = std::fs::File::create(&path).expect("a file on the job's disk");
        for chunk in [1 << 20, 4 << 10] {
            let zeros = vec![0; chunk];
            while file.write_all(&zeros).is_ok() {}
        }
        Ballast(path)
    }

    /// Lets nobody make or remove a file below the job's folder, or again anybody; `false` without the right to.
    pub(super) fn set_read_only(&self, yes: bool) -> bool {
        let flag = if yes { "+i" } else { "-i" };
        let job = self.seen_from_here().join("fraud");
        // Twice: the job makes folders while we look, and of those that vanish there is nothing to say.
        let change = || Command::new("find").arg(&job).args(["-type", "d", "-exec", "chattr", flag, "{}", "+"]).output();
        let _ = change().expect("find starts");
        let _ = change().expect("find starts");
        let probe = job.join("probe");
        let made = std::fs::write(&probe, "").is_ok();
        let _ = std::fs::remove_file(&probe);
        made != yes
    }

    /// The cable.
    pub(super) fn cable(&self) -> Option<(&Cable, u32)> {
        Some((self.cable.as_ref().ok()?, self.pid()?))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some((mut child, lifeline)) = self.holder.take() {
            drop(lifeline);
            let _ = child.wait();
        }
    }
}

/// What fills a disk. Dropped, there is room again.
pub(super) struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Arguments and variables of one command for another.
fn copy(from: &Command, mut to: Command) -> Command {
    to.args(from.get_args());
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
    if let Some(folder) = from.get_current_dir() {
        to.current_dir(folder);
    }
    to
}

fn run(program: &str, line: &str) -> Result<(), String> {
    let output = Command::new(program).args(line.split(' ')).output().map_err(|e| format!("{program} does not start: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program} {line}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

impl Cable {
    fn lay(pid: u32) -> Result<Cable, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        // Networks of four addresses, out of the range for such tests between two devices.
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (std::process::id() % 4_096 * 4 + nth) % 16_384 * 4;
        let (host, job) = (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2));
        let own = format!("{:x}", base & 0x1_FFFF);
        let cable = Cable { host, outer: format!("wwt{own}"), inner: "job".into() };
        run("ip", &format!("link add {} type veth peer name {} netns {pid}", cable.outer, cable.inner))?;
        run("ip", &format!("address add {host}/30 dev {}", cable.outer))?;
        run("ip", &format!("link set {} up", cable.outer))?;
        cable.inside(pid, &format!("ip address add {job}/30 dev {}", cable.inner))?;
        cable.inside(pid, &format!("ip link set {} up", cable.inner))?;
        Ok(cable)
    }

    fn inside(&self, pid: u32, line: &str) -> Result<(), String> {
        run("nsenter", &format!("--target {pid} --net {line}"))
    }

    /// Pulls the cable out at the job's end: new connections are refused there, open ones hear nothing.
    pub(super) fn pull(&self, pid: u32) -> Result<(), String> {
        self.inside(pid, &format!("ip link set {} down", self.inner))
    }

    /// Puts it back in.
    pub(super) fn plug(&self, pid: u32) -> Result<(), String> {
        self.inside(pid, &format!("ip link set {} up", self.inner))
    }

    /// Swallows all that either end sends, without a word.
    pub(super) fn swallow(&self, pid: u32) -> Result<(), String> {
        // No packet is as small as this bucket, so none ever passes.
        self.shape(pid, "rate 8bit burst 10 limit 1")
    }

    /// Lets so many kilobits a second through, each way.
    pub(super) fn slow(&self, pid: u32, kilobits: u64) -> Result<(), String> {
        self.shape(pid, &format!("rate {kilobits}kbit burst 32kb latency 400ms"))
    }

    fn shape(&self, pid: u32, how: &str) -> Result<(), String> {
        self.inside(pid, &format!("tc qdisc replace dev {} root tbf {how}", self.inner))?;
        run("tc", &format!("qdisc replace dev {} root tbf {how}", self.outer))
    }

    /// As it was laid.
    pub(super) fn restore(&self, pid: u32) -> Result<(), String> {
        self.inside(pid, &format!("tc qdisc del dev {} root", self.inner))?;
        run("tc", &format!("qdisc del dev {} root", self.outer))
    }
}
