//! Rules for the source tree: modules import in one direction, and rules for every file.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules in order: none imports from a later one.
const MODULES: [&str; 10] = [
    "types",
    "prompt",
    "policy",
    "rollout",
    "reward",
    "environment",
    "advantage",
    "loss",
    "plan",
    "train",
];

/// A source file, by its path below `src`.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Whether it is this file.
    fn is(&self, path: &str) -> bool {
        self.path == Path::new(path)
    }

    /// The module that the file is, from the crate's root: `loss/kl.rs` is `loss, kl`.
    fn module(&self) -> Vec<String> {
        let mut parts: Vec<String> = self
            .path
            .with_extension("")
            .iter()
            .map(|part| part.to_str().unwrap().to_string())
            .collect();
        if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
            parts.pop();
        }
        parts
    }

    /// The index of the file's top-level module in [`MODULES`].
    fn top_level(&self) -> Option<usize> {
        let module = self.module();
        MODULES
            .iter()
            .position(|name| Some(*name) == module.first().map(String::as_str))
    }

    fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// The code of the library: no comments, and nothing from the first inline test module on (they
    /// are last in a file).
    fn code(&self) -> String {
        let code: Vec<&str> = self.text.lines().map(without_comment).collect();
        let test_module = |at: &usize| {
            let next = code[at + 1..].iter().find(|line| !line.trim().is_empty());
            code[*at].trim() == "#[cfg(test)]"
                && next.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
        };
        let end = (0..code.len()).find(test_module).unwrap_or(code.len());
        code[..end].join("\n")
    }
}

/// The line up to `//`, unless that is in a string.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let bytes = line.as_bytes();
    for at in 0..bytes.len() {
        match bytes[at] {
            b'"' if at == 0 || !matches!(bytes[at - 1], b'\\' | b'\'') => quoted = !quoted,
            b'/' if !quoted && bytes.get(at + 1) == Some(&b'/') => return &line[..at],
            _ => {}
        }
    }
    line
}

fn read_all(folder: &Path, root: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(Source {
                text: fs::read_to_string(&path).unwrap(),
                path: path.strip_prefix(root).unwrap().to_path_buf(),
            });
        }
    }
}

/// Every file of `src`.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    read_all(&root, &root, &mut found);
    assert!(found.len() > 50, "only {} files found", found.len());
    found
}

/// The files that are only compiled for tests: modules declared under `#[cfg(test)]` (or
/// `all(test, ...)`), and what is below them.
fn test_modules(sources: &[Source]) -> HashSet<Vec<String>> {
    let mut modules = HashSet::new();
    for source in sources {
        let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            let name = pair[1]
                .strip_prefix("mod ")
                .and_then(|l| l.strip_suffix(';'));
            let for_tests = pair[0] == "#[cfg(test)]" || pair[0].starts_with("#[cfg(all(test,");
            if let (true, Some(name)) = (for_tests, name) {
                let mut module = source.module();
                module.push(name.to_string());
                modules.insert(module);
            }
        }
    }
    modules
}

/// The files of the library itself.
fn library() -> Vec<Source> {
    let all = sources();
    let tests = test_modules(&all);
    assert!(!tests.is_empty());
    let is_test = |source: &Source| {
        let module = source.module();
        (0..=module.len()).any(|depth| tests.contains(&module[..depth]))
    };
    all.into_iter().filter(|source| !is_test(source)).collect()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The first names after a path's prefix: one, or those of a `{...}` list.
fn names(rest: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|&c| is_word(c)).collect::<String>();
    let Some(list) = rest.strip_prefix('{') else {
        return vec![word(rest)];
    };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                found.push(word(list[start..at].trim_start()));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    found
}

/// The items at the crate root that `code` in `module` names.
fn root_names(code: &str, module: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (prefix, depth) in [("crate::", usize::MAX), ("super::", 1)] {
        for (at, _) in code.match_indices(prefix) {
            let before = &code[..at];
            // `super::super::x` is looked at from its first word.
            if before.chars().next_back().is_some_and(is_word) || before.ends_with("::") {
                continue;
            }
            let mut rest = &code[at + prefix.len()..];
            let mut up = depth;
            while let Some(further) = rest.strip_prefix("super::") {
                (rest, up) = (further, up.saturating_add(1));
            }
            if up >= module.len() {
                found.extend(names(rest));
            }
        }
    }
    found
}

