//! The last fenced code block of a language.

const FENCE: &str = "```";

/// Returns the text of the last closed block whose fence names one of `languages` (or any block if
/// there are none), from the line after the opening fence to the closing one.
///
/// The block ends at the next three backquotes, wherever they are: a program cannot contain its own
/// fence. A block that is not closed is ignored.
pub(crate) fn last_block<'a>(text: &'a str, languages: &[String]) -> Option<&'a str> {
    let mut found = None;
    let mut from = 0;
    while let Some(at) = text[from..].find(FENCE) {
        let info = from + at + FENCE.len();
        // The line of a fence is short. The bound keeps the time linear for a text of fences
        // without line ends.
        let Some(length) = text.as_bytes()[info..]
            .iter()
            .take(200)
            .position(|&byte| byte == b'\n')
        else {
            from = info;
            continue;
        };
        if !names(&text[info..info + length], languages) {
            from = info;
            continue;
        }
        let start = info + length + 1;
        let Some(length) = text[start..].find(FENCE) else {
            break;
        };
        found = Some(&text[start..start + length]);
        from = start + length + FENCE.len();
    }
    found
}

/// Returns whether the text after an opening fence names one of the languages by its first word:
/// `python` in "python title=a.py".
fn names(info: &str, languages: &[String]) -> bool {
    if info.contains('`') {
        return false;
    }
    let name = info.split_whitespace().next().unwrap_or_default();
    languages.is_empty() || languages.iter().any(|one| one.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_closed_block_of_the_language_is_found() {
        let python = [String::from("python")];
        let last = |text| last_block(text, &python);
        for (text, expected) in [
            ("```Python title=a.py\nx\n```", Some("x\n")),
            ("```cpp\nx\n``` ```python\ny\n```", Some("y\n")),
            ("```python\nx\n``` ```cpp\ny\n```", Some("x\n")),
            ("```python\nx\n``` ```python\ny", Some("x\n")),
            ("```python3\nx\n```", None),
            ("```python", None),
            ("use ```python``` here\n", None),
            ("", None),
        ] {
            assert_eq!(last(text), expected, "{text}");
        }
        assert_eq!(last_block("```\nx\n```", &[]), Some("x\n"));
        assert_eq!(last_block("```a\nx\n``` ```b\ny\n```", &[]), Some("y\n"));
    }
}
