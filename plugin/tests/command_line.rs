//! What the plugin prints without a cluster: help, mistakes, and errors of the connection.

#[test]
fn the_command_line_answers_as_its_files_say() {
    trycmd::TestCases::new()
        .case("tests/cmd/*.trycmd")
        .register_bin(
            "kubectl-beatkeeper",
            std::path::Path::new(env!("CARGO_BIN_EXE_kubectl-beatkeeper")),
        )
        .env("KUBECONFIG", "tests/cmd/none.kubeconfig")
        .env("HOME", "/nonexistent")
        .env("NO_COLOR", "1");
}