#[test]
fn no_module_imports_from_a_later_module() {
    let mut used = HashSet::new();
    for source in library() {
        let names = root_names(&source.code(), &source.module());
        for name in names {
            let Some(there) = MODULES.iter().position(|module| *module == name) else {
                continue;
            };
            let path = source.path.display();
            match source.top_level() {
                Some(here) => {
                    let upward = there <= here;
                    assert!(upward, "{path} imports from `{name}`, a later module");
                    used.insert((here, there));
                }
                // Shared modules import from none of them.
                None => {
                    let fronts = source.is("lib.rs") || source.is("prelude.rs");
                    assert!(fronts, "{path} imports from `{name}`");
                }
            }
        }
    }
    // The search works: the trainer imports from every module.
    let train = MODULES.len() - 1;
    let missed: Vec<_> = (0..train)
        .filter(|&module| !used.contains(&(train, module)))
        .collect();
    assert!(missed.is_empty(), "train does not import from {missed:?}?");
}

#[test]
fn every_folder_of_the_source_tree_has_a_place_in_the_order() {
    let mut folders: Vec<String> = sources()
        .iter()
        .map(Source::module)
        .filter(|module| module.len() > 1)
        .map(|module| module[0].clone())
        .collect();
    folders.sort();
    folders.dedup();
    let shared = ["fused", "random"];
    for module in MODULES {
        assert!(folders.iter().any(|folder| folder == module), "{module}");
    }
    for folder in folders {
        let known = MODULES.contains(&&*folder) || shared.contains(&&*folder);
        assert!(known, "src/{folder} has no place in the order");
    }
}

#[test]
fn the_search_finds_every_way_of_writing_an_import() {
    let module = ["loss".to_string(), "kl".to_string()];
    let found = |code: &str| root_names(code, &module);
    assert_eq!(found("use crate::train::Trainer;"), ["train"]);
    assert_eq!(
        found("use crate::{Error, train::{A, B}, policy};"),
        ["Error", "train", "policy"]
    );
    assert_eq!(
        found("use crate::{\n    Error,\n    train,\n};"),
        ["Error", "train", ""]
    );
    assert_eq!(found("let x = super::super::train::f();"), ["train"]);
    assert_eq!(found("use super::super::{train, loss};"), ["train", "loss"]);
    assert!(found("use super::train; pub(super) fn f() {} mycrate::train").is_empty());
    let line = r#"let a = "https://x"; // crate::train"#;
    assert_eq!(without_comment(line), r#"let a = "https://x"; "#);
    assert_eq!(without_comment("/// use crate::train;"), "");
    let source = Source {
        path: "loss/kl.rs".into(),
        text: "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::train;\n}\n".into(),
    };
    assert_eq!(source.code(), "fn f() {}");
    let loss = MODULES.iter().position(|name| *name == "loss");
    assert_eq!(
        (source.module(), source.top_level()),
        (module.to_vec(), loss)
    );
}

/// Whether `word` occurs in the code as a whole word.
fn contains_word(code: &str, word: &str) -> bool {
    let own = |at: usize| !code[..at].chars().next_back().is_some_and(is_word);
    code.match_indices(word).any(|(at, _)| own(at))
}

#[test]
fn the_library_does_not_print() {
    for source in library() {
        // The progress bar writes to the terminal.
        if source.is("train/observer/progress.rs") {
            continue;
        }
        let code = source.code();
        for printer in ["println!", "eprintln!", "print!", "eprint!", "dbg!"] {
            assert!(
                !contains_word(&code, printer),
                "{} has {printer}",
                source.path.display()
            );
        }
    }
}

#[test]
fn the_library_never_chooses_a_device() {
    for source in library() {
        // It checks whether kernels exist for the caller's device.
        if source.is("host.rs") {
            continue;
        }
        let code = source.code();
        for call in [
            "Device::default(",
            "Device::flex(",
            "Device::ndarray(",
            "Device::cuda(",
            "Device::wgpu(",
        ] {
            assert!(
                !contains_word(&code, call),
                "{} has {call}",
                source.path.display()
            );
        }
    }
}

#[test]
fn no_todo_is_left_in_the_source() {
    for source in sources() {
        let code = source.code();
        for gap in ["todo!", "unimplemented!"] {
            assert!(
                !contains_word(&code, gap),
                "{} has {gap}",
                source.path.display()
            );
        }
    }
}

#[test]
fn no_file_is_longer_than_six_hundred_lines() {
    for source in sources() {
        let (path, lines) = (source.path.display(), source.lines());
        assert!(lines <= 600, "{path} has {lines} lines");
    }
}
