//! The command, limits and sandbox of a program, and its start.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

#[cfg(feature = "code")]
use rlvr_sandbox::{Folder, Sandbox, SandboxConfig};

/// The command and limits of a program that answers requests on its standard input.
///
/// ```
/// use rlvr::environment::process::Program;
///
/// let program = Program::parse(r#"python3 "my environments/maze.py" --size 5"#)?;
/// assert_eq!(program.command[1], "my environments/maze.py");
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Program {
    /// The program and its arguments. No shell is used.
    pub command: Vec<String>,
    /// Additional environment variables. Default: none.
    pub environment: Vec<(String, String)>,
    /// How long the program may be silent while requests are unanswered before it is killed.
    /// Default: 20 s.
    pub time_limit: Duration,
    /// The same limit before its first answer, while it loads libraries. Default: 60 s.
    pub start_limit: Duration,
    /// The sandbox. A sandboxed program sees only the system's files and those that the sandbox
    /// names, and has no network. Default: none, the program runs with the user's rights.
    #[cfg(feature = "code")]
    pub sandbox: Option<SandboxConfig>,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            environment: Vec::new(),
            time_limit: Duration::from_secs(20),
            start_limit: Duration::from_secs(60),
            #[cfg(feature = "code")]
            sandbox: None,
        }
    }
}

impl Program {
    /// Creates a program with the default limits from its command and arguments.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Parses a command line. Single and double quotes group words with spaces; no other character
    /// is special.
    ///
    /// # Errors
    /// Returns an error if there is no word or a quote is not closed.
    pub fn parse(line: &str) -> Result<Self> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for character in line.chars() {
            match quote {
                Some(open) if open == character => quote = None,
                None if matches!(character, '"' | '\'') => {
                    quote = Some(character);
                    word.get_or_insert_default();
                }
                None if character.is_whitespace() => words.extend(word.take()),
                _ => word.get_or_insert_default().push(character),
            }
        }
        words.extend(word);
        match quote {
            Some(quote) => Err(Error::config(
                "program.command",
                line,
                format!("a closing {quote}"),
            )),
            None => {
                let program = Self::new(words);
                program.validate().map(|()| program)
            }
        }
    }

    /// Creates a sandboxed Python script, which can read itself, the interpreter and the
    /// interpreter's packages.
    ///
    /// The limits are those of [`SandboxConfig`], except for a process that lives as long as the
    /// run: a day of CPU time, 4 GiB of address space, 64 processes and threads. Change
    /// [`sandbox`](Self::sandbox) for other limits or more readable files.
    ///
    /// # Errors
    /// Returns an error if the interpreter does not start or the script does not exist.
    #[cfg(feature = "code")]
    pub fn confined_python(
        interpreter: impl AsRef<std::path::Path>,
        script: impl AsRef<std::path::Path>,
    ) -> Result<Self> {
        let language = crate::reward::code::Language::python_at(interpreter)?;
        let script = script.as_ref();
        let script = script
            .canonicalize()
            .map_err(|error| Error::io(script, error))?;
        let mut read_only = language.read_only;
        read_only.push(script.clone());
        Ok(Self {
            environment: language.environment,
            sandbox: Some(SandboxConfig {
                cpu_seconds: 86_400,
                wall_seconds: 86_400.0,
                memory_bytes: 4 << 30,
                processes: 64,
                open_files: 256,
                read_only,
                ..SandboxConfig::default()
            }),
            ..Self::new([
                language.run.into_iter().next().unwrap_or_default(),
                script.display().to_string(),
            ])
        })
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.command.push(argument.into());
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the field, its value and the expected range.
    pub fn validate(&self) -> Result<()> {
        if self.command.first().is_none_or(String::is_empty) {
            let value = format!("{:?}", self.command);
            return Err(Error::config("program.command", value, "a program"));
        }
        for (field, limit) in [
            ("time_limit", self.time_limit),
            ("start_limit", self.start_limit),
        ] {
            if limit.is_zero() || limit > Duration::from_secs(86_400) {
                let value = format!("{} s", limit.as_secs_f64());
                let expected = "more than 0 s and at most a day";
                return Err(Error::config(format!("program.{field}"), value, expected));
            }
        }
        Ok(())
    }
}

/// A program that can be started several times.
pub(in crate::environment) struct Launcher {
    pub program: Program,
    #[cfg(feature = "code")]
    sandbox: Option<Sandbox>,
}

/// A running program and its pipes.
pub(super) struct Started {
    pub process: Process,
    pub input: Box<dyn Write + Send>,
    pub output: Box<dyn Read + Send>,
    pub errors: Box<dyn Read + Send>,
}

