//! What a machine that cannot run a node is told.

#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn where_something_is_missing_it_is_named_and_the_exit_code_is_77() {
    let nothing = tempfile::tempdir().unwrap();
    for arguments in [&["preflight"][..], &["exec", "--", "true"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_beatkeeper-node"))
            .args(arguments)
            .env("PATH", nothing.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(77), "{said}");
        for program in ["go", "runc", "nft", "conntrack", "buildah"] {
            assert!(said.contains(&format!("missing: {program}: apt-get install ")), "{said}");
        }
        assert!(said.contains("nothing was run"), "{said}");
        assert_eq!(said.contains("missing: root"), !rustix::process::geteuid().is_root(), "{said}");
    }
}
