//! The `streamgate` command.

fn main() -> std::process::ExitCode {
    streamgate::cli::main()
}
