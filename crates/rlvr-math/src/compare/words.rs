//! Answers in words.
//!
//! Case, articles, fonts and Markdown do not matter in words. Case matters in symbols: `X` is not
//! `x`, `AB` is not `ab`.

/// Short words that are answers.
const SHORT: [&str; 26] = [
    "yes", "no", "odd", "even", "true", "false", "none", "both", "up", "down", "east", "west",
    "dne", "all", "one", "two", "red", "blue", "mean", "mode", "sad", "never", "left", "right",
    "north", "south",
];

/// Phrases and their common meaning.
const SYNONYMS: [(&str, &str); 16] = [
    ("no solutions", "\u{2205}"),
    ("no solution", "\u{2205}"),
    ("no real solutions", "\u{2205}"),
    ("no real solution", "\u{2205}"),
    ("no real roots", "\u{2205}"),
    ("empty set", "\u{2205}"),
    ("emptyset", "\u{2205}"),
    ("none", "\u{2205}"),
    ("there is no solution", "\u{2205}"),
    ("there are no solutions", "\u{2205}"),
    ("there are no real solutions", "\u{2205}"),
    ("does not exist", "dne"),
    ("limit does not exist", "dne"),
    ("all real numbers", "\u{211d}"),
    ("real numbers", "\u{211d}"),
    ("all reals", "\u{211d}"),
];

/// An answer in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words {
    /// The words in lower case, without articles and with synonyms replaced.
    pub key: String,
    /// The text as written, to compare symbols.
    pub written: String,
    /// Whether the text can only be words.
    pub certain: bool,
}

/// Returns the words of a text that consists of words and has no mathematics.
pub(crate) fn words(text: &str) -> Option<Words> {
    if text.len() > 2_000 {
        return None;
    }
    let (bare, wrapped) = unwrap(text);
    if bare.is_empty() {
        return None;
    }
    // Operators and commands are mathematics; a hyphen or an apostrophe is part of a word.
    let wordy = |c: char| {
        c.is_alphabetic()
            || c.is_whitespace()
            || matches!(c, '-' | '\'' | '’' | ',' | '.' | ':' | '"')
    };
    let lettered = bare.chars().any(char::is_alphabetic);
    if !lettered
        || !bare
            .chars()
            .all(|c| wordy(c) || (wrapped && (c.is_ascii_digit() || matches!(c, '(' | ')' | '/'))))
    {
        return None;
    }
    // Next to digits, a point or a comma may be part of a number.
    let digits = bare.contains(|c: char| c.is_ascii_digit());
    let list: Vec<String> = bare
        .split(|c: char| c.is_whitespace() || c == '"' || (c == ',' && !digits))
        .map(|w| {
            let end = w.trim_end_matches(['.', ':', '\'', ',']);
            if digits {
                end
            } else {
                end.trim_start_matches(['.', ':', '\''])
            }
        })
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .filter(|w| !matches!(w.as_str(), "a" | "an" | "the") || bare.len() < 4)
        .collect();
    let vowel = |w: &str| w.chars().any(|c| "aeiouy".contains(c)) || !w.is_ascii();
    let word = |w: &String| SHORT.contains(&w.as_str()) || (w.chars().count() >= 4 && vowel(w));
    let certain = list.iter().any(word)
        && !list.iter().any(|w| {
            crate::grammar::vocabulary::plain(w)
                .is_some_and(|_| !matches!(w.as_str(), "in" | "and" | "or" | "union"))
        });
    if !certain && !wrapped {
        return None;
    }
    let mut key = list.join(" ");
    for (phrase, meaning) in SYNONYMS {
        if key == phrase {
            key = meaning.to_owned();
        }
    }
    Some(Words {
        key,
        written: bare,
        certain,
    })
}

/// Returns a text that is a run of letters with a vowel and may be a short word: `cat`, not `ABC`.
pub(crate) fn short_word(text: &str) -> Option<String> {
    let (bare, _) = unwrap(text);
    let small = bare.chars().skip(1).all(|c| c.is_ascii_lowercase());
    let word = bare.len() == 3
        && bare.starts_with(|c: char| c.is_ascii_alphabetic())
        && small
        && bare.contains(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U'])
        && bare.contains(|c: char| !"abcdeixyz".contains(c.to_ascii_lowercase()))
        && crate::grammar::vocabulary::plain(&bare).is_none();
    word.then(|| bare.to_lowercase())
}

/// Returns whether two answers in words are the same.
pub(crate) fn same(a: &Words, b: &Words) -> bool {
    if a.written == b.written {
        return true;
    }
    // A single short word without a font may be a symbol.
    let symbol = |w: &Words| !w.certain;
    if symbol(a) && symbol(b) {
        return a.written == b.written;
    }
    // `ABC` may be a triangle and `abc` a product.
    let capitals = |w: &Words| {
        w.written.chars().count() < 4
            && w.written.chars().all(char::is_uppercase)
            && !SHORT.contains(&w.key.as_str())
    };
    a.key == b.key && capitals(a) == capitals(b)
}

/// Removes spaces, markup and punctuation at the ends.
///
/// In a text with digits, removes only what cannot be part of the value: `.5` is not `5`, and
/// `0.3...` is not `0.3`.
fn without_marks(text: &str) -> &str {
    let quote = |c: char| c.is_whitespace() || matches!(c, '$' | '`' | '"');
    if !text.contains(|c: char| c.is_ascii_digit()) {
        return text.trim_matches(|c: char| quote(c) || matches!(c, '*' | '.' | ',' | '~'));
    }
    let mut text = text.trim_matches(quote);
    while let Some(inner) = text.strip_prefix('*').and_then(|t| t.strip_suffix('*')) {
        text = inner.trim_matches(quote);
    }
    if text.ends_with("..") {
        return text;
    }
    text.trim_end_matches(|c: char| quote(c) || matches!(c, '.' | ','))
}

/// Removes fonts, Markdown and delimiters around words. Returns whether there was a font command.
fn unwrap(text: &str) -> (String, bool) {
    let mut out = text.trim().to_owned();
    let mut wrapped = false;
    for _ in 0..6 {
        let before = out.clone();
        out = without_marks(&out).to_owned();
        for command in [
            "\\text",
            "\\textbf",
            "\\textit",
            "\\textrm",
            "\\textnormal",
            "\\mbox",
            "\\mathrm",
            "\\mathbf",
            "\\mathit",
            "\\operatorname",
            "\\emph",
            "\\textsf",
            "\\texttt",
            "\\boldsymbol",
            "\\mathsf",
        ] {
            if let Some(rest) = out.strip_prefix(command)
                && let Some(inner) = rest
                    .trim_start()
                    .strip_prefix('{')
                    .and_then(|r| r.strip_suffix('}'))
                && !inner.contains(['{', '}'])
            {
                out = inner.trim().to_owned();
                wrapped = true;
            }
        }
        out = out
            .replace("\\ ", " ")
            .replace("\\,", " ")
            .replace("~", " ");
        if out == before {
            break;
        }
    }
    let spaced = out.split_whitespace().collect::<Vec<_>>().join(" ");
    (spaced, wrapped)
}

/// Removes fonts, Markdown and delimiters.
pub(crate) fn unwrapped(text: &str) -> String {
    unwrap(text).0
}
