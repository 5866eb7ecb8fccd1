//! The `streamgate` command.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    streamgate::cli::main()
}
