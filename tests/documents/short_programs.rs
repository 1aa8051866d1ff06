//! The programs in the README are the examples of the same names, and they are short.

const README: &str = include_str!("../../README.md");

#[test]
fn readme_has_the_short_examples() {
    for (name, program) in [
        (
            "from_scratch",
            include_str!("../../examples/from_scratch.rs"),
        ),
        (
            "open_weights",
            include_str!("../../examples/open_weights.rs"),
        ),
    ] {
        let code = program.lines().skip_while(|line| line.starts_with("//!"));
        let code: Vec<&str> = code.skip_while(|line| line.is_empty()).collect();
        assert!(code.len() < 60, "{name} has {} lines", code.len());
        let block = format!("```rust\n{}\n```", code.join("\n"));
        assert!(
            README.contains(&block),
            "the README's {name} is not the example"
        );
    }
}
