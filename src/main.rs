//! The `sidekey` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    sidekey::cli::main()
}
