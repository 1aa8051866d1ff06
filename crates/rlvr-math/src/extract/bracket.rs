//! The text between the last square brackets.

/// Returns the content of the last `[...]`, of the outermost one if they are nested.
///
/// `\[`, which opens a formula, and the index of `\sqrt[3]` are not brackets here.
pub(crate) fn last_bracket(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut open = Vec::new();
    // The pair that closes last contains those nested in it.
    let mut last: Option<(usize, usize)> = None;
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => {
                i += 1;
                let letters = bytes[i..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_alphabetic());
                let letters = letters.count();
                i += letters;
                let command = &text[i - letters..i];
                // `\left[` is a bracket, the optional argument of another command is not.
                let argument = letters > 0 && bytes.get(i) == Some(&b'[');
                let sized = matches!(command, "left" | "big" | "Big" | "bigl" | "Bigl" | "bigg");
                if letters == 0 {
                    i += 1;
                } else if argument && !sized {
                    open.push((i, false));
                    i += 1;
                }
                continue;
            }
            b'[' => open.push((i, true)),
            b']' => {
                if let Some((start, true)) = open.pop() {
                    last = Some((start, i));
                }
            }
            _ => {}
        }
        i += 1;
    }
    let (start, end) = last?;
    let content = text[start + 1..end].trim();
    Some(content.strip_suffix("\\right").unwrap_or(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_balanced_pair_is_found() {
        for (text, expected) in [
            ("[$\\sqrt{4}$] = [2]", Some("2")),
            ("[[1, 2], [3]] or", Some("[1, 2], [3]")),
            ("[[1, 2], [3", Some("1, 2")),
            ("[1] and [2", Some("1")),
            ("[$\\sqrt[3]{8}$]", Some("$\\sqrt[3]{8}$")),
            ("$\\sqrt[3]{8}$", None),
            ("\\[ x \\]", None),
            ("\\left[1, 2\\right]", Some("1, 2")),
            ("] [", None),
            ("[]", Some("")),
            ("", None),
        ] {
            assert_eq!(last_bracket(text), expected, "{text}");
        }
    }
}