/// A running program.
pub(super) enum Process {
    Plain(Child),
    /// The folder is removed after the program has ended.
    #[cfg(feature = "code")]
    Confined(Box<(rlvr_sandbox::Child, Folder)>),
}

impl Launcher {
    /// Checks the settings, and the sandbox if there is one.
    pub fn new(program: Program) -> Result<Self> {
        program.validate()?;
        Ok(Self {
            #[cfg(feature = "code")]
            sandbox: match &program.sandbox {
                Some(config) => Some(Sandbox::new(config.clone())?),
                None => None,
            },
            program,
        })
    }

    /// The command, shortened for errors.
    pub fn name(&self) -> String {
        super::super::json_text::shortened(&self.program.command.join(" "), 120)
    }

    /// Starts the program. A sandboxed program ends with the thread that started it.
    pub(super) fn start(&self) -> Result<Started> {
        #[cfg(feature = "code")]
        if let Some(sandbox) = &self.sandbox {
            return self.start_confined(sandbox);
        }
        let program = self.program.command.first().map_or("", String::as_str);
        let failed = |error| Error::io(program, error);
        let mut child = Command::new(program)
            .args(self.program.command.iter().skip(1))
            .envs(self.program.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(input), Some(output), Some(errors)) => Ok(Started {
                process: Process::Plain(child),
                input: Box::new(input),
                output: Box::new(output),
                errors: Box::new(errors),
            }),
            _ => Err(failed(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    #[cfg(feature = "code")]
    fn start_confined(&self, sandbox: &Sandbox) -> Result<Started> {
        use rlvr_sandbox::{Command, Stdio, pipe};

        let mut words = self.program.command.iter();
        let command = Command::new(words.next().cloned().unwrap_or_default());
        let command = words.fold(command, |command, word| command.argument(word));
        let variables = self.program.environment.iter();
        let command = variables.fold(command, |command, (name, value)| {
            command.variable(name, value)
        });
        let (read, input) = pipe()?;
        let (output, write) = pipe()?;
        let (errors, complain) = pipe()?;
        let stdio = vec![
            (0, Stdio::Pipe(read)),
            (1, Stdio::Pipe(write)),
            (2, Stdio::Pipe(complain)),
        ];
        let folder = sandbox.folder()?;
        let child = folder.spawn(&command, stdio)?;
        Ok(Started {
            process: Process::Confined(Box::new((child, folder))),
            input: Box::new(input.into_file()),
            output: Box::new(output.into_file()),
            errors: Box::new(errors.into_file()),
        })
    }
}

impl Process {
    /// Waits for the program to end, kills it after `patience`, and returns how it ended.
    pub fn end(self, patience: Duration) -> String {
        match self {
            Self::Plain(mut child) => {
                let deadline = Instant::now() + patience;
                loop {
                    match child.try_wait() {
                        Ok(Some(status)) => return status.to_string(),
                        Err(error) => return error.to_string(),
                        Ok(None) if Instant::now() < deadline => {
                            thread::sleep(Duration::from_millis(2));
                        }
                        Ok(None) => {
                            let _ = child.kill();
                            let _ = child.wait();
                            return "killed".into();
                        }
                    }
                }
            }
            #[cfg(feature = "code")]
            Self::Confined(confined) => {
                let (child, folder) = *confined;
                use rlvr_sandbox::{Exit, Timeout};
                let timeout = Timeout {
                    wall: patience,
                    total: patience,
                    progress: None,
                };
                let ended = child.wait(timeout);
                drop(folder);
                match ended {
                    Ok((Exit::Status(status), _)) => format!("exit status: {status}"),
                    Ok((Exit::Signal(signal), _)) => format!("signal: {signal}"),
                    Ok((Exit::WallLimit, _)) => "killed".into(),
                    Ok((other, _)) => format!("{other:?}"),
                    Err(error) => error.to_string(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_split_into_words() {
        let words = |line: &str| Program::parse(line).map(|program| program.command);
        assert_eq!(words("  a  b\tc ").unwrap(), ["a", "b", "c"]);
        assert_eq!(
            words(r#"a 'b "c' x"d e"'f' """#).unwrap(),
            ["a", "b \"c", "xd ef", ""]
        );
        for (line, expected) in [
            ("", "a program"),
            ("a 'b", "a closing '"),
            ("''", "program"),
        ] {
            let error = words(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn errors_name_the_invalid_limit() {
        let program = Program {
            time_limit: Duration::ZERO,
            ..Program::new(["a"])
        };
        let error = program.validate().unwrap_err().to_string();
        assert!(error.contains("`program.time_limit`: 0 s"), "{error}");
    }
}
