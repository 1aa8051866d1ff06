//! Languages: how programs are written to a file, compiled and run.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Command, Folder};
use crate::{Error, Result};

/// The folders in which a program is searched before `PATH`, since a confined program can read
/// them.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];

/// A programming language, described by its files and commands.
///
/// In a command, `{file}` is the file of the program and `{folder}` is its folder, which a compiler
/// may write. The first word is a program: an absolute path, or a name that is searched in
/// `/usr/bin`, `/usr/local/bin`, `/bin` and `PATH`.
///
/// ```
/// use rlvr::reward::code::Language;
///
/// let c: Language = serde_json::from_str(
///     r##"{
///     "fences": ["c"],
///     "file": "main.c",
///     "compile": ["gcc", "-O1", "-o", "{folder}/main", "{file}"],
///     "run": ["{folder}/main"],
///     "trial": "#include <stdio.h>\nint main(void) { puts(\"ok\"); }"
/// }"##,
/// )?;
/// assert!(!c.functions);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Language {
    /// The names after an opening fence that select the language, ignoring case. At least one.
    pub fences: Vec<String>,
    /// The name of the program file.
    pub file: String,
    /// The command that compiles a program, run once per program. Default: none.
    #[serde(default)]
    pub compile: Option<Vec<String>>,
    /// The command that runs a program.
    pub run: Vec<String>,
    /// A program that prints `ok`. It runs confined when the reward is created, to detect an
    /// interpreter that cannot be read or does not start.
    pub trial: String,
    /// Whether the language is Python, so that tests can call functions. Default: `false`.
    #[serde(default)]
    pub functions: bool,
    /// Paths outside the system folders that its programs may read. Default: none.
    #[serde(default)]
    pub read_only: Vec<PathBuf>,
    /// Environment variables. Default: none.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
}

impl Default for Language {
    fn default() -> Self {
        Self::python()
    }
}

impl Language {
    /// Returns the Python 3 of the system, with the fences `python`, `py` and `python3`. String
    /// hashes are the same in every run.
    pub fn python() -> Self {
        let variable = |name: &str, value: &str| (name.to_string(), value.to_string());
        Self {
            fences: ["python", "py", "python3"].map(String::from).into(),
            file: "main.py".into(),
            compile: None,
            run: ["python3", "{file}"].map(String::from).into(),
            trial: "print('ok')".into(),
            functions: true,
            read_only: Vec::new(),
            environment: vec![
                variable("PYTHONHASHSEED", "0"),
                variable("PYTHONDONTWRITEBYTECODE", "1"),
                variable("PYTHONNOUSERSITE", "1"),
            ],
        }
    }

    /// Returns another Python 3, such as that of a virtual environment. The interpreter is asked
    /// for the location of its libraries, which become readable.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the interpreter does not start, and [`Error::Config`] if it does
    /// not report the location.
    pub fn python_at(interpreter: impl AsRef<Path>) -> Result<Self> {
        let interpreter = interpreter.as_ref();
        let question = "import sys; print(sys.executable, sys.prefix, sys.base_prefix, sep='\\n')";
        let answer = std::process::Command::new(interpreter)
            .args(["-c", question])
            .output()
            .map_err(|error| Error::io(interpreter, error))?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let mut lines = text.lines();
        let (Some(program), Some(prefix), Some(base)) = (lines.next(), lines.next(), lines.next())
        else {
            let errors = String::from_utf8_lossy(&answer.stderr).into_owned();
            let value = format!("{}: {errors}", interpreter.display());
            return Err(Error::config("interpreter", value, "a Python 3"));
        };
        let mut read_only: Vec<PathBuf> = [prefix, base].map(PathBuf::from).into();
        // In a virtual environment, the interpreter is a link to another one.
        read_only.extend(Path::new(program).parent().map(Path::to_path_buf));
        read_only.retain(|path| !path.starts_with("/usr") && path.parent().is_some());
        read_only.dedup();
        let mut language = Self::python();
        language.run[0] = program.to_string();
        language.read_only = read_only;
        Ok(language)
    }

