//! The `billet` program: server and command line in one.

fn main() -> std::process::ExitCode {
    boot_server::cli::main()
}
