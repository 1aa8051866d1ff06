//! Commands in the documents name existing examples, tests, benches, features, flags and variables.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every file below `folder` whose extension is one of `extensions`.
fn files(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let extension = path
            .extension()
            .map(|e| e.to_string_lossy().into_owned())
            .unwrap_or_default();
        if path.is_dir() {
            files(&path, extensions, found);
        } else if extensions.contains(&extension.as_str()) {
            found.push(path);
        }
    }
}

/// A package of the workspace: the names in its manifest that a command can use.
struct Package {
    name: String,
    folder: PathBuf,
    features: Vec<(String, Vec<String>)>,
    /// Features without which a target is not built, by the target's kind and name.
    required: Vec<(String, String, Vec<String>)>,
}

/// The quoted words of a line.
fn quoted(line: &str) -> Vec<String> {
    line.split('"')
        .skip(1)
        .step_by(2)
        .map(String::from)
        .collect()
}

impl Package {
    fn read(folder: &Path) -> Self {
        let text = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let (mut section, mut target) = (String::new(), String::new());
        let mut package = Self {
            name: String::new(),
            folder: folder.to_path_buf(),
            features: Vec::new(),
            required: Vec::new(),
        };
        for line in text.lines() {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']).to_string();
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            match (section.as_str(), key.trim()) {
                ("package", "name") => package.name = quoted(value).remove(0),
                ("features", name) => package.features.push((name.into(), quoted(value))),
                ("example" | "test" | "bench", "name") => target = quoted(value).remove(0),
                (kind @ ("example" | "test" | "bench"), "required-features") => {
                    let required = (kind.to_string(), target.clone(), quoted(value));
                    package.required.push(required);
                }
                _ => {}
            }
        }
        package
    }

    /// `names` and everything that they enable.
    fn enabled(&self, names: impl IntoIterator<Item = String>) -> HashSet<String> {
        let mut open: Vec<String> = names.into_iter().collect();
        let mut enabled = HashSet::new();
        while let Some(name) = open.pop() {
            let feature = self.features.iter().find(|(feature, _)| *feature == name);
            if let Some((_, implied)) = feature
                && enabled.insert(name)
            {
                open.extend(implied.iter().cloned());
            }
        }
        enabled
    }

    /// The sources of a target, if there is one: a file, or a folder with a `main.rs`.
    fn sources(&self, kind: &str, name: &str) -> Option<Vec<PathBuf>> {
        let folder = self.folder.join(match kind {
            "bench" => "benches".into(),
            kind => format!("{kind}s"),
        });
        let (file, nested) = (folder.join(format!("{name}.rs")), folder.join(name));
        if file.exists() {
            return Some(vec![file]);
        }
        let mut found = Vec::new();
        files(&nested, &["rs"], &mut found);
        nested.join("main.rs").exists().then_some(found)
    }
}

/// The errors of a command: the words from `cargo` on, and the variables set before it.
fn complaints(variables: &[&str], words: &[&str], packages: &[Package], code: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for variable in variables {
        if !code.contains(&format!("\"{variable}\"")) {
            wrong.push(format!("nothing reads {variable}"));
        }
    }
    let end = words.iter().position(|word| *word == "--");
    let (own, passed) = words.split_at(end.unwrap_or(words.len()));
    let value = |option: &str| {
        let at = own.iter().position(|word| *word == option)?;
        own.get(at + 1).copied()
    };
    if own.contains(&"fuzz") {
        let target = value("run").unwrap_or_default();
        let source = format!("fuzz/fuzz_targets/{target}.rs");
        if !Path::new(env!("CARGO_MANIFEST_DIR")).join(source).exists() {
            wrong.push(format!("no fuzz target {target}"));
        }
        return wrong;
    }
    let package = match value("-p") {
        None => &packages[0],
        Some(name) => match packages.iter().find(|package| package.name == name) {
            Some(package) => package,
            None => return vec![format!("no package {name}")],
        },
    };
    let given: Vec<String> = value("--features")
        .map(|list| list.split(',').map(String::from).collect())
        .unwrap_or_default();
    for feature in &given {
        if !package.features.iter().any(|(name, _)| name == feature) {
            wrong.push(format!("{} has no feature {feature}", package.name));
        }
    }
    let default = (!own.contains(&"--no-default-features")).then(|| "default".to_string());
    let enabled = package.enabled(given.into_iter().chain(default));
    for kind in ["example", "test", "bench"] {
        let Some(name) = value(&format!("--{kind}")) else {
            continue;
        };
        let Some(sources) = package.sources(kind, name) else {
            wrong.push(format!("{} has no {kind} {name}", package.name));
            continue;
        };
        for (of, target, features) in &package.required {
            let missing: Vec<_> = features.iter().filter(|f| !enabled.contains(*f)).collect();
            if of == kind && target == name && !missing.is_empty() {
                wrong.push(format!("{kind} {name} needs the features {missing:?}"));
            }
        }
        if kind == "example" {
            let text: String = sources.iter().flat_map(fs::read_to_string).collect();
            for word in passed {
                let flag = word.trim_matches(['[', ']']).strip_prefix("--");
                if let Some(flag) = flag.filter(|flag| !flag.is_empty())
                    && !text.contains(&format!(" {}:", flag.replace('-', "_")))
                    && !text.contains(&format!("\"--{flag}\""))
                {
                    wrong.push(format!("example {name} has no flag --{flag}"));
                }
            }
        }
    }
    wrong
}

