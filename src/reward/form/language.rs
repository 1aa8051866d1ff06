//! A reward for reasoning in the target language.

use unicode_script::{Script, UnicodeScript};
use unicode_segmentation::UnicodeSegmentation;

use super::prose::without_markup;
use crate::reward::setters::{with_name, with_tags};
use crate::reward::{Reward, RewardError, RewardInput, Tags};
use crate::{Error, Result};

/// Scores the share of the words of the reasoning that are in the target language, judged by their
/// script.
///
/// ```text
/// reward = words in the target's scripts / words
/// ```
///
/// DeepSeek-R1 (arXiv 2501.12948, section 2.3.2) adds this share to the accuracy reward to prevent
/// mixing languages in long reasoning, at a small cost in accuracy. The paper does not define a
/// word, and its code is not public. Here:
///
/// - The reasoning is the text between the first `<think>` and the last `</think>`. It extends to
///   the end if it is not closed, and starts at the beginning if it is not opened; without tags it
///   is the whole completion. [`with_whole`](Self::with_whole) always uses the whole completion.
/// - LaTeX, code and tags are removed first, since they are in no language.
/// - Words are those of Unicode text segmentation (UAX 29) that contain a letter. Scripts that are
///   written without spaces, such as Han and Thai, are counted by character, so that a Chinese text
///   of 100 characters mixed with 100 English words is half Chinese. A single Latin or Greek letter
///   is a symbol and is not counted, and neither are numbers.
/// - A word is in the target language if all its letters have one of its scripts (UAX 24).
/// - Without any words the reward abstains.
///
/// A script is not a language: English text counts as French, since both are Latin. The time is
/// linear in the text.
///
/// ```
/// use rlvr::reward::{LanguageReward, Reward, RewardInput};
///
/// let english = LanguageReward::new("en")?;
/// let score = |completion| {
///     english
///         .score(&RewardInput::new("", "", completion))
///         .unwrap()
/// };
/// assert_eq!(
///     score("<think>Let x be 3, so $x^2$ is nine.</think>9"),
///     Some(1.0)
/// );
/// assert_eq!(score("<think>So we 得到九</think>9"), Some(0.4)); // two of five
/// assert_eq!(score("<think>3*3=9</think>nine"), None);
///
/// let chinese = LanguageReward::new("zh")?;
/// let input = RewardInput::new("", "", "<think>所以 we 得到 9</think>9");
/// assert_eq!(chinese.score(&input).unwrap(), Some(0.8));
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LanguageReward {
    name: String,
    tags: Tags,
    scripts: Vec<Script>,
    whole: bool,
}

/// Languages by ISO 639-1 code, with their scripts.
const LANGUAGES: &[(&[&str], &[Script])] = &[
    (
        &[
            "af", "az", "ca", "cs", "cy", "da", "de", "en", "es", "et", "eu", "fi", "fr", "ga",
            "gl", "hr", "hu", "id", "is", "it", "la", "lt", "lv", "ms", "mt", "nb", "nl", "nn",
            "no", "pl", "pt", "ro", "sk", "sl", "sq", "sv", "sw", "tl", "tr", "uz", "vi",
        ],
        &[Script::Latin],
    ),
    (
        &["be", "bg", "kk", "ky", "mk", "mn", "ru", "tg", "uk"],
        &[Script::Cyrillic],
    ),
    (&["sr"], &[Script::Cyrillic, Script::Latin]),
    (&["ar", "fa", "ps", "ur"], &[Script::Arabic]),
    (&["he", "yi"], &[Script::Hebrew]),
    (&["el"], &[Script::Greek]),
    (&["hi", "mr", "ne", "sa"], &[Script::Devanagari]),
    (&["as", "bn"], &[Script::Bengali]),
    (&["gu"], &[Script::Gujarati]),
    (&["pa"], &[Script::Gurmukhi]),
    (&["kn"], &[Script::Kannada]),
    (&["ml"], &[Script::Malayalam]),
    (&["ta"], &[Script::Tamil]),
    (&["te"], &[Script::Telugu]),
    (&["si"], &[Script::Sinhala]),
    (&["th"], &[Script::Thai]),
    (&["lo"], &[Script::Lao]),
    (&["km"], &[Script::Khmer]),
    (&["my"], &[Script::Myanmar]),
    (&["bo"], &[Script::Tibetan]),
    (&["am", "ti"], &[Script::Ethiopic]),
    (&["hy"], &[Script::Armenian]),
    (&["ka"], &[Script::Georgian]),
    (&["zh"], &[Script::Han, Script::Bopomofo]),
    (&["ja"], &[Script::Han, Script::Hiragana, Script::Katakana]),
    (&["ko"], &[Script::Hangul, Script::Han]),
];

