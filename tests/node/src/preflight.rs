//! The requirements of a node on its machine, and the report of what is missing.

use std::process::{Command, ExitCode, Stdio};

/// The exit code that means "skipped" in automake's tests: nothing failed, and nothing was tested.
const CANNOT_RUN: u8 = 77;

const PROGRAMS: [(&str, &str); 10] = [
    ("go", "golang (1.26 or newer, or from https://go.dev/dl)"),
    ("cc", "gcc libc6-dev"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("runc", "runc"),
    ("buildah", "buildah"),
    ("cksum", "coreutils"),
];

/// Each feature is tried in namespaces of its own, so the attempt leaves nothing behind.
const FEATURES: [(&str, &str); 5] = [
    ("network, mount, IPC and PID namespaces", "true"),
    ("bridges (CONFIG_BRIDGE)", "ip link add bk-try type bridge"),
    ("veth pairs (CONFIG_VETH)", "ip link add bk-try type veth peer name bk-try-2"),
    (
        "nftables with NAT (CONFIG_NF_TABLES, CONFIG_NFT_NAT)",
        "nft 'add table ip t; add chain ip t c { type nat hook output priority -100; }; \
         add rule ip t c ip daddr 192.0.2.1 tcp dport 1 dnat to 192.0.2.2:2'",
    ),
    (
        "overlay file systems (CONFIG_OVERLAY_FS)",
        "mount -t tmpfs none /mnt && mkdir /mnt/1 /mnt/2 /mnt/3 /mnt/4 && \
         mount -t overlay none -o lowerdir=/mnt/1,upperdir=/mnt/2,workdir=/mnt/3 /mnt/4",
    ),
];

/// Prints what is missing. The exit code is 77 if anything is missing.
pub(crate) fn run() -> ExitCode {
    let missing = missing();
    for line in &missing {
        eprintln!("{line}");
    }
    if missing.is_empty() {
        eprintln!("this machine can run a node");
        return ExitCode::SUCCESS;
    }
    eprintln!("this machine cannot run a node: nothing was run, and nothing is shown by it");
    ExitCode::from(CANNOT_RUN)
}

pub(crate) fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("missing: root (a node makes namespaces, mounts and cgroups)".to_owned());
    }
    for (program, package) in PROGRAMS {
        if !is_on_path(program) {
            missing.push(format!("missing: {program}: apt-get install {package}"));
        }
    }
    // Without these programs, the attempts below would only report the same cause again.
    if missing.is_empty() {
        for (feature, script) in FEATURES {
            if let Err(said) = works(script) {
                missing.push(format!("missing in this kernel: {feature}: {said}"));
            }
        }
    }
    missing
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn works(script: &str) -> Result<(), String> {
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--ipc", "--pid", "--fork", "--mount-proc", "sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
