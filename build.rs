//! Tells the program which git revision it is built from. Without git, or outside its repository, it goes without.

use std::path::Path;
use std::process::Command;

const VARIABLE: &str = "STREAMGATE_REVISION";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A package builder that has no repository may say it.
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let given = std::env::var(VARIABLE).ok().filter(|revision| !revision.is_empty());
    let revision = given.or_else(from_git).unwrap_or_default();
    println!("cargo::rustc-env={VARIABLE}={revision}");
}

fn from_git() -> Option<String> {
    // A source archive may have been unpacked inside somebody else's repository.
    let here = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR")?).canonicalize().ok()?;
    let top = Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if here != top {
        return None;
    }
    // HEAD changes with a checkout, its log with every commit. A path that is not there would rebuild every time.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=9", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