    /// Rejects invalid settings and resolves the programs of the commands.
    pub(crate) fn resolved(mut self) -> Result<Self> {
        let fences = self.fences.iter();
        if self.fences.is_empty()
            || fences
                .clone()
                .any(|fence| fence.is_empty() || fence.contains(char::is_whitespace))
        {
            let expected = "at least one name, without whitespace";
            return Err(Error::config(
                "language.fences",
                format!("{fences:?}"),
                expected,
            ));
        }
        let plain = !self.file.is_empty()
            && !self.file.starts_with('.')
            && !self.file.contains(['/', '\0']);
        if !plain {
            let expected = "a plain file name";
            return Err(Error::config(
                "language.file",
                format!("{:?}", self.file),
                expected,
            ));
        }
        if let Some(compile) = &mut self.compile {
            resolve("language.compile", compile)?;
        }
        resolve("language.run", &mut self.run)?;
        Ok(self)
    }
}

impl Language {
    /// Returns a command of the language for a program in this folder, with the environment
    /// variables.
    pub(crate) fn command(&self, words: &[String], folder: &Folder) -> Command {
        let (file, inside) = (folder.path(&self.file), folder.path(""));
        let inside = inside.trim_end_matches('/');
        let mut words = words
            .iter()
            .map(|word| word.replace("{file}", &file).replace("{folder}", inside));
        let command = Command::new(words.next().unwrap_or_default());
        self.environment(words.fold(command, Command::argument))
    }

    /// Adds the environment variables of the language to the command.
    pub(super) fn environment(&self, command: Command) -> Command {
        let variables = self.environment.iter();
        variables.fold(command, |command, (name, value)| {
            command.variable(name, value)
        })
    }
}

/// Turns the first word of a command into an absolute path, unless it is the program itself.
fn resolve(field: &str, command: &mut [String]) -> Result<()> {
    let Some(first) = command.first_mut() else {
        return Err(Error::config(field, "[]", "a program and its arguments"));
    };
    if first.starts_with('/') || first.starts_with('{') {
        return Ok(());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = SYSTEM_FOLDERS
        .iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&path).filter(|folder| folder.is_absolute()));
    let found = folders
        .map(|folder| folder.join(&*first))
        .find(|path| path.is_file());
    let Some(found) = found else {
        let expected = "a program that is installed, or an absolute path";
        return Err(Error::config(field, format!("{first:?}"), expected));
    };
    *first = found.display().to_string();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_languages_are_errors_that_name_the_field() {
        let bad = |change: fn(&mut Language)| {
            let mut language = Language::python();
            change(&mut language);
            language.resolved().unwrap_err().to_string()
        };
        assert!(bad(|l| l.fences.clear()).contains("`language.fences`"));
        assert!(bad(|l| l.fences.push("a b".into())).contains("`language.fences`"));
        assert!(bad(|l| l.file = "../x".into()).contains("`language.file`"));
        assert!(bad(|l| l.run.clear()).contains("`language.run`"));
        assert!(bad(|l| l.run[0] = "no-such-program".into()).contains("no-such-program"));
        assert!(bad(|l| l.compile = Some(vec!["no-such".into()])).contains("`language.compile`"));
    }

    #[test]
    fn program_names_are_resolved_in_the_system_folders_first() {
        let mut command = ["sh".to_string(), "sh".to_string()];
        resolve("run", &mut command).unwrap();
        assert!(
            ["/usr/bin/sh", "/bin/sh"].contains(&&*command[0]),
            "{command:?}"
        );
        assert_eq!(command[1], "sh");
        let mut own = ["{folder}/main".to_string()];
        resolve("run", &mut own).unwrap();
        assert_eq!(own, ["{folder}/main"]);
    }
}
