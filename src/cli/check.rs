//! `streamgate check`: reads a configuration and says everything that is wrong with it; `streamgate schema`.

use super::{CheckArgs, Failure, MISUSED};
use crate::api::live::check_streams;
use crate::config::{self, ConfigError, Loaded, Store};
use crate::graph::OpenSource;
use crate::sources;
use crate::telemetry::mask;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let file = config::find(args.config.as_deref()).ok_or_else(|| {
        Failure::misused(format!(
            "there is no {} in this folder: name a file with -c FILE",
            config::USUAL_FILE
        ))
    })?;
    let outcome = check(&file);
    if args.json {
        print(&format!("{:#}\n", as_json(&file, &outcome)));
        // The answer says why already.
        return outcome.map(drop).map_err(|_| Failure { code: MISUSED, message: String::new() });
    }
    let loaded = outcome.map_err(Failure::misused)?;
    let mut text = String::new();
    for warning in &loaded.warnings {
        text.push_str(&format!("{}: warning: {warning}\n", file.display()));
    }
    let streams = loaded.config.streams.len();
    text.push_str(&format!(
        "{}: valid, {streams} streams, {} warnings\n",
        file.display(),
        loaded.warnings.len()
    ));
    print(&text);
    Ok(())
}

/// Prints the JSON Schema of the configuration.
pub(super) fn schema() {
    print(&format!("{:#}\n", config::schema()));
}

/// All that the server would refuse to start with, but for the port.
fn check(file: &Path) -> Result<Loaded, ConfigError> {
    let text = Store::at(file).read()?;
    let at_file = |error: ConfigError| ConfigError { path: Some(file.to_owned()), ..error };
    let mut loaded = config::parse(&text, &config::environment).map_err(at_file)?;
    let open: OpenSource = Arc::new(sources::open);
    loaded.warnings.extend(check_streams(&open, &text, &loaded.config).map_err(at_file)?);
    Ok(loaded)
}

fn as_json(file: &Path, outcome: &Result<Loaded, ConfigError>) -> serde_json::Value {
    let (errors, warnings) = match outcome {
        Ok(loaded) => (Vec::new(), loaded.warnings.clone()),
        Err(error) => {
            let error = serde_json::json!({
                "line": error.line, "column": error.column, "key": mask(error.key()), "message": mask(&error.message),
                "allowed": mask(error.allowed()),
            });
            (vec![error], Vec::new())
        }
    };
    serde_json::json!({
        "file": file.display().to_string(), "valid": outcome.is_ok(), "errors": errors, "warnings": warnings,
    })
}

fn print(text: &str) {
    // A reader that has gone away (`| head`) is no failure of the check.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