impl LanguageReward {
    /// Creates the reward `language` for a language by its ISO 639-1 code, such as `en` or `zh`.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the language is not in the list; [`scripts`](Self::scripts)
    /// accepts any script.
    pub fn new(language: &str) -> Result<Self> {
        let found = LANGUAGES
            .iter()
            .find(|(codes, _)| codes.contains(&language));
        let Some((_, scripts)) = found else {
            let known: Vec<&str> = LANGUAGES
                .iter()
                .flat_map(|(codes, _)| *codes)
                .copied()
                .collect();
            let expected = format!("one of {}, or LanguageReward::scripts", known.join(" "));
            return Err(Error::config("language", format!("{language:?}"), expected));
        };
        Ok(Self::of(scripts.to_vec()))
    }

    /// Creates the reward `language` for any scripts, by their Unicode names, such as `Latin` or
    /// `Latn`.
    ///
    /// ```
    /// use rlvr::reward::LanguageReward;
    ///
    /// let mongolian = LanguageReward::scripts(&["Mongolian", "Cyrl"])?;
    /// assert!(LanguageReward::scripts(&["Klingon"]).is_err());
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns [`Error::Config`] if there is no name, or if a name is not that of a script.
    pub fn scripts(names: &[&str]) -> Result<Self> {
        if names.is_empty() {
            return Err(Error::config("scripts", "none", "at least one script"));
        }
        let script = |name: &&str| {
            let found = Script::from_full_name(name).or_else(|| Script::from_short_name(name));
            let of_letters =
                |s: &Script| !matches!(s, Script::Common | Script::Inherited | Script::Unknown);
            found.filter(of_letters).ok_or_else(|| {
                let expected = "the Unicode name of a script, such as Latin or Latn";
                Error::config("scripts", format!("{name:?}"), expected)
            })
        };
        Ok(Self::of(names.iter().map(script).collect::<Result<_>>()?))
    }

    fn of(scripts: Vec<Script>) -> Self {
        Self {
            name: "language".into(),
            tags: Tags::default(),
            scripts,
            whole: false,
        }
    }

    with_name!();
    with_tags!();

    /// Sets whether the words of the whole completion count (`true`) or only those of the reasoning
    /// (`false`, the default).
    #[must_use]
    pub fn with_whole(mut self, whole: bool) -> Self {
        self.whole = whole;
        self
    }

    fn reasoning<'a>(&self, completion: &'a str) -> &'a str {
        if self.whole {
            return completion;
        }
        let end = completion.rfind(self.tags.think_close());
        let inside = &completion[..end.unwrap_or(completion.len())];
        inside
            .split_once(self.tags.think_open())
            .map_or(inside, |(_, thinking)| thinking)
    }

    /// Whether a word is in the target language; `None` if it is a symbol.
    fn judge(&self, word: &str) -> Option<bool> {
        let mut letters = word.chars().filter(|c| c.is_alphabetic()).peekable();
        let first = *letters.peek()?;
        let symbol = matches!(first.script(), Script::Latin | Script::Greek);
        if symbol && word.chars().filter(|c| c.is_alphabetic()).take(2).count() == 1 {
            return None;
        }
        // Marks and letters that several scripts share are neutral.
        let shared = |script| matches!(script, Script::Common | Script::Inherited);
        let own = |script| shared(script) || self.scripts.contains(&script);
        Some(letters.all(|letter| own(letter.script())))
    }
}

