//! The formulas of a text: between `$`, in `\(..\)` and `\[..\]`, and in environments.

/// A formula: its bounds with and without delimiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Formula {
    pub start: usize,
    pub end: usize,
    pub inner: (usize, usize),
}

impl Formula {
    pub fn content<'a>(&self, text: &'a str) -> &'a str {
        text[self.inner.0..self.inner.1].trim()
    }
}

/// Environments whose content is the formula. Other environments (matrices, cases) are part of the
/// formula.
const DISPLAYS: [&str; 8] = [
    "equation",
    "align",
    "aligned",
    "gather",
    "gathered",
    "multline",
    "eqnarray",
    "displaymath",
];

/// Returns all closed formulas that are not inside of another one, in order, in one pass.
///
/// A `$` after a digit does not open a formula and a `$` before a digit does not close one, so that
/// `5$ and $10` are amounts of money. A formula does not extend over a blank line.
pub(crate) fn formulas(text: &str) -> Vec<Formula> {
    let bytes = text.as_bytes();
    let mut found = Scan::default();
    let mut i = 0;
    while i < bytes.len() {
        let next = bytes.get(i + 1).copied();
        match (bytes[i], next) {
            (b'\\', Some(b'(')) => found.paren = Some(i),
            (b'\\', Some(b'[')) => found.bracket = Some(i),
            (b'\\', Some(b')')) => found.close(|scan| scan.paren.take(), i, 2),
            (b'\\', Some(b']')) => found.close(|scan| scan.bracket.take(), i, 2),
            (b'\\', Some(b'b')) if text[i..].starts_with("\\begin{") => found.begin(text, i),
            (b'\\', Some(b'e')) if text[i..].starts_with("\\end{") => found.end(text, i),
            (b'$', Some(b'$')) if found.single.is_none() => {
                match found.double {
                    Some(_) => found.close(|scan| scan.double.take(), i, 2),
                    None => found.double = Some(i),
                }
                i += 2;
                continue;
            }
            (b'$', _) if found.double.is_none() => {
                let before_digit = next.is_some_and(|byte| byte.is_ascii_digit());
                let after_digit = i > 0 && bytes[i - 1].is_ascii_digit();
                let blank = |open: usize| text[open + 1..i].trim_start().is_empty();
                if found
                    .single
                    .is_some_and(|open| !before_digit && !blank(open))
                {
                    found.close(|scan| scan.single.take(), i, 1);
                } else if !after_digit {
                    found.single = Some(i);
                }
            }
            (b'\n', Some(b'\n')) => {
                found.single = None;
                found.double = None;
            }
            _ => {}
        }
        // Skips the character after a backslash: `\$`, `\\`.
        i += if bytes[i] == b'\\' { 2 } else { 1 };
    }
    found.formulas
}

/// The open delimiters, and the formulas found.
#[derive(Default)]
struct Scan<'a> {
    paren: Option<usize>,
    bracket: Option<usize>,
    single: Option<usize>,
    double: Option<usize>,
    environments: Vec<(usize, &'a str)>,
    formulas: Vec<Formula>,
}

impl<'a> Scan<'a> {
    fn close(&mut self, opened: impl Fn(&mut Self) -> Option<usize>, at: usize, length: usize) {
        if let Some(start) = opened(self) {
            self.push(Formula {
                start,
                end: at + length,
                inner: (start + length, at),
            });
        }
    }

    /// Adds a formula. Removes the formulas inside of it, and the delimiters that were opened in it
    /// and not closed.
    fn push(&mut self, formula: Formula) {
        let start = formula.start;
        while self.formulas.last().is_some_and(|last| last.start > start) {
            self.formulas.pop();
        }
        for open in [
            &mut self.paren,
            &mut self.bracket,
            &mut self.single,
            &mut self.double,
        ] {
            *open = open.filter(|at| *at < start);
        }
        while self.environments.last().is_some_and(|(at, _)| *at > start) {
            self.environments.pop();
        }
        if formula.inner.0 < formula.inner.1 {
            self.formulas.push(formula);
        }
    }

    fn begin(&mut self, text: &'a str, at: usize) {
        if let Some(name) = environment(&text[at + "\\begin{".len()..]) {
            self.environments.push((at, name));
        }
    }

    fn end(&mut self, text: &'a str, at: usize) {
        let name = environment(&text[at + "\\end{".len()..]);
        let Some((start, name)) = self.environments.pop_if(|(_, open)| Some(*open) == name) else {
            return;
        };
        let end = at + "\\end{}".len() + name.len();
        let display = DISPLAYS.contains(&name.trim_end_matches('*'));
        let inner = if display {
            (start + "\\begin{}".len() + name.len(), at)
        } else {
            (start, end)
        };
        self.push(Formula { start, end, inner });
    }
}

/// Returns the name of an environment, which ends with a brace.
fn environment(text: &str) -> Option<&str> {
    let length = text.bytes().take(20);
    let length = length
        .take_while(|byte| byte.is_ascii_alphabetic() || *byte == b'*')
        .count();
    text[length..].starts_with('}').then_some(&text[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(text: &str) -> Vec<&str> {
        let found = formulas(text);
        found.iter().map(|formula| formula.content(text)).collect()
    }

    #[test]
    fn the_outermost_closed_formulas_are_found_in_order() {
        for (text, expected) in [
            ("$a$ \\(b\\) \\[c\\] $$d$$", &["a", "b", "c", "d"][..]),
            ("\\[ a \\text{ if $b$ } c \\]", &["a \\text{ if $b$ } c"]),
            ("\\( \\( a \\)", &["a"]),
            ("\\[ a \\( b \\) c", &["b"]),
            ("$a\n\nb$ $c$", &["c"]),
            ("5$ and 10$, $x$", &["x"]),
            ("$5 and $10 and \\(c\\)", &["c"]),
            ("$ \\$ = 5 $", &["\\$ = 5"]),
            ("$$$$ $a$$b$", &["a", "b"]),
            ("\\begin{align*} a &= b \\end{align*}", &["a &= b"]),
            (
                "\\begin{pmatrix}1\\end{pmatrix}",
                &["\\begin{pmatrix}1\\end{pmatrix}"],
            ),
            (
                "$\\begin{pmatrix}1\\end{pmatrix}$",
                &["\\begin{pmatrix}1\\end{pmatrix}"],
            ),
            ("\\begin{a} $x$ \\end{b}", &["x"]),
            ("$ $", &[]),
            ("5 $ $x$", &["x"]),
            ("", &[]),
        ] {
            assert_eq!(contents(text), expected, "{text}");
        }
    }
}
