//! The workspace as cargo sees it: its root, its metadata and its programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The folder of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `cargo metadata` over all features: every package that any build on this platform could contain.
pub(crate) fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let output = cargo()
            .args(["metadata", "--format-version", "1", "--all-features"])
            .args(["--filter-platform", &host()])
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo starts");
        assert!(output.status.success(), "`cargo metadata` failed, see its message above");
        serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
    })
}

/// The path of a program of the workspace (`"fraud_detection"`, `"waterwheel"`), built from the sources as they are now.
///
/// Cargo rebuilds the programs of the tested package only, so `cargo test` alone would run stale ones.
#[allow(dead_code, reason = "for tests that run a job as a process")]
pub(crate) fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        // The features of script/test: with `--test waterwheel`, nothing is compiled a second time.
        let status = cargo()
            .args(["build", "--quiet", "--workspace", "--features", "fraud_detection/sql", "--bins", "--test", "waterwheel"])
            .status()
            .expect("cargo starts");
        assert!(status.success(), "the workspace's programs do not build, see above");
    });
    let deps = std::env::current_exe().expect("the test binary has a path");
    let profile = deps.ancestors().nth(2).expect("<target>/<profile>/deps/<test>");
    let program = profile.join(name);
    assert!(program.is_file(), "no program {} in the workspace", program.display());
    program
}

fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root());
    command
}

/// The target triple of this machine.
fn host() -> String {
    let output = cargo().arg("-vV").output().expect("cargo starts");
    let text = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("`cargo -vV` names the host").to_owned()
}