impl Reward for LanguageReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let prose = without_markup(self.reasoning(input.completion()));
        let (mut words, mut own) = (0u64, 0u64);
        for judged in prose.unicode_words().filter_map(|word| self.judge(word)) {
            words += 1;
            own += u64::from(judged);
        }
        Ok((words > 0).then(|| own as f64 / words as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(language: &str, completion: &str) -> Option<f64> {
        let reward = LanguageReward::new(language).unwrap();
        reward.score(&RewardInput::new("", "", completion)).unwrap()
    }

    #[test]
    fn words_are_counted_by_script() {
        for (language, text, expected) in [
            ("en", "two words", Some(1.0)),
            ("en", "two слова", Some(0.5)),
            ("ru", "two слова", Some(0.5)),
            ("en", "naïve café", Some(1.0)),
            ("fr", "two words", Some(1.0)),
            ("en", "don't", Some(1.0)),
            // A Cyrillic а in a Latin word: the word is in neither script.
            ("en", "p\u{430}y now", Some(0.5)),
            ("ru", "p\u{430}y now", Some(0.0)),
            ("zh", "我们有三个苹果", Some(1.0)),
            ("zh", "我们 have 三个", Some(0.8)),
            ("ja", "リンゴが三つ", Some(1.0)),
            ("ja", "コーヒー", Some(1.0)),
            ("ko", "사과 세 개", Some(1.0)),
            ("ko", "사과 three", Some(0.5)),
            ("hi", "तीन सेब", Some(1.0)),
            ("th", "สาม", Some(1.0)),
            ("ar", "ثلاث تفاحات", Some(1.0)),
            // Single letters are symbols, and digits are not words.
            ("zh", "设 x 为 3, α = 2x", Some(1.0)),
            ("en", "x = 3", None),
            ("en", "1234 + 5 = ?", None),
            ("en", "", None),
        ] {
            assert_eq!(share(language, text), expected, "{language}: {text}");
        }
    }

    #[test]
    fn only_the_prose_of_the_reasoning_is_counted() {
        for (text, expected) in [
            ("<think>two</think>слова", Some(1.0)),
            ("two</think>слова", Some(1.0)),
            ("<think>two", Some(1.0)),
            ("слово<think>two", Some(1.0)),
            ("<think>a </think> слово </think>слово", Some(0.0)),
            ("two слова", Some(0.5)),
            ("<think></think>two", None),
            (
                "<think>слово $\\text{two three}$ \\(four\\)</think>",
                Some(0.0),
            ),
            ("<think>слово ```\nfour five\n```</think>", Some(0.0)),
        ] {
            assert_eq!(share("en", text), expected, "{text}");
        }
        let whole = LanguageReward::scripts(&["Latn"])
            .unwrap()
            .with_whole(true)
            .with_name("latin");
        assert_eq!(whole.name(), "latin");
        let input = RewardInput::new("", "", "<think>two</think>слово");
        assert_eq!(whole.score(&input).unwrap(), Some(0.5));
        let tagged = LanguageReward::new("en")
            .unwrap()
            .with_tags(Tags::new("(", ")", "[", "]").unwrap());
        let input = RewardInput::new("", "", "(two) слово");
        assert_eq!(tagged.score(&input).unwrap(), Some(1.0));
    }

    #[test]
    fn unknown_languages_and_scripts_are_rejected() {
        for error in [
            LanguageReward::new("English").unwrap_err(),
            LanguageReward::scripts(&[]).unwrap_err(),
            LanguageReward::scripts(&["Common"]).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.starts_with("invalid `"), "{text}");
        }
        let mut codes: Vec<&str> = LANGUAGES
            .iter()
            .flat_map(|(codes, _)| *codes)
            .copied()
            .collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count, "a language is listed twice");
    }

    #[test]
    fn a_megabyte_of_each_kind_of_character_is_scored() {
        for piece in ["a", "好", "ab ", "a\u{301}", "'", "1.", "\u{200d}", "$x "] {
            let text = piece.repeat(1_000_000 / piece.len());
            assert!(share("en", &text).is_none_or(|share| (0.0..=1.0).contains(&share)));
        }
    }
}
