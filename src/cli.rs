//! The command line: `serve` (default), `probe`, `healthcheck`.

/// Parses the command line and runs it.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