/// The commands in a text: the text from the first variable or `cargo` on, without comments; a
/// backslash continues a line.
fn commands(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let mut found = Vec::new();
    for line in text.lines() {
        for part in line.split('`') {
            let part = part.split("  #").next().unwrap_or_default();
            let part = part.trim_start_matches(['/', '!', ' ']);
            let command = part.split_whitespace().find(|word| !word.contains('='));
            if command == Some("cargo") {
                found.push(part.trim().to_string());
            }
        }
    }
    found
}

#[test]
fn documented_commands_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut packages = vec![Package::read(root)];
    let mut folders: Vec<PathBuf> = fs::read_dir(root.join("crates"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    folders.sort();
    packages.extend(folders.iter().map(|folder| Package::read(folder)));

    let mut sources = Vec::new();
    for folder in ["src", "tests", "examples", "benches", "crates", "fuzz"] {
        files(&root.join(folder), &["rs"], &mut sources);
    }
    sources.retain(|path| !path.ends_with("documented_commands.rs"));
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap();
    let code: String = sources.iter().map(read).collect();
    let mut documents = sources;
    for entry in fs::read_dir(root).unwrap() {
        documents.push(entry.unwrap().path());
    }
    for folder in ["src", "crates", "tests"] {
        files(&root.join(folder), &["md"], &mut documents);
    }
    documents.retain(|path| path.extension().is_some_and(|e| e == "md" || e == "rs"));

    let (mut count, mut wrong) = (0, Vec::new());
    for document in &documents {
        for command in commands(&read(document)) {
            count += 1;
            let words: Vec<&str> = command.split_whitespace().collect();
            let start = words.iter().position(|word| *word == "cargo").unwrap();
            let variables = words[..start]
                .iter()
                .filter_map(|word| word.split_once('='));
            let variables: Vec<&str> = variables.map(|(name, _)| name).collect();
            let own: Vec<&str> = variables
                .into_iter()
                .filter(|name| name.starts_with("RLVR_"))
                .collect();
            for complaint in complaints(&own, &words[start..], &packages, &code) {
                wrong.push(format!("{}: {command}: {complaint}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 10, "only {count} commands found");
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = [Package::read(root)];
    let text = "Run `cargo test --test nothing` or\n    RLVR_X=1 cargo run --no-default-features --features flux \\\n\
                --example chat -- --speed 2   # fast\nas cargo does.";
    let found = commands(text);
    assert_eq!(found.len(), 2, "{found:?}");
    let all: Vec<String> = found
        .iter()
        .flat_map(|command| {
            let words: Vec<&str> = command.split_whitespace().collect();
            let start = words.iter().position(|word| *word == "cargo").unwrap();
            let variables: &[&str] = if start > 0 { &["RLVR_X"] } else { &[] };
            complaints(variables, &words[start..], &packages, "")
        })
        .collect();
    let expected = [
        "rlvr has no test nothing",
        "nothing reads RLVR_X",
        "rlvr has no feature flux",
        "example chat needs the features [\"hf\"]",
        "example chat has no flag --speed",
    ];
    assert_eq!(all, expected);
}

/// The modules that `path` declares.
fn modules(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let name = |line: &str| Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_string());
    text.lines().filter_map(name).collect()
}

#[test]
fn the_table_of_the_tests_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let table = text.split("\n## Tests\n").nth(1).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let first = rows.filter_map(|row| row.split('|').nth(1)).skip(1);
    let mut listed: Vec<String> = first
        .flat_map(|names| names.split(", "))
        .map(|name| name.trim().replace('`', ""))
        .collect();
    listed.sort_unstable();
    let mut expected = Vec::new();
    for entry in fs::read_dir(root.join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let (main, name) = (path.join("main.rs"), path.file_stem().unwrap());
        if main.exists() || path.extension().is_some_and(|e| e == "rs") {
            expected.push(format!("**{}**", name.to_string_lossy()));
        }
        // The modules of `conformance` are parts of one test.
        if main.exists() && name != "conformance" {
            expected.extend(modules(&main));
        }
    }
    expected.retain(|name| name != "common" && name != "scripts");
    expected.sort_unstable();
    assert_eq!(listed, expected);
}
