//! A tool that runs sandboxed Python programs.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tool::{Tool, ToolError};
use crate::reward::code::{Exit, Folder, Language, Sandbox, SandboxConfig, SandboxReport};
use crate::{Error, Result};

/// The settings of a [`PythonTool`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PythonConfig {
    /// The interpreter or another language. Default: [`Language::python`].
    pub language: Language,
    /// The limits of each call and the sandboxing measures.
    pub sandbox: SandboxConfig,
    /// The maximum number of characters of the output, at least 100. The middle of a longer output
    /// is omitted. Default: 4000.
    pub max_characters: usize,
}

impl Default for PythonConfig {
    fn default() -> Self {
        Self {
            language: Language::python(),
            sandbox: SandboxConfig::default(),
            max_characters: 4000,
        }
    }
}

/// A tool that runs a program in a sandbox and returns its output. It is named `python`, and its
/// argument `code`.
///
/// Every call is a separate process without the state of earlier calls, sandboxed like the programs
/// of [`CodeReward`](crate::reward::code::CodeReward). For a program that fails, is too slow or
/// prints too much, the model reads the error and the output. A failure of the sandbox is
/// [`ToolError::Broken`].
///
/// ```no_run
/// use rlvr::environment::tools::{PythonConfig, PythonTool, ToolSet};
///
/// let tools = ToolSet::new().with(PythonTool::new(PythonConfig::default())?)?;
/// # Ok::<(), rlvr::Error>(())
/// ```
pub struct PythonTool {
    language: Language,
    sandbox: Sandbox,
    max_characters: usize,
}

impl PythonTool {
    /// Creates a sandbox and runs the language's trial program in it.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if a setting is invalid, a required measure is not available, or
    /// the trial fails, and [`Error::Io`] if no folder for the runs can be created.
    pub fn new(config: PythonConfig) -> Result<Self> {
        if config.max_characters < 100 {
            let expected = "100 or more";
            return Err(Error::config(
                "max_characters",
                config.max_characters,
                expected,
            ));
        }
        let language = config.language.resolved()?;
        let mut limits = config.sandbox;
        limits.read_only.extend(language.read_only.iter().cloned());
        let tool = Self {
            sandbox: Sandbox::new(limits)?,
            language,
            max_characters: config.max_characters,
        };
        let trial = tool.run(&tool.language.trial);
        match trial {
            Ok(printed) if printed.trim() == "ok" => Ok(tool),
            Ok(other) | Err(ToolError::Refused(other) | ToolError::Broken(other)) => {
                let program = tool.language.run.first().map_or("", String::as_str);
                Err(Error::config(
                    "language.run",
                    format!(
                        "{program}: the trial program did not print \"ok\" in the sandbox ({other})"
                    ),
                    "a program that an unprivileged user can read and execute, with its libraries in `read_only`",
                ))
            }
        }
    }

    /// Returns the sandboxing measures that are active.
    pub fn report(&self) -> &SandboxReport {
        self.sandbox.report()
    }

    /// Runs a program and returns its output.
    fn run(&self, code: &str) -> Result<String, ToolError> {
        let broken = |error: rlvr_sandbox::Error| ToolError::Broken(error.to_string());
        let folder: Folder = self.sandbox.folder().map_err(broken)?;
        folder
            .write(&self.language.file, code.as_bytes())
            .map_err(broken)?;
        if let Some(words) = &self.language.compile {
            let command = self.language.command(words, &folder).may_write_files();
            let compiled = folder.run(&command).map_err(broken)?;
            if compiled.exit != Exit::Status(0) {
                let text = self.shortened(&String::from_utf8_lossy(&compiled.stderr));
                return Err(ToolError::Refused(format!(
                    "the program does not compile\n{text}"
                )));
            }
        }
        let command = self.language.command(&self.language.run, &folder);
        let ran = folder.run(&command).map_err(broken)?;
        let printed = String::from_utf8_lossy(&ran.stdout);
        let errors = String::from_utf8_lossy(&ran.stderr);
        let limits = self.sandbox.config();
        let what = match ran.exit {
            Exit::Status(0) if printed.is_empty() && errors.is_empty() => {
                return Ok("(no output; use print)".into());
            }
            Exit::Status(0) => return Ok(self.shortened(&printed)),
            Exit::Status(status) => format!("the program ended with status {status}"),
            Exit::Signal(signal) => format!("the program was ended by signal {signal}"),
            Exit::WallLimit => format!(
                "the program was stopped after {} seconds",
                limits.wall_seconds
            ),
            Exit::OutputLimit => "the program was stopped because it printed too much".to_string(),
            other => format!("the program ended: {other:?}"),
        };
        let both = [printed, errors].concat();
        Err(ToolError::Refused(format!(
            "{what}\n{}",
            self.shortened(both.trim_end())
        )))
    }

    /// Shortens a text to its beginning and end, with a note of the omission.
    fn shortened(&self, text: &str) -> String {
        let count = text.chars().count();
        if count <= self.max_characters {
            return text.to_string();
        }
        let half = self.max_characters / 2;
        let at = |character: usize| {
            text.char_indices()
                .nth(character)
                .map_or(text.len(), |(at, _)| at)
        };
        let (start, end) = (&text[..at(half)], &text[at(count - half)..]);
        format!("{start}\n[{} characters left out]\n{end}", count - 2 * half)
    }
}

impl Tool for PythonTool {
    fn name(&self) -> &str {
        "python"
    }

    fn description(&self) -> &str {
        "Runs a Python 3 program and returns what it prints. Nothing is kept from one call to the next."
    }

    fn parameters(&self) -> &str {
        r#"{"type": "object", "properties": {"code": {"type": "string", "description": "The program; print what you want to see."}}, "required": ["code"]}"#
    }

    fn call(&self, arguments: &Value) -> Result<String, ToolError> {
        let code = arguments.get("code").and_then(Value::as_str);
        self.run(code.ok_or("`code` is missing; expected a string")?)
    }
}

impl fmt::Debug for PythonTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonTool")
            .field("language", &self.language)
            .field("max_characters", &self.max_characters)
            .finish_non_exhaustive()
    }
}
